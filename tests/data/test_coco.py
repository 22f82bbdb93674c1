import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from affinitynet.data import load_truth, read_dataset
from affinitynet.data.coco_masks import decode_segmentation, fill_polygon
from affinitynet.errors import UserError

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 17, "name": "cat"}]


MISSING = object()


def square(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def annotate(root: Path, name: str, images: list[str], items: list[dict], **content) -> None:
    """Write annotations/<name>.json; image k (from 0) has the id 100 + k and is 8 x 6."""
    entries = [
        {"id": 100 + k, "file_name": file, "height": 6, "width": 8} for k, file in enumerate(images)
    ]
    whole = {"images": entries, "annotations": items, "categories": CATEGORIES} | content
    path = root / "annotations" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole))


def images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 6)).save(folder / name)


def coco(root: Path) -> Path:
    images(root / "train2014", "COCO_train2014_1.jpg", "COCO_train2014_2.jpg")
    images(root / "val2014", "COCO_val2014_3.jpg")
    items = [
        {"id": 1, "image_id": 100, "category_id": 18, "segmentation": square(1, 1, 3, 3)},
        {"id": 2, "image_id": 100, "category_id": 1, "segmentation": square(0, 0, 6, 6)},
        {"id": 3, "image_id": 100, "category_id": 1, "segmentation": square(7, 0, 8, 6)},
    ]
    annotate(root, "instances_train2014", ["COCO_train2014_1.jpg", "COCO_train2014_2.jpg"], items)
    crowd = {"size": [6, 8], "counts": [12, 6, 30]}
    items = [{"id": 9, "image_id": 100, "category_id": 17, "segmentation": crowd, "iscrowd": 1}]
    annotate(root, "instances_val2014", ["COCO_val2014_3.jpg"], items)
    return root


def test_tags_and_classes_come_from_the_categories(tmp_path):
    manifest = read_dataset(coco(tmp_path))
    assert manifest.classes == ("person", "cat", "dog")  # by category id: 1, 17, 18
    assert {name: {s.id: s.tags for s in split} for name, split in manifest.splits.items()} == {
        "train": {"COCO_train2014_1": (0, 2), "COCO_train2014_2": ()},
        "val": {"COCO_val2014_3": (1,)},
    }
    assert read_dataset(tmp_path, classes=["dog", "cat", "person"]).classes[0] == "dog"
    with pytest.raises(UserError, match=r"COCO_train2014_1\.jpg: the tag 'person'"):
        read_dataset(tmp_path, classes=["dog", "cat"])


def test_truth_is_rendered_with_small_instances_in_front(tmp_path):
    manifest = read_dataset(coco(tmp_path))
    first, second = manifest.split("train")
    expected = np.zeros((6, 8), dtype=np.uint8)
    expected[:, :6] = 1
    expected[1:3, 1:3] = 3
    expected[:, 7] = 1
    truth = load_truth(manifest, first)
    np.testing.assert_array_equal(truth, expected)
    assert truth.dtype == np.uint8
    assert not load_truth(manifest, second).any()
    crowd = np.zeros((6, 8))
    crowd[:, 2] = 2  # 12 zeros are two columns
    np.testing.assert_array_equal(load_truth(manifest, manifest.split("val")[0]), crowd)


def test_a_manifest_read_from_lines_still_renders(tmp_path):
    manifest = read_dataset(coco(tmp_path))
    again = type(manifest).from_lines(manifest.to_lines())
    for sample in again.samples:
        np.testing.assert_array_equal(load_truth(again, sample), load_truth(manifest, sample))


@pytest.mark.parametrize("folder", ["images/train2014", "images", "."])
def test_places_of_the_images(tmp_path, folder):
    images(tmp_path / folder, "1.jpg")
    annotate(tmp_path, "instances_train2014", ["1.jpg"], [])
    (sample,) = read_dataset(tmp_path, classes=["dog"]).split("train")
    assert sample.image == tmp_path / folder / "1.jpg"


