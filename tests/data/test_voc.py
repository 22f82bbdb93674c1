import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from affinitynet.data import load_image, load_truth, read_dataset, voc_palette, write_labels
from affinitynet.errors import UserError

ANIMALS = Path(
    os.environ.get("AFFINITYNET_VOC_ANIMALS")
    or Path(__file__).parents[3] / "shared" / "data" / "voc12-animals"
)
# id -> VOC's names; the values of person, cat, dog and boat are 15, 8, 12 and 4.
TAGS = {"2007_01": ["person", "cat"], "2007_02": ["dog"], "2007_03": ["boat"]}
VALUES = {"person": 15, "cat": 8, "dog": 12, "boat": 4}


def devkit(root: Path, *, annotations=False, masks=False, table=False) -> Path:
    (root / "JPEGImages").mkdir(parents=True)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_01\n2007_02\n")
    (lists / "val.txt").write_text("2007_03\n")
    for sample_id, names in TAGS.items():
        Image.new("RGB", (6, 4)).save(root / "JPEGImages" / f"{sample_id}.jpg")
        if annotations:
            annotate(root, sample_id, names)
        if masks:
            values = np.array([[0, *(VALUES[name] for name in names), 255]])
            write_labels(root / "SegmentationClass" / f"{sample_id}.png", values, voc_palette())
    if table:
        rows = [f"JPEGImages/{i}.jpg,{';'.join(names)}\n" for i, names in TAGS.items()]
        (root / "labels.csv").write_text("image,labels\n" + "".join(rows))
    return root


def annotate(root: Path, sample_id: str, names: list[str]) -> None:
    (root / "Annotations").mkdir(exist_ok=True)
    objects = "".join(
        f"<object><name>{name}</name><difficult>1</difficult>"
        "<part><name>head</name></part></object>"
        for name in names
    )
    path = root / "Annotations" / f"{sample_id}.xml"
    path.write_text(f"<annotation><filename>x.jpg</filename>{objects}</annotation>")


def names_of(manifest) -> dict[str, list[str]]:
    return {s.id: [manifest.classes[t] for t in s.tags] for s in manifest.samples}


@pytest.mark.parametrize("source", ["annotations", "masks", "table"])
def test_every_source_of_tags_gives_the_same_manifest(tmp_path, source):
    everything = devkit(tmp_path / "all", annotations=True, masks=True, table=True)
    expected = read_dataset(everything)
    only = devkit(tmp_path / "only", **{source: True})
    assert read_dataset(only).fingerprint() == expected.fingerprint()
    assert read_dataset(everything, tags=source).fingerprint() == expected.fingerprint()


def test_classes_are_vocs_names_that_occur_in_vocs_order(tmp_path):
    manifest = read_dataset(devkit(tmp_path, masks=True))
    assert manifest.classes == ("boat", "cat", "dog", "person")
    assert manifest.truth_values == {0: 0, 4: 1, 8: 2, 12: 3, 15: 4, 255: 255}
    assert {name: [s.id for s in split] for name, split in manifest.splits.items()} == {
        "train": ["2007_01", "2007_02"],
        "val": ["2007_03"],
    }
    assert names_of(manifest) == {k: sorted(v) for k, v in TAGS.items()}
    assert load_truth(manifest, manifest.split("train")[0]).tolist() == [[0, 4, 2, 255]]


def test_auto_prefers_the_table_then_the_annotations(tmp_path):
    root = devkit(tmp_path, annotations=True, masks=True)
    annotate(root, "2007_02", ["cat"])
    assert names_of(read_dataset(root))["2007_02"] == ["cat"]
    assert names_of(read_dataset(root, tags="masks"))["2007_02"] == ["dog"]
    rows = "2007_01,cat\n2007_02,person\n2007_03,\n"
    (root / "labels.csv").write_text("image,labels\n" + rows)
    assert names_of(read_dataset(root))["2007_02"] == ["person"]


def test_the_folder_above_the_devkit_is_understood(tmp_path):
    root = devkit(tmp_path / "VOCdevkit" / "VOC2012", masks=True)
    for folder in (tmp_path, tmp_path / "VOCdevkit"):
        assert read_dataset(folder).root == root


def test_sbd_lists_of_paths_and_masks(tmp_path):
    root = devkit(tmp_path, masks=True)
    (root / "SegmentationClass" / "2007_02.png").unlink()
    for name in ("2007_01", "2007_02"):
        write_labels(root / "SegmentationClassAug" / f"{name}.png", np.array([[12]]), voc_palette())
    lines = [f"/JPEGImages/{i}.jpg /SegmentationClassAug/{i}.png" for i in ("2007_01", "2007_02")]
    (root / "ImageSets" / "Segmentation" / "train_aug.txt").write_text("\n".join(lines))
    first, second = read_dataset(root).split("train_aug")
    assert (first.id, second.id) == ("2007_01", "2007_02")
    assert first.mask == root / "SegmentationClass" / "2007_01.png"
    assert second.mask == root / "SegmentationClassAug" / "2007_02.png"


def test_lists_of_main_without_those_of_single_classes(tmp_path):
    root = devkit(tmp_path, annotations=True)
    main = root / "ImageSets" / "Main"
    (root / "ImageSets" / "Segmentation").rename(main)
    (main / "cat_train.txt").write_text("2007_01  1\n2007_02 -1\n")
    assert sorted(read_dataset(root).splits) == ["train", "val"]


