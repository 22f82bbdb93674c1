from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from affinitynet.data import load_truth, read_dataset, voc_palette, write_labels
from affinitynet.errors import UserError


def dataset(root: Path, table: str | bytes, images=("1.png", "2.png", "sub/3.png")) -> Path:
    for name in images:
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(root / "images" / name)
    content = table if isinstance(table, bytes) else table.encode()
    (root / "labels.csv").write_bytes(content)
    return root


def tags(manifest, split="train") -> dict[str, tuple[str, ...]]:
    return {s.id: tuple(manifest.classes[t] for t in s.tags) for s in manifest.split(split)}


def test_images_and_a_table(tmp_path):
    dataset(tmp_path, "image,labels\nimages/1.png,dog;cat\nimages/2.png,\nimages/sub/3.png,dog\n")
    manifest = read_dataset(tmp_path)
    assert manifest.classes == ("cat", "dog")
    assert list(manifest.splits) == ["train"]
    assert tags(manifest) == {"1": ("cat", "dog"), "2": (), "sub/3": ("dog",)}
    assert manifest.split("train")[0].image == tmp_path / "images" / "1.png"
    assert manifest.notes == ()


@pytest.mark.parametrize(
    "table",
    [
        b"\xef\xbb\xbfimage,labels\r\n1.png,dog;cat\r\n2.png,\r\nsub/3.png,dog\r\n",
        b'image,labels\n\n  1.png , dog ; cat ;\n2.png,\n,\n"sub/3.png"," dog"',
        b"labels,Image\ncat;dog;dog,1.png\n;,2.png\ndog,sub/3.png",
        "image,labels\n1.png,dog\u00a0;\u00a0cat\n2.png,\nsub/3.png,dog\n".encode(),
    ],
    ids=["bom and crlf", "spaces, empty lines, quotes", "other column order", "nbsp"],
)
def test_ways_to_write_the_same_table(tmp_path, table):
    manifest = read_dataset(dataset(tmp_path, table))
    assert tags(manifest) == {"1": ("cat", "dog"), "2": (), "sub/3": ("dog",)}


def test_the_split_column_makes_splits(tmp_path):
    table = "image,labels,split\n1.png,a,val\n2.png,a,\nsub/3.png,b,train\n"
    manifest = read_dataset(dataset(tmp_path, table))
    assert tags(manifest, "val") == {"1": ("a",)}
    assert tags(manifest, "train") == {"2": ("a",), "sub/3": ("b",)}


def test_class_order_from_file_or_argument(tmp_path):
    dataset(tmp_path, "image,labels\n1.png,a\n2.png,b\nsub/3.png,\n")
    (tmp_path / "classes.txt").write_text("background\nb\na\nunused\n")
    assert read_dataset(tmp_path).classes == ("b", "a", "unused")
    assert read_dataset(tmp_path, classes=["a", "b"]).classes == ("a", "b")


def test_images_may_lie_beside_the_table(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "photos" / "b.jpg")
    (tmp_path / "labels.csv").write_text("image,labels\na.png,x\nphotos/b.jpg,x\n")
    assert list(tags(read_dataset(tmp_path))) == ["a", "photos/b"]


def test_masks_are_ground_truth_and_can_give_the_tags(tmp_path):
    dataset(tmp_path, "image,labels\n1.png,a\n2.png,b\nsub/3.png,b\n")
    labels = np.array([[0, 2, 255]])
    write_labels(tmp_path / "masks" / "sub" / "3.png", labels, voc_palette())
    manifest = read_dataset(tmp_path)
    first, _, third = manifest.split("train")
    assert first.mask is None
    np.testing.assert_array_equal(load_truth(manifest, third), labels)
    with pytest.raises(UserError, match=r"line 2 \(1\.png\).* no mask"):
        read_dataset(tmp_path, tags="masks")
    for name in ("1", "2"):
        write_labels(tmp_path / "masks" / f"{name}.png", np.array([[0, 1]]), voc_palette())
    assert tags(read_dataset(tmp_path, tags="masks")) == {"1": ("a",), "2": ("a",), "sub/3": ("b",)}
    write_labels(tmp_path / "masks" / "1.png", np.array([[3]]), voc_palette())
    with pytest.raises(UserError, match=r"1\.png: holds the value 3, but there are 2 classes"):
        read_dataset(tmp_path, tags="masks")