def test_equal_names_in_two_splits_get_the_split_as_folder(tmp_path):
    for split in ("train", "val"):
        images(tmp_path / split, "1.jpg")
        item = {"id": 1, "image_id": 100, "category_id": 18, "segmentation": square(0, 0, 8, 6)}
        annotate(tmp_path, f"instances_{split}", ["1.jpg"], [item] if split == "val" else [])
    manifest = read_dataset(tmp_path)
    assert [s.id for s in manifest.samples] == ["train/1", "val/1"]
    assert [load_truth(manifest, s).max() for s in manifest.samples] == [0, 3]


def test_two_years_of_one_split_stay_apart(tmp_path):
    for folder in ("val2014", "val2017"):
        images(tmp_path / folder, f"{folder}.jpg")
        annotate(tmp_path, f"instances_{folder}", [f"{folder}.jpg"], [])
    assert sorted(read_dataset(tmp_path).splits) == ["val2014", "val2017"]


def test_panoptic_truth_is_preferred_and_its_stuff_is_background(tmp_path):
    root = coco(tmp_path)
    segments = np.zeros((6, 8), dtype=np.int64)
    segments[:2], segments[2:4], segments[4] = 70000, 300, 5  # the last row is unlabelled
    colors = np.stack([segments % 256, segments // 256 % 256, segments // 65536], axis=-1)
    folder = root / "annotations" / "panoptic_val2014"
    folder.mkdir()
    Image.fromarray(colors.astype(np.uint8)).save(folder / "3.png")
    infos = [{"id": 70000, "category_id": 17}, {"id": 300, "category_id": 1}]
    infos.append({"id": 5, "category_id": 200})
    categories = [dict(c, isthing=1) for c in CATEGORIES]
    categories.append({"id": 200, "name": "grass", "isthing": 0})
    item = {"image_id": 100, "file_name": "3.png", "segments_info": infos}
    files = ["COCO_val2014_3.jpg"]
    annotate(root, "panoptic_val2014", files, [item], categories=categories)
    manifest = read_dataset(root)
    (sample,) = manifest.split("val")
    assert sample.tags == (1,)  # from the instances
    rows = load_truth(manifest, sample)[:, 0].tolist()
    assert rows == [2, 2, 1, 1, 0, 255]
    (root / "annotations" / "instances_val2014.json").unlink()
    (sample,) = read_dataset(root).split("val")
    assert sample.tags == (0, 1)  # from the panoptic segments, without the stuff


def test_mistakes_in_coco_folders(tmp_path):
    root = coco(tmp_path)
    (root / "train2014" / "COCO_train2014_2.jpg").unlink()
    with pytest.raises(UserError, match=r"instances_train2014\.json: 1 of its images are not in"):
        read_dataset(root)
    (root / "train2014" / "COCO_train2014_1.jpg").unlink()
    manifest = read_dataset(root)
    assert list(manifest.splits) == ["val"]
    assert manifest.notes == ("instances_train2014.json is left out: none of its images is there",)
    with pytest.raises(UserError, match="tags in its annotations"):
        read_dataset(root, tags="masks")
    annotate(root, "instances_val2014", ["../x.jpg"], [])
    with pytest.raises(UserError, match="not a plain relative path"):
        read_dataset(root)
    swapped = [{"id": 1, "name": "cat"}]
    annotate(root, "instances_val2014", ["COCO_val2014_3.jpg"], [], categories=swapped)
    with pytest.raises(UserError, match=r"category 1 is 'cat' here, but 'person' elsewhere"):
        read_dataset(root)
    (root / "annotations" / "instances_val2014.json").write_text("{}")
    with pytest.raises(UserError, match=r"instances_val2014\.json: is no COCO annotation file"):
        read_dataset(root)
    (root / "annotations" / "instances_val2014.json").write_text("{")
    with pytest.raises(UserError, match=r"instances_val2014\.json: is not valid JSON"):
        read_dataset(root)


ITEM = {"id": 7, "image_id": 100, "category_id": 18, "segmentation": square(1, 1, 3, 3)}
IMAGE = {"id": 100, "file_name": "1.jpg", "height": 6, "width": 8}


def one_image(root: Path, image: dict, item: dict, **content) -> Path:
    """A data set of one image; a key whose value is MISSING is left out."""
    images(root / "images", "1.jpg")
    entries = [
        {key: value for key, value in entry.items() if value is not MISSING}
        for entry in (IMAGE | image, ITEM | item)
    ]
    whole = {"images": entries[:1], "annotations": entries[1:], "categories": CATEGORIES} | content
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_text(json.dumps(whole))
    return root


@pytest.mark.parametrize(
    ("image", "item", "content", "message"),
    [
        ({"file_name": MISSING}, {}, {}, r"images\[0\]: has no file_name"),
        ({"file_name": 3}, {}, {}, r"images\[0\]: has file_name = 3"),
        ({"id": MISSING}, {}, {}, r"images\[0\]: has no id"),
        ({"id": [1]}, {}, {}, r"images\[0\]: has id = \[1\]"),
        ({}, {"image_id": MISSING}, {}, r"annotations\[0\]: has no image_id"),
        ({}, {"category_id": MISSING}, {}, r"annotations\[0\]: has no category_id"),
        ({}, {"category_id": "18"}, {}, r"annotations\[0\]: has category_id = '18'"),
        ({}, {"category_id": 77}, {}, r"annotations\[0\]: the category 77 is not listed"),
        ({}, {"segments_info": 3}, {}, r"annotations\[0\]: has no file_name"),
        ({}, {}, {"images": None}, r"needs lists images"),
        ({}, {}, {"images": [3]}, r"images\[0\]: is no JSON object"),
        ({}, {}, {"categories": [{"id": "q", "name": "x"}]}, r"categories\[0\]: has id = 'q'"),
        ({}, {}, {"categories": [*CATEGORIES, {"id": 2, "name": "dog"}]}, "both named 'dog'"),
    ],
)
def test_malformed_entries_are_named(tmp_path, image, item, content, message):
    with pytest.raises(UserError, match=rf"instances_train\.json.*{message}"):
        read_dataset(one_image(tmp_path, image, item, **content))


@pytest.mark.parametrize(
    ("image", "item", "message"),
    [
        ({"height": MISSING}, {}, r"1\.jpg has the size None x 8"),
        ({"width": -8}, {}, r"1\.jpg has the size 6 x -8"),
        ({}, {"segmentation": [[1, 1, 2]]}, r"id 7 has \[1, 1, 2\], which is no polygon"),
        ({}, {"segmentation": [["a", "b"]]}, r"id 7 has \['a', 'b'\], which is no polygon"),
        ({}, {"segmentation": [3]}, r"id 7 has 3, which is no polygon"),
        (
            {},
            {"segmentation": {"counts": "abc"}},
            r"id 7 has .*, which is neither polygons nor run lengths",
        ),
        (
            {},
            {"segmentation": {"counts": 3, "size": [6, 8]}},
            r"id 7 has the run lengths 3, which are no counts",
        ),
        (
            {},
            {"segmentation": {"counts": [1, -5, 52], "size": [6, 8]}},
            r"id 7 has the run lengths",
        ),
    ],
)
def test_malformed_truth_is_named(tmp_path, image, item, message):
    manifest = read_dataset(one_image(tmp_path, image, item))
    with pytest.raises(UserError, match=rf"instances_train\.json.*{message}"):
        load_truth(manifest, manifest.samples[0])


def test_one_annotation_of_several_without_an_outline_is_a_mistake(tmp_path):
    bare = {key: value for key, value in ITEM.items() if key != "segmentation"}
    manifest = read_dataset(one_image(tmp_path, {}, {}, annotations=[ITEM, bare]))
    with pytest.raises(UserError, match="None, which is neither"):
        load_truth(manifest, manifest.samples[0])


def test_boxes_are_tags_but_no_ground_truth(tmp_path):
    manifest = read_dataset(
        one_image(tmp_path, {}, {"segmentation": MISSING, "bbox": [1, 1, 2, 2]})
    )
    assert [(s.tags, s.mask) for s in manifest.samples] == [((2,), None)]
    assert manifest.notes == ("instances_train.json has no outlines: train has no ground truth",)


def test_a_class_list_in_the_folder_counts(tmp_path):
    (coco(tmp_path) / "classes.txt").write_text("dog\ncat\nperson\n")
    assert read_dataset(tmp_path).classes == ("dog", "cat", "person")


def test_a_panoptic_png_stays_in_its_folder(tmp_path):
    segments = {"segments_info": [{"id": 1, "category_id": 18}], "file_name": "../../x.png"}
    root = one_image(tmp_path, {}, segments)
    (root / "annotations" / "instances_train.json").rename(root / "annotations/panoptic_train.json")
    (root / "annotations" / "panoptic_train").mkdir()
    manifest = read_dataset(root)
    with pytest.raises(UserError, match=r"panoptic_train\.json: the PNG .* not a plain relative"):
        load_truth(manifest, manifest.samples[0])


# Made with pycocotools 2.0.11:
#   m = np.zeros((24, 30), np.uint8); y, x = np.mgrid[:24, :30]
#   m[(y - 11) ** 2 / 90 + (x - 13) ** 2 / 120 < 1] = 1; m[9:12, 8:20] = 0; m[:, 0] = 1
#   pycocotools.mask.encode(np.asfortranarray(m))["counts"].decode()
COMPRESSED = "0h0h1_OgN4M2N2O0OGK24NL23OM22NN22NN22NN22NN22NN22NN23MM24NL25MK2681N2N3LZ4"


def ring() -> np.ndarray:
    y, x = np.mgrid[:24, :30]
    mask = (y - 11) ** 2 / 90 + (x - 13) ** 2 / 120 < 1
    mask[9:12, 8:20] = False
    mask[:, 0] = True
    return mask


def test_compressed_run_lengths_against_pycocotools():
    decoded = decode_segmentation({"size": [24, 30], "counts": COMPRESSED}, 24, 30)
    np.testing.assert_array_equal(decoded, ring())


def test_plain_run_lengths_go_down_the_columns():
    flat, runs, value = ring().T.ravel(), [0], False
    for pixel in flat:
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    decoded = decode_segmentation({"size": [24, 30], "counts": runs}, 24, 30)
    np.testing.assert_array_equal(decoded, ring())
    with pytest.raises(UserError, match="does not fit"):
        decode_segmentation({"size": [24, 30], "counts": runs[:-1]}, 24, 30)
    with pytest.raises(UserError, match="does not fit"):
        decode_segmentation({"size": [30, 24], "counts": runs}, 24, 30)


def inside(x: float, y: float, corners: np.ndarray) -> bool:
    """Even-odd rule, one ray to the left."""
    crossings = 0
    for (xa, ya), (xb, yb) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if (ya <= y) != (yb <= y) and xa + (y - ya) / (yb - ya) * (xb - xa) <= x:
            crossings += 1
    return crossings % 2 == 1


@pytest.mark.parametrize("seed", range(5))
def test_polygons_against_a_test_of_every_pixel_centre(seed):
    # Corners may cross, lie outside the image, or repeat.
    corners = np.random.default_rng(seed).uniform(-6, 24, (7, 2)).round(1)
    corners[3] = corners[2]
    expected = [[inside(c + 0.5, r + 0.5, corners) for c in range(20)] for r in range(14)]
    np.testing.assert_array_equal(fill_polygon(corners.ravel(), 14, 20), expected)


def test_polygons_are_close_to_pycocotools():
    # pycocotools.mask.frPyObjects([[3.2, 2.1, 25.7, 4.4, 18.3, 20.9, 6.5, 17.2]], 24, 30)
    counts = "Z21g05K4M4K001O00001O00001O00010O00M3N2N2N2M3N2Nn2"
    theirs = decode_segmentation({"size": [24, 30], "counts": counts}, 24, 30)
    ours = fill_polygon(np.array([3.2, 2.1, 25.7, 4.4, 18.3, 20.9, 6.5, 17.2]), 24, 30)
    assert (ours != theirs).sum() <= 4  # of 255 pixels; pycocotools rounds its outline


def test_several_polygons_are_united():
    mask = decode_segmentation(square(0, 0, 2, 2) + square(1, 1, 3, 3), 4, 4)
    assert mask.sum() == 7
