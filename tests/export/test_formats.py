"""Each format gives the run's labels again, by small readers made from the format's description.

`tests/formats` reads the same exports by the programs' own readers (`make test-formats`).
"""

import base64
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from affinitynet.data import load_image, read_dataset, read_labels
from affinitynet.data.truth import load_truth
from affinitynet.export import export_run

CLASSES = ("cat", "dog & <co>", "grün")
NAMES = ("background", *CLASSES)
Labels = dict[str, np.ndarray]


def truth(run: Path, void: bool) -> Labels:
    folder = run / "pseudo"
    found = {
        file.relative_to(folder).with_suffix("").as_posix(): read_labels(file)
        for file in folder.rglob("*.png")
    }
    return {
        i: labels if void else np.where(labels == 255, 0, labels) for i, labels in found.items()
    }


def value(name: str) -> int:
    return 255 if name == "__ignore__" else NAMES.index(name)


def spread(runs: list[int], shape: tuple[int, int]) -> np.ndarray:
    """Pixels along the rows: so many zeros, so many ones, and so on."""
    flat = [number % 2 == 1 for number, run in enumerate(runs) for _ in range(run)]
    return np.array(flat).reshape(shape)


def read_coco(out: Path) -> Labels:
    """The COCO API's masks: ``maskApi.c``, rleFrString; columns first."""
    document = json.loads((out / "annotations" / "instances_train.json").read_text("utf-8"))
    names = {entry["id"]: entry["name"] for entry in document["categories"]}
    labels = {
        entry["id"]: np.zeros((entry["height"], entry["width"]), int)
        for entry in document["images"]
    }
    for entry in document["annotations"]:
        segmentation, image = entry["segmentation"], labels[entry["image_id"]]
        height, width = image.shape
        if isinstance(segmentation, list):
            mask = np.zeros(image.shape, bool)
            for polygon in segmentation:
                # At five times the size the lines of width one don't reach another pixel's center.
                large = Image.new("1", (5 * width, 5 * height))
                points = [5 * x for x in polygon]
                corners = list(zip(points[::2], points[1::2], strict=True))
                ImageDraw.Draw(large).polygon(corners, fill=1)
                mask ^= np.asarray(large)[2::5, 2::5]
        else:
            assert segmentation["size"] == [height, width]
            runs: list[int] = []
            number = bits = 0
            for character in segmentation["counts"]:
                group = ord(character) - 48
                number |= (group & 0x1F) << bits
                bits += 5
                if not group & 0x20:
                    number -= (1 << bits) if group & 0x10 else 0
                    runs.append(number + runs[-2] if len(runs) > 2 else number)
                    number = bits = 0
            mask = spread(runs, (width, height)).T
        assert mask.sum() == entry["area"]
        left, top, wide, high = entry["bbox"]
        assert mask[top : top + high, left : left + wide].sum() == entry["area"]
        assert mask[:, left].any()
        assert mask[top].any()
        assert entry["iscrowd"] == (names[entry["category_id"]] == "__ignore__")
        image[mask] = value(names[entry["category_id"]])
    files = {entry["file_name"]: labels[entry["id"]] for entry in document["images"]}
    return by_picture(out / "images", files)