def test_own_classes_have_masks_with_the_labels_themselves(tmp_path):
    root = devkit(tmp_path)
    for name, value in (("2007_01", 1), ("2007_02", 2), ("2007_03", 2)):
        write_labels(
            root / "SegmentationClass" / f"{name}.png", np.array([[0, value]]), voc_palette()
        )
    manifest = read_dataset(root, classes=["crack", "rust"])
    assert manifest.truth_values is None
    assert names_of(manifest) == {"2007_01": ["crack"], "2007_02": ["rust"], "2007_03": ["rust"]}
    assert load_truth(manifest, manifest.split("val")[0]).tolist() == [[0, 2]]
    (root / "classes.txt").write_text("crack\nrust\n")
    assert read_dataset(root).fingerprint() == manifest.fingerprint()


def test_an_unknown_tag_names_image_and_nearest_class(tmp_path):
    root = devkit(tmp_path, annotations=True)
    with pytest.raises(UserError, match=r"2007_01 .*: the tag 'person'.*classes are cat, dog, boat"):
        read_dataset(root, classes=["cat", "dog", "boat"])
    annotate(root, "2007_02", ["dogs"])
    with pytest.raises(UserError, match=r"2007_02 \(Annotations\): the tag 'dogs'.*'dog'"):
        read_dataset(root)


def test_a_list_without_tags_is_left_out_but_not_a_part_of_one(tmp_path):
    root = devkit(tmp_path, annotations=True)
    (root / "Annotations" / "2007_03.xml").unlink()
    manifest = read_dataset(root)
    assert list(manifest.splits) == ["train"]
    assert "list val is left out" in manifest.notes[0]
    (root / "Annotations" / "2007_02.xml").unlink()
    with pytest.raises(UserError, match=r"1 images of the list train have no tags.*2007_02 first"):
        read_dataset(root)


def test_images_without_objects_are_background_only(tmp_path):
    root = devkit(tmp_path, annotations=True)
    annotate(root, "2007_02", [])
    assert names_of(read_dataset(root))["2007_02"] == []


@pytest.mark.parametrize(
    "content",
    [
        '<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>',
        '<?xml version="1.0"?>\n<!DOCTYPE annotation SYSTEM "file:///etc/passwd"><annotation/>',
    ],
)
def test_xml_with_entities_is_refused(tmp_path, content):
    root = devkit(tmp_path, annotations=True)
    (root / "Annotations" / "2007_01.xml").write_text(content)
    with pytest.raises(UserError, match=r"2007_01\.xml: declares XML entities"):
        read_dataset(root)


def test_broken_folders_say_what_is_missing(tmp_path):
    root = devkit(tmp_path, annotations=True)
    (root / "Annotations" / "2007_01.xml").write_text("<annotation>")
    with pytest.raises(UserError, match=r"2007_01\.xml: is not valid XML"):
        read_dataset(root)
    with pytest.raises(UserError, match=r"nothing to take tags from; there is no labels\.csv"):
        read_dataset(root, tags="table")
    with pytest.raises(UserError, match="dataset.tags = guess"):
        read_dataset(root, tags="guess")
    annotate(root, "2007_01", ["cat"])
    (root / "JPEGImages" / "2007_02.jpg").unlink()
    with pytest.raises(UserError, match=r"names 2007_02, but there is no such image"):
        read_dataset(root)
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("../../secret\n")
    with pytest.raises(UserError, match=r"train\.txt: the image .* not a plain relative path"):
        read_dataset(root)
    for path in lists.iterdir():
        path.write_text("\n")
    with pytest.raises(UserError, match="no list of images"):
        read_dataset(root)


def test_two_files_of_one_name_are_refused(tmp_path):
    root = devkit(tmp_path, annotations=True)
    Image.new("RGB", (6, 4)).save(root / "JPEGImages" / "2007_01.png")
    with pytest.raises(UserError, match=r"both 2007_01\.jpg and 2007_01\.png for 2007_01"):
        read_dataset(root)


def test_two_rows_of_one_image_are_refused(tmp_path):
    root = devkit(tmp_path)
    (root / "labels.csv").write_text("image,labels\n2007_01.jpg,cat\n2007_01.png,dog\n")
    with pytest.raises(UserError, match=r"line 3: a line before has tags of 2007_01 too"):
        read_dataset(root)


def test_notes_on_the_table_are_kept(tmp_path):
    root = devkit(tmp_path, table=True)
    rows = "2007_01,cat,x\n2007_02,person,x\n2007_03,,x\n"
    (root / "labels.csv").write_text("image,labels,weather\n" + rows)
    assert read_dataset(root).notes == ("labels.csv has columns that are not read: weather",)


def test_a_linked_image_folder_is_fine(tmp_path):
    root = devkit(tmp_path / "set", annotations=True)
    (root / "JPEGImages").rename(tmp_path / "elsewhere")
    (root / "JPEGImages").symlink_to(tmp_path / "elsewhere")
    image = read_dataset(root).samples[0].image
    assert image == root / "JPEGImages" / "2007_01.jpg"
    assert load_image(image).shape == (4, 6, 3)


@pytest.mark.skipif(not ANIMALS.is_dir(), reason="the VOC animals subset is not here")
def test_the_real_subset():
    manifest = read_dataset(ANIMALS)
    assert manifest.classes == ("cat", "cow", "dog", "horse", "person", "sheep")
    assert manifest.truth_values == {0: 0, 8: 1, 10: 2, 12: 3, 13: 4, 15: 5, 17: 6, 255: 255}
    sizes = {name: len(split) for name, split in manifest.splits.items()}
    assert sizes == {"train": 1000, "train_precise": 370, "val": 200}
    for sample in manifest.split("val")[::20]:
        truth = load_truth(manifest, sample)
        assert truth.shape == load_image(sample.image).shape[:2]
        assert set(np.unique(truth)) - {0, 255} == {tag + 1 for tag in sample.tags}
