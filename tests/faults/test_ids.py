"""Ids and names refer to one thing each, and to something."""

import pytest

from affinitynet.data import load_truth, read_dataset
from affinitynet.errors import UserError

TWO = [(1, "1.jpg"), (2, "2.jpg")]


@pytest.mark.parametrize(
    ("images", "marks"),
    [
        (TWO, [("1", 1, 5), ("2", 2, 5)]),
        (TWO, [(1, 1, 5), ("2", 2, 5)]),
        (TWO, [("000001", 1, 5)]),
        ([("000001", "1.jpg")], [("1", 1, 5)]),
        ([("7", "1.jpg")], [(7, 1, 5)]),
    ],
    ids=["text", "half of them text", "padded", "padded in images", "number for text"],
)
def test_annotations_that_write_an_id_otherwise_are_refused(coco, images, marks):
    with pytest.raises(UserError, match=r"which is not listed, but .* write ids alike"):
        read_dataset(coco(images, marks))


@pytest.mark.parametrize("images", [[(0, "a.jpg"), (0, "b.jpg")], [("x", "a.jpg"), ("x", "b.jpg")]])
def test_two_images_of_one_id_are_refused(coco, images):
    with pytest.raises(UserError, match=r"images\[0\] and images\[1\] both have id"):
        read_dataset(coco(images, [(0, 1, 5)]))


def test_one_image_listed_twice_is_refused(coco):
    with pytest.raises(UserError, match=r"both have file_name = '1\.jpg'"):
        read_dataset(coco([(1, "1.jpg"), (2, "1.jpg")], []))


def test_annotations_of_no_image_are_counted_and_refused_if_all_are(coco, tmp_path):
    manifest = read_dataset(coco(TWO, [(1, 1, 5), (77, 2, 5), (78, 2, 5)]))
    assert any("2 annotations are of images that are not listed" in n for n in manifest.notes)
    (tmp_path / "annotations" / "instances_train2017.json").unlink()
    (tmp_path / "annotations").rmdir()
    with pytest.raises(UserError, match="none of its annotations is of a listed image"):
        read_dataset(coco(TWO, [(77, 1, 5)]))


@pytest.mark.parametrize("other", ["images/0.jpg", "a/0.jpg", "a/b/0.jpg"])
def test_an_image_never_gets_the_truth_of_one_whose_path_ends_alike(coco, other):
    root = coco([(1, "0.jpg"), (2, other)], [(1, 1, 5), (2, 2, 20)])
    manifest = read_dataset(root)
    for sample in manifest.samples:
        column, label = (5, 1) if sample.id == "0" else (20, 2)
        truth = load_truth(manifest, sample)
        assert (truth[10, column], truth.max()) == (label, label)


def test_images_beside_a_folder_named_images(coco):
    root = coco([(1, "0.jpg"), (2, "images/0.jpg")], [(1, 1, 5), (2, 2, 20)], folder="images")
    manifest = read_dataset(root)
    assert {s.id: load_truth(manifest, s).max() for s in manifest.samples} == {
        "0": 1,
        "images/0": 2,
    }


@pytest.mark.parametrize("mask", ["9.png", "sub/1.png", "1_mask.png"])
def test_masks_of_no_image_are_named(table, pictures, mask):
    root = table("image,labels\n1.png,a\n2.png,\n3.png,a\n")
    pictures(f"masks/{mask}")
    (note,) = read_dataset(root).notes
    assert f"1 files in masks/ are no image's mask (<image's name>.png), masks/{mask} first" in note
