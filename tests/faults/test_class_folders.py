"""Class folders are read for what they are: splits, wrappers and thumbnails are no classes."""

import shutil

import pytest

from affinitynet.data import read_dataset
from affinitynet.errors import UserError


def content(manifest):
    return {
        name: {s.id: [manifest.classes[t] for t in s.tags] for s in split}
        for name, split in manifest.splits.items()
    }


@pytest.mark.parametrize(
    ("train", "val"),
    [("Train", "VAL"), ("training", "validation"), ("train", "valid"), ("TRAINING", "Validation")],
)
def test_splits_in_other_words(pictures, train, val):
    root = pictures(
        *(f"{split}/{name}" for split in (train, val) for name in ("cat/1.jpg", "dog/2.jpg"))
    )
    manifest = read_dataset(root)
    assert manifest.classes == ("cat", "dog")
    assert sorted(manifest.splits) == ["train", "val"]
    assert len(manifest.split("val")) == 2


def test_two_words_for_one_split_are_refused(pictures):
    root = pictures("val/cat/1.jpg", "valid/dog/2.jpg", "train/cat/3.jpg")
    with pytest.raises(UserError, match="val and valid, which both say val"):
        read_dataset(root)


def test_a_class_of_trains_is_no_split(pictures):
    assert read_dataset(pictures("train/1.jpg", "car/2.jpg")).classes == ("car", "train")


@pytest.mark.parametrize("wrapper", ["mydata", "a/b", "images"])
def test_a_folder_around_the_classes_is_none(pictures, wrapper):
    root = pictures(f"{wrapper}/cat/1.jpg", f"{wrapper}/dog/2.jpg")
    assert content(read_dataset(root)) == {"train": {"cat/1": ["cat"], "dog/2": ["dog"]}}


@pytest.mark.parametrize("wrapper", ["mydata", "data/set"])
def test_a_folder_around_the_splits_is_none(pictures, wrapper):
    root = pictures(
        *(f"{wrapper}/{s}/{c}" for s in ("train", "test") for c in ("cat/1.jpg", "dog/2.jpg"))
    )
    assert sorted(read_dataset(root).splits) == ["test", "train"]


@pytest.mark.parametrize("kind", ["masks", "images", "Annotations", "ground_truth"])
def test_folders_that_name_a_kind_are_no_classes(pictures, kind):
    manifest = read_dataset(pictures("cat/1.jpg", "dog/2.jpg", f"{kind}/1.png"))
    assert manifest.classes == ("cat", "dog")
    assert any(f"left out, {kind}/1.png first" in note for note in manifest.notes)


@pytest.mark.parametrize(
    "thumbnail",
    [
        "cat/.ipynb_checkpoints/1-checkpoint.jpg",
        "dog/@eaDir/2.jpg/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/cat/1.jpg",
        "cat/.thumbnails/1.jpg",
        ".cache/3.jpg",
        "cat/._1.jpg",
    ],
)
def test_what_systems_leave_is_not_entered(pictures, thumbnail):
    manifest = read_dataset(pictures("cat/1.jpg", "dog/2.jpg", thumbnail))
    assert [s.id for s in manifest.samples] == ["cat/1", "dog/2"]


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "gif", "pgm", "JPG"])
def test_every_suffix_of_a_kind_that_is_read_counts(pictures, suffix):
    assert len(read_dataset(pictures("cat/1.jpg", f"dog/2.{suffix}")).samples) == 2


@pytest.mark.parametrize("suffix", ["heic", "avif", "jp2"])
def test_kinds_that_are_not_read_are_named_with_their_class(pictures, suffix):
    root = pictures("cat/1.jpg", "dog/2.jpg")
    (root / "cow").mkdir()
    (root / "cow" / f"3.{suffix}").write_bytes(b"x")
    (note,) = read_dataset(root).notes
    assert f"cow/3.{suffix} first; so cow is no class" in note


@pytest.mark.parametrize("copy", ["dog/1.jpg", "dog/other.jpg", "cow/deep/x.jpg"])
def test_equal_files_in_two_folders_are_one_image_with_two_tags(pictures, copy):
    root = pictures("cat/1.jpg", "dog/2.jpg", "cow/3.jpg", copy)
    shutil.copyfile(root / "cat" / "1.jpg", root / copy)
    manifest = read_dataset(root)
    both = sorted(("cat", copy.split("/", maxsplit=1)[0]))
    assert content(manifest)["train"]["cat/1"] == both
    assert len(manifest.samples) == 3
    assert any("1 images lie in several class folders" in note for note in manifest.notes)


@pytest.mark.parametrize("name", ["good", "OK", "normal"])
def test_folders_of_normal_images_are_background_where_the_recipe_says_so(pictures, name):
    root = pictures(f"{name}/1.jpg", "crack/2.jpg")
    assert any(f"dataset.background to [{name}]" in note for note in read_dataset(root).notes)
    manifest = read_dataset(root, background=[name])
    assert content(manifest) == {"train": {f"{name}/1": [], "crack/2": ["crack"]}}


@pytest.mark.parametrize("file", ["tags.csv", "metadata.json", "list.xlsx"])
@pytest.mark.parametrize("folder", ["images", "photos"])
def test_an_unknown_tag_file_beside_images_is_named(pictures, file, folder):
    root = pictures(f"{folder}/1.jpg", f"{folder}/2.jpg")
    (root / file).write_text("x")
    with pytest.raises(
        UserError, match=rf"{file} may hold tags, but is not read.*labels\.csv|labels\.csv.*{file}"
    ):
        read_dataset(root)


@pytest.mark.parametrize("folders", [("cat",), ("train", "test"), ("Training",)])
def test_folders_that_tell_nothing_apart_are_refused(pictures, folders):
    root = pictures(*(f"{folder}/{n}.jpg" for n, folder in enumerate(folders)))
    with pytest.raises(UserError, match=r"only class is 'cat'|hold images without class folders"):
        read_dataset(root)


def test_images_outside_of_class_folders_are_counted(pictures):
    manifest = read_dataset(pictures("cat/1.jpg", "dog/2.jpg", "loose.jpg"))
    assert any("1 image files are in no class folder" in note for note in manifest.notes)


@pytest.mark.parametrize("inner", ["train", "Test", "validation"])
def test_splits_inside_of_classes_are_named(pictures, inner):
    manifest = read_dataset(pictures(f"cat/{inner}/1.jpg", "dog/2.jpg"))
    assert list(manifest.splits) == ["train"]
    assert any(
        f"the folders {inner} inside class folders are no splits" in n for n in manifest.notes
    )
