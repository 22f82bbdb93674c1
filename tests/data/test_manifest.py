import json
import os
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from affinitynet.data import Manifest, Sample
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import fingerprint, output_path

ROOT = Path("/data/set")


def sample(sample_id: str, *tags: int, mask: str | None = None) -> Sample:
    return Sample(sample_id, ROOT / f"{sample_id}.jpg", tags, None if mask is None else ROOT / mask)


def manifest(**changes) -> Manifest:
    content = {
        "root": ROOT,
        "classes": ("cat", "dog"),
        "splits": {
            "train": (sample("a/1", 0, 1, mask="masks/1.png"), sample("2")),
            "val": (sample("3", 1),),
        },
        "truth_values": {0: 0, 8: 1, 12: 2, 255: 255},
        "notes": ("Näher betrachten.",),
    }
    return Manifest(**(content | changes))


def test_lines_give_the_same_manifest_back():
    before = manifest()
    after = Manifest.from_lines(before.to_lines())
    assert after == before
    assert after.fingerprint() == before.fingerprint()
    assert after.truth_fingerprint() == before.truth_fingerprint()


def test_a_line_holds_an_image_by_paths_relative_to_the_root():
    _, first, *_ = manifest().to_lines()
    entry = json.loads(first)
    assert (entry["image"], entry["mask"]) == ("a/1.jpg", "masks/1.png")
    assert entry["splits"] == {"train": 0}


def test_every_split_keeps_its_own_order():
    one, two = sample("1", 0), sample("2", 1)
    before = manifest(splits={"train": (one, two), "part": (two, one), "empty": ()})
    assert Manifest.from_lines(before.to_lines()) == before
    assert len(list(before.to_lines())) == 1 + 2


def test_a_run_of_an_earlier_version_is_refused_by_what_to_do(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"run of version 0\.1.*start a new run with another --out"):
        Manifest.of_run(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("dog", "cat")},
        {"splits": {"train": (sample("a/1", 0, 1), sample("2", 0)), "val": (sample("3", 1),)}},
        {"splits": {"train": (sample("2"), sample("a/1", 0, 1)), "val": (sample("3", 1),)}},
        {"splits": {"train": (sample("a/1", 0, 1), sample("2")), "test": (sample("3", 1),)}},
    ],
    ids=["class order", "tags", "sample order", "split name"],
)
def test_fingerprint_follows_what_trains(change):
    assert manifest(**change).fingerprint() != manifest().fingerprint()


def test_ground_truth_changes_only_its_own_fingerprint():
    without = manifest(
        splits={"train": (sample("a/1", 0, 1), sample("2")), "val": (sample("3", 1),)}
    )
    assert without.fingerprint() == manifest().fingerprint()
    assert without.truth_fingerprint() != manifest().truth_fingerprint()
    assert manifest(truth_values=None).truth_fingerprint() != manifest().truth_fingerprint()


def test_unknown_split_names_the_known_ones():
    with pytest.raises(UserError, match=r"no split 'test'.*train, val"):
        manifest().split("test")


def test_a_sample_in_two_splits_is_listed_once():
    both = manifest(splits={"train": (sample("1", 0), sample("2")), "fine": (sample("2"),)})
    assert [s.id for s in both.samples] == ["1", "2"]


UNSAFE = ["/etc/passwd", "../x", "a/../../x", "a//b", "a/.", "", "C:/x", "a\\b", "a\nb", "a\0"]


@pytest.mark.parametrize("unsafe", UNSAFE)
def test_unsafe_ids_are_refused(unsafe, tmp_path):
    with pytest.raises(UserError, match="plain relative path"):
        manifest(splits={"train": (Sample(unsafe, ROOT / "x.jpg", (0,)),)})
    with pytest.raises(UserError, match="plain relative path"):
        output_path(tmp_path, unsafe)


@pytest.mark.parametrize("unsafe", UNSAFE)
@pytest.mark.parametrize("field", ["image", "mask"])
def test_a_manifest_file_cannot_point_outside_its_root(unsafe, field):
    head, first, *rest = manifest().to_lines()
    entry = json.loads(first) | {field: unsafe}
    with pytest.raises(UserError, match="plain relative path"):
        Manifest.from_lines([head, json.dumps(entry), *rest])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"root": 1}',
        "null",
        '{"format": 2}',
        "{",
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_other_lines_are_refused(text):
    with pytest.raises(UserError, match="not a manifest"):
        Manifest.from_lines(text.splitlines())
    head, *_ = manifest().to_lines()
    with pytest.raises(UserError, match="not a manifest"):
        Manifest.from_lines([head, text or "[]"])


def test_a_manifest_of_another_format_is_refused():
    head, *rest = manifest().to_lines()
    newer = json.dumps(json.loads(head) | {"format": 3})
    with pytest.raises(UserError, match="of format 3, this version reads 2"):
        Manifest.from_lines([newer, *rest])


