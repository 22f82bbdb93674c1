import pytest

from affinitynet.data.sources import by_last_part, find_source
from affinitynet.errors import UserError

IDS = by_last_part(["1", "a/1", "a/2", "b/2", "a/b/3"])


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_ids_by_their_last_part():
    assert IDS == {"1": ["1", "a/1"], "2": ["a/2", "b/2"], "3": ["a/b/3"]}


@pytest.mark.parametrize(
    ("kind", "names"),
    [("cams", ["1.npy", "1.npz", "1/cat.png"]), ("labels", ["1.png"]), ("affinity", ["1.npz"])],
)
def test_each_kind_has_its_forms(tmp_path, kind, names):
    assert find_source(tmp_path, "1", kind, IDS) is None
    for name in names:
        file = touch(tmp_path / name)
        found = find_source(tmp_path, "1", kind, IDS)
        assert found == (file.parent if "/" in name else file)
        file.unlink()


def test_other_forms_are_not_taken(tmp_path):
    for name in ("1.png", "1.txt", "1", "2/x.npy"):
        touch(tmp_path / name)
    assert find_source(tmp_path, "1", "cams", IDS) is None
    assert find_source(tmp_path, "2", "cams", IDS) is None  # the folder of an image 2/x
    touch(tmp_path / "1.npy")
    assert find_source(tmp_path, "1", "labels", IDS) == tmp_path / "1.png"


def test_two_forms_are_one_too_many(tmp_path):
    touch(tmp_path / "1.npy")
    touch(tmp_path / "1.npz")
    with pytest.raises(UserError, match=r"1\.npy and .*1\.npz: both are there"):
        find_source(tmp_path, "1", "cams", IDS)


def test_the_whole_id_comes_first_then_its_last_part(tmp_path):
    flat = touch(tmp_path / "3.npy")
    assert find_source(tmp_path, "a/b/3", "cams", IDS) == flat
    deep = touch(tmp_path / "a" / "b" / "3.npz")
    assert find_source(tmp_path, "a/b/3", "cams", IDS) == deep


def test_a_flat_file_of_two_images_is_refused(tmp_path):
    touch(tmp_path / "2.npy")
    with pytest.raises(UserError, match=r"2\.npy: may belong to a/2 or b/2; .*b/2\.npy"):
        find_source(tmp_path, "b/2", "cams", IDS)


def test_a_flat_file_belongs_to_the_image_of_that_id(tmp_path):
    touch(tmp_path / "1.npy")
    assert find_source(tmp_path, "a/1", "cams", IDS) is None


def test_links_and_ids_that_lead_out_are_refused(tmp_path):
    folder = tmp_path / "cams"
    folder.mkdir()
    touch(tmp_path / "out" / "1.npy")
    (folder / "1.npy").symlink_to(tmp_path / "out" / "1.npy")
    (folder / "a").symlink_to(tmp_path / "out")
    for sample_id in ("1", "a/1"):
        with pytest.raises(UserError, match=r"leads out of .* through a symbolic link"):
            find_source(folder, sample_id, "cams", IDS)
    with pytest.raises(UserError, match="not a plain relative path"):
        find_source(folder, "../out/1", "cams", IDS)
    (tmp_path / "link").symlink_to(tmp_path / "out")  # the folder itself may be a link
    assert find_source(tmp_path / "link", "1", "cams", IDS) == tmp_path / "link" / "1.npy"
