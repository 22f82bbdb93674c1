"""Names in two Unicode forms, names for background and void, and characters that end lines."""

import pytest

from affinitynet.data import load_truth, read_dataset
from affinitynet.errors import UserError

NFD, NFC = "cafe\u0301", "caf\u00e9"


@pytest.mark.parametrize(
    ("listed", "stored"), [(NFD, NFC), (NFC, NFD), (f"{NFD}/{NFC}", f"{NFC}/{NFD}")]
)
def test_files_are_found_in_either_form(table, listed, stored):
    root = table(f"image,labels\n{listed}.png,a\n2.png,\n", f"{stored}.png", "2.png")
    assert read_dataset(root).samples[0].image == root / "images" / f"{stored}.png"


@pytest.mark.parametrize(("listed", "stored"), [(NFD, NFC), (NFC, NFD)])
def test_lists_annotations_and_images_in_either_form(devkit, listed, stored):
    root = devkit({stored: "cat", "b": "dog"}, [listed, "b"])
    assert [s.id for s in read_dataset(root).samples] == [stored, "b"]


@pytest.mark.parametrize(("listed", "stored"), [(NFD, NFC), (NFC, NFD)])
def test_coco_files_and_categories_in_either_form(coco, listed, stored):
    root = coco([(1, f"{listed}.jpg")], [(1, 1, 5)], (listed, "dog"))
    (root / "train2017" / f"{listed}.jpg").rename(root / "train2017" / f"{stored}.jpg")
    manifest = read_dataset(root)
    assert manifest.classes == (NFC, "dog")
    assert load_truth(manifest, manifest.samples[0]).max() == 1


def test_class_names_in_two_forms_are_one_class(table, pictures):
    root = table(f"image,labels\n1.png,{NFD}\n2.png,{NFC}\n3.png,\n")
    assert read_dataset(root).classes == (NFC,)
    (root / "classes.txt").write_text(f"{NFD}\n", encoding="utf-8")
    assert read_dataset(root).classes == (NFC,)
    (root / "labels.csv").unlink()
    (root / "classes.txt").unlink()
    manifest = read_dataset(pictures(f"{NFD}/1.jpg", f"{NFC}/2.jpg", "dog/3.jpg"))
    assert manifest.classes == (NFC, "dog")
    assert any("differ only in how their accents are stored" in note for note in manifest.notes)


@pytest.mark.parametrize("other", ["cat\u200b", "Cat", "c-at", "\uff43at"])
def test_names_that_look_alike_are_named(table, other):
    manifest = read_dataset(table(f"image,labels\n1.png,cat\n2.png,{other}\n3.png,\n"))
    assert any("differ only in spelling" in note for note in manifest.notes)


@pytest.mark.parametrize(
    "head", ["background", "_background_", "Background", "__ignore__\n_background_", "_BACKGROUND_"]
)
def test_background_and_void_before_the_classes_are_dropped(table, head):
    root = table("image,labels\n1.png,a\n2.png,b\n3.png,\n", classes=f"{head}\na\nb\n")
    assert read_dataset(root).classes == ("a", "b")


@pytest.mark.parametrize("name", ["background", "_background_", "__ignore__", "Background"])
def test_background_and_void_after_a_class_are_refused(table, name):
    root = table("image,labels\n1.png,a\n2.png,\n3.png,\n", classes=f"a\n{name}\nb\n")
    with pytest.raises(UserError, match=rf"classes\.txt: {name} is no class"):
        read_dataset(root)
    with pytest.raises(UserError, match=rf"dataset\.classes: {name} is no class"):
        read_dataset(root, classes=["a", name])


@pytest.mark.parametrize(
    ("name", "value"), [("_background_", 0), ("background", 0), ("__ignore__", 255)]
)
def test_background_and_void_among_categories_and_folders(coco, pictures, name, value):
    manifest = read_dataset(
        coco([(1, "1.jpg"), (2, "2.jpg")], [(1, 1, 5), (1, 2, 20)], ("cat", name))
    )
    assert (manifest.classes, manifest.samples[0].tags) == (("cat",), (0,))
    assert load_truth(manifest, manifest.samples[0])[10, 22] == value
    root = pictures("set/cat/1.jpg", "set/dog/2.jpg", f"set/{name}/3.jpg")
    manifest = read_dataset(root / "set", format="folder")
    assert manifest.classes == ("cat", "dog")


@pytest.mark.parametrize("name", ["a\nb", "a\x0bb", "a\x85b", "a\u2028b", "a\x00b", "\ud800"])
def test_names_that_would_shift_a_list_are_refused(coco, name):
    with pytest.raises(UserError, match=r"the class .* has a control character in it"):
        read_dataset(coco([(1, "1.jpg"), (2, "2.jpg")], [(1, 1, 5)], (name, "dog")))


@pytest.mark.parametrize("name", ["", "  "])
def test_names_of_nothing_are_refused(coco, name):
    with pytest.raises(UserError, match="is empty or has spaces around it"):
        read_dataset(coco([(1, "1.jpg"), (2, "2.jpg")], [(1, 1, 5)], (name, "dog")))