def test_what_a_manifest_refuses():
    with pytest.raises(UserError, match="no classes"):
        manifest(classes=())
    with pytest.raises(UserError, match="'cat' is listed twice"):
        manifest(classes=("cat", "cat"))
    with pytest.raises(UserError, match="holds no images"):
        manifest(splits={"train": ()})
    with pytest.raises(UserError, match="'2' occurs twice in the split 'train'"):
        manifest(splits={"train": (sample("2"), sample("2"))})
    with pytest.raises(UserError, match="'2' stands for"):
        manifest(splits={"train": (sample("2"),), "val": (Sample("2", ROOT / "2.png", ()),)})
    for tags in ((2,), (1, 0), (0, 0), (-1,)):
        with pytest.raises(UserError, match="sorted class indices below 2"):
            manifest(splits={"train": (sample("2", *tags),)})
    strange = Path(os.fsdecode(b"/data/caf\xe9"))  # Latin-1
    with pytest.raises(UserError, match=r"caf.udce9': the name is not UTF-8"):
        manifest(root=strange)
    with pytest.raises(UserError, match="the name is not UTF-8"):
        manifest(splits={"train": (Sample("2", strange / "2.jpg", ()),)})
    outside = manifest(splits={"train": (Sample("x", Path("/other/x.jpg"), ()),)})
    with pytest.raises(UserError, match="not inside the data set"):
        list(outside.to_lines())


def test_output_path_stays_in_its_folder(tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    assert output_path(out, "a/b", ".npz") == out / "a" / "b.npz"
    (out / "link").symlink_to(other)
    with pytest.raises(UserError, match="symbolic link"):
        output_path(out, "link/b")
    (tmp_path / "linked_out").symlink_to(out)
    assert output_path(tmp_path / "linked_out", "b") == tmp_path / "linked_out" / "b.png"


def test_ignore_index_leaves_room_for_every_class():
    assert manifest(classes=tuple(map(str, range(254)))).ignore_index == 255
    assert manifest(classes=tuple(map(str, range(255)))).ignore_index == 65535


@pytest.mark.usefixtures("nothing_readable")
def test_a_manifest_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "manifest.jsonl").write_text("{}")
    with pytest.raises(UserError, match=r"manifest\.jsonl: can't be read"):
        Manifest.of_run(tmp_path)


def lines_of(count: int) -> Iterator[str]:
    head = {"format": 2, "root": str(ROOT), "classes": ["cat", "dog"], "truth_values": None}
    yield json.dumps(head | {"notes": [], "splits": ["train", "val"]})
    for number in range(count):
        name = f"{number // 1000:04d}/{number:010d}"
        entry = {"id": name, "image": f"JPEGImages/{name}.jpg", "tags": [number % 2]}
        mask = f"SegmentationClass/{name}.png"
        yield json.dumps(entry | {"mask": mask, "splits": {"train": number}})


def test_an_image_takes_two_hundred_bytes_of_memory() -> None:
    count = 20_000
    # Equal parts are kept once: that they are known already must not make it less.
    Manifest.from_lines(lines_of(2))
    tracemalloc.start()
    try:
        found = Manifest.from_lines(lines_of(count))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        name = found.fingerprint()
        _, hashing = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.samples[-1].image == ROOT / "JPEGImages/0019/0000019999.jpg"
    assert found.samples[-1].mask == ROOT / "SegmentationClass/0019/0000019999.png"
    assert most / count < 220
    assert hashing / count < 220
    trained = [[sample.id, sample.tags] for sample in found.samples]
    assert name == fingerprint([found.classes, {"train": trained, "val": []}])


@pytest.mark.parametrize(
    ("image", "mask"),
    [("a/1.jpg", None), ("other.png", "a/1.png"), ("a/1/a/1.jpg", "truth.json"), ("1", "x/1/1")],
    ids=["own name", "another name", "name twice", "part of the name"],
)
def test_a_sample_is_what_it_was_made_of(image: str, mask: str | None) -> None:
    given = ROOT / image, (1, 3), None if mask is None else ROOT / mask, "plant"
    made = Sample("a/1", *given)
    assert (made.image, made.tags, made.mask, made.group) == given
    assert made == Sample("a/1", *given) == pickle.loads(pickle.dumps(made))
    assert hash(made) == hash(Sample("a/1", *given))
    other = made.replace(group="tree")
    assert (other.group, other.image, other.mask) == ("tree", *given[::2])
    assert other != made
    assert f"{ROOT / image}" in repr(made)


def test_lines_with_another_order_or_a_place_beyond_all_numbers() -> None:
    head, *rest = manifest().to_lines()
    assert Manifest.from_lines([head, *reversed(rest)]) == manifest()
    with pytest.raises(UserError, match="not a manifest"):
        Manifest.from_lines([head, rest[0].replace('"train":0', f'"train":{10**30}')])