def read_cvat(out: Path) -> Labels:
    """CVAT's XML 1.1: run lengths of the box, along the rows, zeros first."""
    root = ElementTree.parse(out / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    known = {label.findtext("name") for label in root.iter("label")}
    files = {}
    for image in root.iter("image"):
        labels = np.zeros((int(image.attrib["height"]), int(image.attrib["width"])), int)
        for mask in image.iter("mask"):
            assert mask.attrib["label"] in known
            left, top, width, height = (
                int(mask.attrib[key]) for key in ("left", "top", "width", "height")
            )
            runs = [int(run) for run in mask.attrib["rle"].split(",")]
            box = labels[top : top + height, left : left + width]
            box[spread(runs, (height, width))] = value(mask.attrib["label"])
        files[image.attrib["name"]] = labels
    return by_picture(out / "images", files)


def read_labelstudio(out: Path) -> Labels:
    """Label Studio's brush: rle-pack's stream of bits over four channels."""
    config = ElementTree.parse(out / "label_config.xml").getroot()
    known = {label.attrib["value"] for label in config.iter("Label")}
    files = {}
    for task in json.loads((out / "tasks.json").read_text("utf-8")):
        name = parse_qs(urlsplit(task["data"]["image"]).query)["d"][0].removeprefix("images/")
        files[name] = np.zeros(load_image(out / "images" / name).shape[:2], int)
        for result in task["predictions"][0]["result"]:
            shape = (result["original_height"], result["original_width"])
            channels = np.array(unpack(result["value"]["rle"])).reshape(*shape, 4)
            assert (channels == channels[..., :1]).all()
            (label,) = result["value"]["brushlabels"]
            assert label in known
            files[name][channels[..., 3] > 0] = value(label)
    return by_picture(out / "images", files)


def unpack(stream: list[int]) -> list[int]:
    bits = "".join(f"{byte:08b}" for byte in stream)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeats = take(1)
        count = take(sizes[take(2)]) + 1
        values += [take(word)] * count if repeats else [take(word) for _ in range(count)]
    return values


def read_labelme(out: Path) -> Labels:
    """LabelMe's masks: PNGs between two pixels; its polygons: drawn by Pillow with their line."""
    found = {}
    for file in out.rglob("*.json"):
        document = json.loads(file.read_text("utf-8"))
        labels = np.zeros((document["imageHeight"], document["imageWidth"]), int)
        picture = file.with_name(document["imagePath"])
        assert load_image(picture).shape[:2] == labels.shape
        for shape in document["shapes"]:
            if shape["shape_type"] == "mask":
                (left, top), (right, bottom) = shape["points"]
                with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
                    box = labels[top : bottom + 1, left : right + 1]
                    box[np.array(image, bool)] = value(shape["label"])
            else:
                drawn = Image.new("1", labels.shape[::-1])
                points = [tuple(point) for point in shape["points"]]
                ImageDraw.Draw(drawn).polygon(points, fill=1, outline=1)
                labels[np.asarray(drawn)] = value(shape["label"])
        found[file.relative_to(out).with_suffix("").as_posix()] = labels
    return found


def read_yolo(out: Path) -> Labels:
    """Ultralytics' polygons: class, then x, y in fractions, cut down to pixels and drawn."""
    names = yaml.safe_load((out / "data.yaml").read_text("utf-8"))["names"]
    found = {}
    for picture in listed(out, "train"):
        height, width = load_image(picture).shape[:2]
        labels = np.zeros((height, width), int)
        inner = picture.relative_to(out / "images").with_suffix("")
        for line in (out / "labels" / f"{inner}.txt").read_text("utf-8").splitlines():
            number, *numbers = line.split()
            points = np.array(numbers, float).reshape(-1, 2) * (width, height)
            drawn = Image.new("1", (width, height))
            corners = [tuple(point) for point in points.astype(int).tolist()]
            ImageDraw.Draw(drawn).polygon(corners, fill=1, outline=1)
            labels[np.asarray(drawn)] = value(names[int(number)])
        found[inner.as_posix()] = labels
    return found


def listed(out: Path, part: str) -> list[Path]:
    content = yaml.safe_load((out / "data.yaml").read_text("utf-8"))
    file = out / content[part]
    return [out / line.removeprefix("./") for line in file.read_text("utf-8").splitlines()]


def read_ultralytics(out: Path) -> Labels:
    """Ultralytics' semantic masks: the value is the class; `masks_dir` in place of `images`."""
    content = yaml.safe_load((out / "data.yaml").read_text("utf-8"))
    assert content["names"] == dict(enumerate(NAMES))
    found = {}
    for picture in listed(out, "train"):
        inner = picture.relative_to(out / "images").with_suffix("")
        with Image.open(out / content["masks_dir"] / f"{inner}.png") as mask:
            found[inner.as_posix()] = np.array(mask)
    return found


def read_hf(out: Path) -> Labels:
    """Hugging Face's image folder: `*_file_name`, relative to metadata.jsonl."""
    head = yaml.safe_load((out / "README.md").read_text("utf-8").split("---")[1])
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "train/**"}]
    files = {}
    for line in (out / "train" / "metadata.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        with Image.open(out / "train" / row["mask_file_name"]) as mask:
            files[row["file_name"].removeprefix("images/")] = np.array(mask)
        assert set(row["tags"]) <= set(CLASSES)
    return by_picture(out / "train" / "images", files)


def read_voc(out: Path) -> Labels:
    """VOC as CVAT reads it: the colors of labelmap.txt."""
    with (out / "labelmap.txt").open(encoding="utf-8") as file:
        rows = [row for row in csv.reader(file, delimiter=":") if not row[0].startswith("#")]
    colors = {tuple(int(c) for c in row[1].split(",")): value(row[0]) for row in rows}
    found = {}
    for name in (out / "ImageSets/Segmentation/train.txt").read_text("utf-8").splitlines():
        pixels = np.array(Image.open(out / "SegmentationClass" / f"{name}.png").convert("RGB"))
        labels = [colors[tuple(color)] for color in pixels.reshape(-1, 3).tolist()]
        found[name] = np.array(labels).reshape(pixels.shape[:2])
        assert load_image(out / "JPEGImages" / f"{name}.jpg").shape == pixels.shape
    return found


def by_picture(images: Path, files: Labels) -> Labels:
    """By id: each name is a picture of the export that needs no turning, of the mask's size."""
    for name, labels in files.items():
        with Image.open(images / name) as picture:
            assert picture.size == labels.shape[::-1], name
    return {name.rpartition(".")[0]: labels for name, labels in files.items()}


READERS: list[tuple[str, dict[str, bool], Callable[[Path], Labels]]] = [
    ("coco", {}, read_coco),
    ("coco", {"polygons": True}, read_coco),
    ("cvat", {}, read_cvat),
    ("labelstudio", {}, read_labelstudio),
    ("labelme", {}, read_labelme),
    ("labelme", {"polygons": True}, read_labelme),
    ("ultralytics-semantic", {}, read_ultralytics),
    ("hf", {}, read_hf),
    ("voc", {}, read_voc),
]


@pytest.mark.parametrize("void", ["background", "ignore"])
@pytest.mark.parametrize(("format", "options", "read"), READERS)
def test_labels_come_back(masked_run, tmp_path, format, options, read, void) -> None:
    out = export_run(masked_run, tmp_path / "out", format=format, void=void, **options)
    expected, found = truth(masked_run, void == "ignore"), read(out)
    assert found.keys() == expected.keys()
    for name, labels in expected.items():
        np.testing.assert_array_equal(found[name], labels, err_msg=name)


def test_yolo_loses_what_it_says(masked_run, tmp_path, capsys) -> None:
    out = export_run(masked_run, tmp_path / "out", format="yolo-seg")
    said = capsys.readouterr().err
    differ = 0
    for name, labels in truth(masked_run, void=False).items():
        found = read_yolo(out)[name]
        lost = found != labels
        assert not found[lost].any()
        differ += int(lost.sum())
    line = next(line for line in said.splitlines() if "left out" in line)
    assert 0 < differ == int(line.partition("(")[2].split()[0])


def test_our_own_reader_of_coco_takes_both_forms(masked_run, tmp_path) -> None:
    for number, polygons in enumerate((False, True)):
        out = export_run(
            masked_run, tmp_path / str(number), format="coco", polygons=polygons, void="ignore"
        )
        manifest = read_dataset(out, format="coco")
        assert manifest.classes == CLASSES
        expected = truth(masked_run, void=True)
        for sample in manifest.samples:
            name = sample.id.removeprefix("images/")
            np.testing.assert_array_equal(load_truth(manifest, sample), expected[name])