def test_leftovers_and_look_alikes_are_noted(tmp_path):
    dataset(tmp_path, "image,labels\n1.png,Guinea pig\n2.png,guinea_pig;dog\n")
    write_labels(tmp_path / "masks" / "9.png", np.array([[0]]), voc_palette())
    look_alike, left_out, no_mask = read_dataset(tmp_path).notes
    assert "'Guinea pig' and 'guinea_pig' differ only in spelling" in look_alike
    assert "1 image files have no row in labels.csv and are left out, images/sub/3.png" in left_out
    assert "1 files in masks/ are no image's mask" in no_mask


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"must begin with the columns image,labels"),
        ("photo,labels\n1.png,cat\n", r"its first line is 'photo,labels'"),
        ("image,kind\n1.png,cat\n", r"has no column of labels, and no columns of 0 and 1"),
        ("image,labels\n", r"lists no images; the data set is empty"),
        ("image,labels\n1.png,cat,dog\n", r"line 2: has more cells .* separate labels by ';'"),
        ("image,labels\n1.png,cat;cow\n\n1.png,dog\n", r"lists 1\.png twice, in lines 2 and 4"),
        ("image,labels\n1.png,a\nnone.png,a\n", r"line 3: there is no image none\.png"),
        ("image,labels\n,cat\n", r"line 2: names no image"),
        ("image,labels\n1.png,a\n2.png\n", r"line 3: has no cell for labels; write 2\.png, "),
        ('image,labels\n1.png,"a\n2.png,b\n', r"line 3: is no CSV \(unexpected end"),
        ('image,labels\n1.png,"a\n2.png,b"\n', r"line 3: 'a.n2\.png,b' is no name; is a quote"),
        ("image,labels,splt\n1.png,a,val\n", r"has a column 'splt'; rename it to split"),
        ("image,labels,labels\n1.png,a,b\n", r"has the column labels twice"),
        ("image,labels\n../1.png,cat\n", r"line 2: the image '\.\./1\.png' is not a plain"),
        ("image,labels\n/etc/1.png,cat\n", r"line 2: the image '/etc/1\.png' is not a plain"),
        ("image,labels\n1.png,\n2.png,\n", r"no classes"),
        ("image,labels\n1.png,a;Background\n", r"line 2 .*'Background'.*background is no tag"),
    ],
)
def test_mistakes_in_the_table(tmp_path, table, message):
    with pytest.raises(UserError, match=message):
        read_dataset(dataset(tmp_path, table))


def test_columns_that_are_not_read_are_noted(tmp_path):
    dataset(tmp_path, "image,labels,split,weather\n1.png,a,val,rain\n", images=["1.png"])
    manifest = read_dataset(tmp_path)
    assert tags(manifest, "val") == {"1": ("a",)}
    assert manifest.notes == ("labels.csv has columns that are not read: weather",)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("\n", r"classes\.txt: names no class"),
        ("background\n", r"classes\.txt: names no class"),
        ("a\nb\na\n", r"classes\.txt: lists the class 'a' twice"),
        ("a\nBackground\n", r"classes\.txt: Background is no class .background is label 0"),
    ],
)
def test_mistakes_in_a_class_list_name_the_file(tmp_path, classes, message):
    dataset(tmp_path, "image,labels\n1.png,a\n")
    (tmp_path / "classes.txt").write_text(classes)
    with pytest.raises(UserError, match=message):
        read_dataset(tmp_path)


def test_mistakes_in_the_recipes_class_list_name_the_setting(tmp_path):
    dataset(tmp_path, "image,labels\n1.png,a\n")
    with pytest.raises(UserError, match=r"dataset\.classes: lists the class 'a' twice"):
        read_dataset(tmp_path, classes=["a", "a"])


@pytest.mark.usefixtures("nothing_readable")
def test_a_table_that_cannot_be_read(tmp_path):
    dataset(tmp_path, "image,labels\n1.png,a\n")
    with pytest.raises(UserError, match=r"labels\.csv: can't be read"):
        read_dataset(tmp_path)


def test_companions_that_macos_leaves_are_no_images(tmp_path):
    dataset(tmp_path, "image,labels\n1.png,a\n", images=("1.png", "._1.png"))
    assert read_dataset(tmp_path).notes == ()


def test_tables_in_another_encoding(tmp_path):
    manifest = read_dataset(dataset(tmp_path, "image,labels\n1.png,bär\n".encode("latin-1")))
    assert manifest.classes == ("bär",)
    assert "read as CP1252" in manifest.found
    with pytest.raises(UserError, match="neither UTF-8, UTF-16 nor cp1252"):
        read_dataset(dataset(tmp_path, b"image,labels\n1.png,b\x81r\n"))


def test_ids_that_would_share_a_file(tmp_path):
    dataset(tmp_path, "image,labels\n1.png,a\n1.jpg,a\n", images=("1.png", "1.jpg"))
    with pytest.raises(UserError, match=r"lines 2 and 3: both images would be written as 1\.png"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("tag", "hint"),
    [
        ("Dog", "nearest class is 'dog'"),
        ("dgo", "nearest class is 'dog'"),
        ("zebra", "classes are cat, dog: correct"),
        ("background", "an image of background only has an empty list"),
    ],
)
def test_unknown_tags_name_image_and_nearest_class(tmp_path, tag, hint):
    dataset(tmp_path, f"image,labels\n1.png,cat\n2.png,dog;{tag}\n")
    with pytest.raises(UserError, match=rf"line 3 \(2\.png\): the tag '{tag}' .*{hint}"):
        read_dataset(tmp_path, classes=["cat", "dog"])


def test_sources_a_table_does_not_have(tmp_path):
    dataset(tmp_path, "image,labels\n1.png,a\n")
    with pytest.raises(
        UserError, match=r"tags = annotations: a labels\.csv data set takes table or masks"
    ):
        read_dataset(tmp_path, tags="annotations")
