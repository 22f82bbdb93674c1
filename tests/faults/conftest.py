"""Small data sets with one fault each, made anew for every test."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import affinitynet as an


class Process(NamedTuple):
    """A process that is more than a name nobody has asked for yet."""

    number: int
    parent: int
    group: int


def processes() -> Iterator[Process]:
    """List the living processes (Linux)."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # ended since it was listed
            state, parent, group, *_ = file.read_text().rpartition(")")[2].split()
            if state != "Z":
                yield Process(int(file.parent.name), int(parent), int(group))


@pytest.fixture
def children() -> Callable[[int], list[int]]:
    """List a process's children by their numbers."""
    return lambda parent: [own.number for own in processes() if own.parent == parent]


@pytest.fixture
def stays() -> Callable[[int], bool]:
    """Tell whether one of a group outlives the others: it notices their end in milliseconds."""

    def look(group: int) -> bool:
        deadline = time.monotonic() + 3
        while (living := group in {own.group for own in processes()}) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.05)
        return living

    return look


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Write images of noise (40 x 30) by their paths, each unlike the others."""
    generator = np.random.default_rng(0)

    def write(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 255, (30, 40, 3), dtype=np.uint8)
            kinds = {".jfif": "JPEG", ".jpe": "JPEG"}
            Image.fromarray(pixels).save(path, format=kinds.get(path.suffix))
        return tmp_path

    return write


@pytest.fixture
def table(pictures: Callable[..., Path]) -> Callable[..., Path]:
    """Write a labels.csv of these lines, and the images 1.png, 2.png and 3.png."""

    def write(text: str, *names: str, classes: str = "") -> Path:
        root = pictures(*(f"images/{name}" for name in names or ("1.png", "2.png", "3.png")))
        (root / "labels.csv").write_text(text, encoding="utf-8")
        if classes:
            (root / "classes.txt").write_text(classes, encoding="utf-8")
        return root

    return write


@pytest.fixture
def devkit(pictures: Callable[..., Path]) -> Callable[..., Path]:
    """Write a VOC devkit: image name -> tag, and the lines of train.txt."""

    def write(tags: dict[str, str], lines: list[str]) -> Path:
        root = pictures(*(f"JPEGImages/{name}.jpg" for name in tags))
        (root / "Annotations").mkdir()
        for name, tag in tags.items():
            (root / "Annotations" / f"{name}.xml").write_text(
                f"<annotation><object><name>{tag}</name></object></annotation>", encoding="utf-8"
            )
        folder = root / "ImageSets" / "Segmentation"
        folder.mkdir(parents=True)
        (folder / "train.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return root

    return write


@pytest.fixture
def coco(pictures: Callable[..., Path]) -> Callable[..., Path]:
    """Write a COCO folder: image id -> file, and (image id, category id, left edge) annotations."""

    def write(
        images: list[tuple[object, str]],
        marks: list[tuple[object, int, int]],
        names: tuple[str, ...] = ("cat", "dog"),
        folder: str = "train2017",
    ) -> Path:
        root = pictures(*(f"{folder}/{file}" for _, file in images))
        content = {
            "images": [
                {"id": i, "file_name": file, "width": 40, "height": 30} for i, file in images
            ],
            "annotations": [
                {
                    "id": n,
                    "image_id": i,
                    "category_id": category,
                    "segmentation": [[x, 5, x + 10, 5, x + 10, 20, x, 20]],
                }
                for n, (i, category, x) in enumerate(marks, 1)
            ],
            "categories": [{"id": n, "name": name} for n, name in enumerate(names, 1)],
        }
        (root / "annotations").mkdir()
        file = root / "annotations" / "instances_train2017.json"
        file.write_text(json.dumps(content), encoding="utf-8")
        return root

    return write


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(made, tmp_path / "home"))
    # Does nothing, but says where the copy's data lie.
    an.run(an.Recipe.load(folder / "tiny.yaml", data=folder / "data", out=folder / "run"))
    return folder
