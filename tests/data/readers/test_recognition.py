"""Which layout a folder has: what fits alone is taken, what fits twice is refused by both names."""

import json

import numpy as np
import pytest
from PIL import Image

from affinitynet.data import check_dataset, load_truth, read_dataset
from affinitynet.errors import UserError

TABLE = "image,labels\n1.png,weld\n2.png,\n"
CHOICE = {"type": "choices", "from_name": "c", "value": {"choices": ["weld"]}}
TASKS = [{"id": 1, "data": {"image": "1.png"}, "annotations": [{"result": [CHOICE]}]}]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("a.csv", TABLE), ("b.csv", TABLE)),
        (("a.csv", TABLE), ("b.json", json.dumps(TASKS))),
        (("metadata.csv", TABLE), ("metadata.jsonl", '{"image": "1.png", "labels": []}\n')),
        (("a.csv", TABLE), ("train/b.csv", TABLE)),
    ],
)
def test_two_files_of_tags_are_ambiguous(pictures, first, second):
    root = pictures("images/1.png", "images/2.png", "train/3.png")
    for name, content in (first, second):
        (root / name).write_text(content)
    with pytest.raises(UserError, match=rf"{first[0]} \(.* and {second[0]} \(.*give the path"):
        read_dataset(root)
    assert read_dataset(root / first[0]).samples


def test_a_table_and_class_folders_are_ambiguous_where_they_say_the_same(pictures):
    root = pictures("weld/1.png", "crack/2.png")
    (root / "tags.csv").write_text("image,labels\nweld/1.png,weld\ncrack/2.png,crack\n")
    with pytest.raises(UserError, match=r"tags\.csv \(table\) and folders named after classes"):
        read_dataset(root)
    assert read_dataset(root, format="folder").layout == "folder"
    assert read_dataset(root, format="table").layout == "table"
    (root / "tags.csv").write_text("image,labels\nweld/1.png,rust\ncrack/2.png,\n")
    assert read_dataset(root).classes == ("rust",)


def test_coco_and_a_table_are_ambiguous(pictures):
    root = pictures("images/1.png", "images/2.png")
    (root / "labels.csv").write_text(TABLE)
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_text("{}")
    with pytest.raises(UserError, match=r"labels\.csv \(table\) and annotations/ \(coco\)"):
        read_dataset(root)
    assert read_dataset(root, format="table").layout == "table"


def test_what_is_not_read_is_said(pictures):
    root = pictures("images/1.png", "images/2.png")
    (root / "labels.csv").write_text(TABLE)
    (root / "other.tsv").write_text("image\tlabels\n1.png\tweld\n")
    (root / "sizes.csv").write_text("name,width\n1.png,8\n")
    notes = read_dataset(root).notes
    assert "other.tsv is not read: labels.csv is there" in notes
    assert any(note.startswith("sizes.csv is not read: its first line is") for note in notes)
    (root / "labels.csv").unlink()
    (root / "other.tsv").unlink()
    with pytest.raises(UserError, match=r"sizes\.csv may hold tags, but is not read \(its first"):
        read_dataset(root)
    with pytest.raises(UserError, match=r"no tags of the format cvat; sizes|no tags of the format"):
        read_dataset(root, format="cvat")


def coco(images, marks, names=("weld", "crack"), **more):
    return {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(images)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": category}
            for n, (image, category) in enumerate(marks)
        ],
        "categories": [{"id": n, "name": name, **more} for n, name in enumerate(names, 1)],
    }


@pytest.mark.parametrize("place", ["annotations/instances_default.json", "labels.json", "set.json"])
def test_coco_with_categories_only(pictures, tags, place):
    root = pictures("data/1.png", "data/2.png")
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).write_text(json.dumps(coco(["1.png", "2.png"], [(0, 1), (0, 2), (1, 2)])))
    manifest = read_dataset(root)
    assert manifest.classes == ("weld", "crack")
    (found,) = tags(manifest).values()
    assert found == {"1": ("weld", "crack"), "2": ("crack",)}
    assert [s.mask for s in manifest.samples] == [None, None]


