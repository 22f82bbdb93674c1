"""One image in training and evaluation, whatever it is called: said, as figures are too good."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from affinitynet.data import check_dataset, read_dataset


def said(root: Path) -> list[str]:
    return [w for w in check_dataset(read_dataset(root)).warnings if "are too good" in w]


def folders(pictures: Callable[..., Path], copy: bool) -> Path:
    root = pictures("train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "val/dog/4.png")
    if copy:
        shutil.copy(root / "train/cat/1.png", root / "val/cat/3.png")
    return root


def rows(pictures: Callable[..., Path], copy: bool) -> Path:
    root = pictures(*(f"images/{n}.png" for n in range(1, 5)))
    text = "image,labels,split\n1.png,cat,train\n2.png,dog,train\n3.png,cat,val\n4.png,dog,val\n"
    (root / "labels.csv").write_text(text)
    if copy:
        shutil.copy(root / "images/1.png", root / "images/3.png")
    return root


def lists(pictures: Callable[..., Path], copy: bool) -> Path:
    root = pictures(*(f"JPEGImages/{n}.jpg" for n in range(1, 5)))
    (root / "Annotations").mkdir()
    for number in range(1, 5):
        name = "cat" if number % 2 else "dog"
        text = f"<annotation><object><name>{name}</name></object></annotation>"
        (root / "Annotations" / f"{number}.xml").write_text(text)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, text in (("train", "1\n2\n"), ("val", "3\n4\n")):
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(text)
    if copy:
        shutil.copy(root / "JPEGImages/1.jpg", root / "JPEGImages/3.jpg")
    return root


@pytest.mark.parametrize("layout", [folders, rows, lists])
def test_copies_in_train_and_val_are_said(
    pictures: Callable[..., Path], layout: Callable[..., Path]
) -> None:
    root = layout(pictures, copy=True)
    assert len(said(root)) == 1
    assert said(root)[0].startswith("1 images are in both train and val (")
    assert "1, as " in said(root)[0]


@pytest.mark.parametrize("layout", [folders, rows, lists])
def test_images_of_one_size_are_no_copies(
    pictures: Callable[..., Path], layout: Callable[..., Path]
) -> None:
    assert said(layout(pictures, copy=False)) == []
