"""Data sets that are put together from symbolic links to folders."""

from pathlib import Path

import pytest

from affinitynet.cli import main
from affinitynet.data import load_image, read_dataset
from affinitynet.data.images import read_size, walk_files
from affinitynet.data.photographs import find_photographs
from affinitynet.errors import UserError


@pytest.fixture
def linked(pictures, tmp_path: Path):
    """Make a folder `data` whose parts are links to folders elsewhere, by their names."""

    def make(links: dict[str, str], *names: str) -> Path:
        pictures(*names)
        for name, target in links.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).symlink_to(tmp_path / target, target_is_directory=True)
        return tmp_path / "data"

    return make


STORE = ("store/a/1.png", "store/a/2.png", "store/b/deep/3.png", "store/c/4.png")


def content(root: Path) -> dict[str, tuple[str, ...]]:
    manifest = read_dataset(root)
    return {s.id: tuple(manifest.classes[tag] for tag in s.tags) for s in manifest.samples}


def test_class_folders_may_be_links(linked):
    root = linked({"data/cat": "store/a", "data/dog": "store/b"}, *STORE)
    assert content(root) == {"cat/1": ("cat",), "cat/2": ("cat",), "dog/deep/3": ("dog",)}


def test_folders_of_splits_may_be_links_and_one_folder_two_of_them(linked):
    links = {"data/train/cat": "store/a", "data/train/dog": "store/b", "data/val": "all"}
    root = linked(links | {"all/cat": "store/a", "all/dog": "store/c"}, *STORE)
    splits = read_dataset(root).splits
    assert {name: [s.id for s in split] for name, split in splits.items()} == {
        "train": ["train/cat/1", "train/cat/2", "train/dog/deep/3"],
        "val": ["val/cat/1", "val/cat/2", "val/dog/4"],
    }


def test_images_of_a_table_are_found_and_counted_behind_links(linked):
    root = linked({"data/photos": "store"}, *STORE)
    (root / "labels.csv").write_text("image,labels\n1.png,cat\n3.png,dog\n4.png,\n")
    assert content(root) == {
        "photos/a/1": ("cat",),
        "photos/b/deep/3": ("dog",),
        "photos/c/4": (),
    }
    assert any("1 image files have no row" in note for note in read_dataset(root).notes)


def test_mvtecs_folders_may_be_links(linked):
    links = {"data/train/good": "store/a", "data/test/good": "store/c", "data/test/hole": "store/b"}
    root = linked(links, *STORE)
    assert content(root)["test/hole/deep/3"] == ("hole",)
    assert len(content(root)) == 4


def test_photographs_behind_links_are_segmented(linked, tmp_path):
    root = linked(
        {"data/more": "store/b", "data/old": "masks"}, *STORE, "data/5.png", "masks/1.png"
    )
    found = find_photographs(root, tmp_path / "masks")
    assert [sample.id for sample in found] == ["5", "more/deep/3"]


@pytest.mark.parametrize(
    ("links", "below"),
    [
        ({"data/a/loop": "data"}, ["a/1.png"]),
        ({"data/a/loop": "data/a"}, ["a/1.png"]),
        ({"data/a/up": "."}, ["a/1.png", "a/up/store/2.png"]),
        ({"data/a/x": "store", "store/y": "data/a"}, ["a/1.png", "a/x/2.png"]),
        ({"data/gone": "nowhere"}, ["a/1.png"]),
        ({"data/self": "data/self"}, ["a/1.png"]),
    ],
)
def test_links_that_lead_back_end(linked, links, below):
    root = linked(links, "data/a/1.png", "store/2.png")
    found = [file.relative_to(root) for file in walk_files(root)]
    assert [path.as_posix() for path in found if path.suffix == ".png"] == below


def test_folders_that_all_link_to_each_other_are_refused(linked, tmp_path):
    names = [f"data/{n}" for n in range(9)]
    links = {f"{one}/{two[5:]}": two for one in names for two in names if one != two}
    root = linked(links, *(f"{name}/1.png" for name in names))
    with pytest.raises(UserError, match=r"links lead here in too many ways"):
        list(walk_files(root))


def test_links_are_not_followed_where_none_are_wanted(linked):
    root = linked({"data/more": "store"}, "data/1.png", *STORE)
    assert [file.name for file in walk_files(root, links=False)] == ["1.png"]


@pytest.mark.parametrize("target", ["nowhere.png", "data/cat/bad.png"])
@pytest.mark.parametrize("layout", ["folders", "table"])
def test_a_link_that_leads_to_no_image_is_a_problem_of_its_own(
    linked, tmp_path, capsys, target, layout
):
    images = [f"data/{name}/{n}.png" for name in ("cat", "dog") for n in (1, 2)]
    root = linked({"data/cat/bad.png": target}, *images)
    if layout == "table":
        rows = "cat/1.png,cat\ncat/bad.png,cat\ndog/1.png,dog\n"
        (root / "labels.csv").write_text(f"image,labels\n{rows}")
    file, words = root / "cat" / "bad.png", ["--format", layout.removesuffix("s")]
    with pytest.raises(SystemExit) as end:
        main(["check", str(root), *words])
    assert end.value.code == 2
    said = f"{file}: is a link that leads to no file; mend it, or take it out"
    printed = capsys.readouterr()
    assert said in " ".join(printed.out.split())
    assert "1 problem; see the list above" in printed.err
    for load in (load_image, read_size):
        with pytest.raises(UserError) as caught:
            load(file)
        assert str(caught.value) == said