def test_roboflows_coco(pictures, tags):
    """A file in each split's folder; the first category is a heading over the others."""
    root = pictures("train/1.png", "valid/2.png")
    for split, name in (("train", "1.png"), ("valid", "2.png")):
        content = coco([name], [(0, 1)], ("weld", "crack"), supercategory="defects")
        content["categories"].insert(0, {"id": 0, "name": "defects", "supercategory": "none"})
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))
    manifest = read_dataset(root)
    assert manifest.classes == ("weld", "crack")
    assert {k: list(v.values()) for k, v in tags(manifest).items()} == {
        "train": [("weld",)],
        "val": [("weld",)],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [{"image_id": 0, "category_id": 9}]}, r"annotations\[0\]: the category 9"),
        ({"images": [{"id": 0}]}, r"images\[0\]: has no file_name"),
        ({"categories": [{"id": 1}]}, r"categories\[0\]: has no name"),
        ({"annotations": [{"category_id": 1}]}, r"annotations\[0\]: has no image_id"),
    ],
)
def test_mistakes_in_coco_with_categories_only(pictures, change, message):
    root = pictures("1.png", "2.png")
    content = coco(["1.png", "2.png"], [(0, 1)]) | change
    (root / "labels.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"labels\.json, {message}"):
        read_dataset(root)


def mvtec(pictures, *more):
    root = pictures("train/good/000.png", "train/good/001.png", "test/good/000.png",
                    "test/crack/000.png", "test/scratch/000.png", *more)  # fmt: skip
    for defect in ("crack", "scratch"):
        mask = np.zeros((6, 8), np.uint8)
        mask[2:4, 3:5] = 255
        path = root / "ground_truth" / defect / "000_mask.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(mask).save(path)
    return root


def test_mvtecs_layout(pictures, tags):
    root = mvtec(pictures)
    manifest = read_dataset(root)
    assert (manifest.layout, manifest.classes) == ("mvtec", ("crack", "scratch"))
    assert tags(manifest) == {
        "train": {
            "train/good/000": (),
            "train/good/001": (),
            "test/crack/000": ("crack",),
            "test/good/000": (),
            "test/scratch/000": ("scratch",),
        }
    }
    truths = {s.id: set(load_truth(manifest, s).ravel()) for s in manifest.samples if s.mask}
    assert truths == {"test/crack/000": {0, 1}, "test/scratch/000": {0, 2}}
    assert not check_dataset(manifest).problems
    assert read_dataset(root, background=["scratch"]).classes == ("crack",)


def test_mistakes_in_mvtecs_layout(pictures):
    root = mvtec(pictures, "test/loose.png")
    with pytest.raises(UserError, match=r"test/loose\.png: is in no folder of a defect"):
        read_dataset(root)
    (root / "test" / "loose.png").unlink()
    Image.new("RGB", (8, 6)).save(root / "test" / "crack" / "000.jpg")
    with pytest.raises(UserError, match=r"crack/000\.png: would be written as test/crack/000"):
        read_dataset(root)
    (root / "test" / "crack" / "000.jpg").unlink()
    with pytest.raises(UserError, match=r"train: is not of MVTec's layout"):
        read_dataset(root / "train", format="mvtec")


def test_many_sets_of_mvtecs_layout_are_named(pictures):
    names = ("train/good/0.png", "test/bad/0.png")
    root = pictures(*(f"{kind}/{name}" for kind in ("bottle", "cable") for name in names))
    with pytest.raises(UserError, match=r"holds data sets in MVTec's layout \(bottle, cable\)"):
        read_dataset(root)


def test_split_and_class_folders(pictures, tags):
    root = pictures("train/cat/1.png", "train/dog/2.png", "valid/cat/3.png")
    manifest = read_dataset(root)
    assert manifest.layout == "folder"
    assert tags(manifest)["val"] == {"valid/cat/3": ("cat",)}
    assert "2 folders of images" in manifest.found


def test_run_folders_and_files_of_one_image_each_list_no_tags(pictures, tags):
    root = pictures("images/1.png", "images/2.png", "run/pseudo/1.png")
    (root / "tags.csv").write_text("image,labels\n1,weld\n2,\n")
    (root / "run" / "recipe.yaml").write_text("")
    line = '{"image": "images/1.png", "tags": ["weld"]}\n'
    (root / "run" / "manifest.jsonl").write_text(line)
    manifest = read_dataset(root)
    assert tags(manifest) == {"train": {"1": ("weld",), "2": ()}}
    note = f"{root}: 2 images were found by their names, most of them in images"
    assert manifest.notes == (note,)
    for n in range(20):
        (root / "images" / f"{n}.json").write_text("[")
    said = "images/0.json is not read: it is one of 20 .json files, too many to list tags"
    assert read_dataset(root).notes == (note, said)


def test_background_alone_is_no_class(pictures, tags):
    root = pictures("1.png", "2.png")
    (root / "tags.csv").write_text("image,labels\n1.png,weld\n2.png,Background\n")
    assert tags(read_dataset(root)) == {"train": {"1": ("weld",), "2": ()}}


@pytest.mark.parametrize(("one", "zero"), [("1", "0"), ("1.0", "0.0"), ("-1", "0"), ("2.", "0.")])
def test_labels_that_are_numbers_are_named(pictures, one, zero):
    root = pictures("1.png", "2.png")
    (root / "tags.csv").write_text(f"image,label\n1.png,{one}\n2.png,{zero}\n")
    note = next(note for note in read_dataset(root).notes if "the labels are numbers" in note)
    assert f'set dataset.background to it, as ["{zero}"]' in note
    assert read_dataset(root, background=[zero]).classes == (one,)
