"""Exports are read back by the programs they are for; skipped where a program isn't installed.

`make test-formats` makes an environment that has them. `tests/export/test_formats.py` reads the
same exports by small readers of its own, in the default run.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from affinitynet.data import read_labels
from affinitynet.export import export_run

# Warnings of other people's programs are their own affair.
pytestmark = [pytest.mark.formats, pytest.mark.filterwarnings("ignore")]

NAMES = ("background", "cat", "dog & <co>", "grün")
Labels = dict[str, np.ndarray]


def value(name: str) -> int:
    return 255 if name == "__ignore__" else NAMES.index(name)


def truth(run: Path, void: bool) -> Labels:
    folder = run / "pseudo"
    found = {
        file.relative_to(folder).with_suffix("").as_posix(): read_labels(file)
        for file in folder.rglob("*.png")
    }
    for labels in found.values():
        labels[(labels == 255) & (not void)] = 0
    return found


def compare(found: Labels, expected: Labels) -> None:
    assert found.keys() == expected.keys()
    for name, labels in expected.items():
        differ = int((found[name] != labels).sum())
        assert differ == 0, f"{name}: {differ} of {labels.size} pixels differ"


@pytest.mark.parametrize("void", ["background", "ignore"])
@pytest.mark.parametrize("polygons", [False, True])
def test_coco_by_pycocotools(masked_run, tmp_path, polygons, void) -> None:
    tools = pytest.importorskip("pycocotools.coco")
    out = export_run(masked_run, tmp_path / "out", format="coco", polygons=polygons, void=void)
    coco = tools.COCO(str(out / "annotations" / "instances_train.json"))
    found = {}
    for image in coco.loadImgs(coco.getImgIds()):
        labels = np.zeros((image["height"], image["width"]), int)
        for entry in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
            mask = coco.annToMask(entry)
            assert mask.sum() == entry["area"]
            (category,) = coco.loadCats([entry["category_id"]])
            labels[mask > 0] = value(category["name"])
        found[image["file_name"].rpartition(".")[0]] = labels
    compare(found, truth(masked_run, void == "ignore"))


def read_datumaro(out: Path, format: str) -> tuple[Any, dict[int, str]]:
    datumaro = pytest.importorskip("datumaro")
    dataset = datumaro.Dataset.import_from(str(out), format)
    categories = dataset.categories()[datumaro.AnnotationType.label]
    return dataset, {number: label.name for number, label in enumerate(categories.items)}


@pytest.mark.parametrize("void", ["background", "ignore"])
def test_cvat_by_datumaro(masked_run, tmp_path, void) -> None:
    pytest.importorskip("datumaro")
    out = export_run(masked_run, tmp_path / "out", format="cvat", void=void)
    dataset, names = read_datumaro(out, "cvat")
    expected = truth(masked_run, void == "ignore")
    found = {name: np.zeros(labels.shape, int) for name, labels in expected.items()}
    for item in dataset:
        for annotation in item.annotations:
            found[item.id][np.asarray(annotation.image, bool)] = value(names[annotation.label])
    compare(found, expected)


def test_voc_by_datumaro(masked_run, tmp_path) -> None:
    pytest.importorskip("datumaro")
    out = export_run(masked_run, tmp_path / "out", format="voc")
    dataset, names = read_datumaro(out, "voc_segmentation")
    expected = truth(masked_run, void=True)
    found = {name: np.zeros(labels.shape, int) for name, labels in expected.items()}
    for item in dataset:
        for annotation in item.annotations:
            found[item.id][np.asarray(annotation.image, bool)] = value(names[annotation.label])
    compare(found, expected)


@pytest.mark.parametrize("void", ["background", "ignore"])
def test_labelstudio_by_its_sdk(masked_run, tmp_path, void) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    config = pytest.importorskip("label_studio_sdk.label_interface")
    out = export_run(masked_run, tmp_path / "out", format="labelstudio", void=void)
    interface = config.LabelInterface((out / "label_config.xml").read_text("utf-8"))
    found, expected = {}, truth(masked_run, void == "ignore")
    for task in json.loads((out / "tasks.json").read_text("utf-8")):
        place = parse_qs(urlsplit(task["data"]["image"]).query)["d"][0]
        name = place.removeprefix("images/").rpartition(".")[0]
        found[name] = np.zeros(expected[name].shape, int)
        for result in task["predictions"][0]["result"]:
            assert interface.validate_region(result)
            shape = (result["original_height"], result["original_width"], 4)
            mask = brush.decode_rle(result["value"]["rle"]).reshape(shape)[..., 3]
            found[name][mask > 0] = value(result["value"]["brushlabels"][0])
    compare(found, expected)


@pytest.mark.parametrize("void", ["background", "ignore"])
@pytest.mark.parametrize("polygons", [False, True])
def test_labelme_by_its_own_code(masked_run, tmp_path, polygons, void) -> None:
    pytest.importorskip("labelme")
    try:
        from labelme._label_file import _load_shape_json_obj
        from labelme.utils import shapes_to_label
    except ImportError as error:
        pytest.skip(f"this release of LabelMe has other parts ({error})")
    out = export_run(masked_run, tmp_path / "out", format="labelme", polygons=polygons, void=void)
    found = {}
    numbers = {name: value(name) for name in (*NAMES, "__ignore__")}
    for file in out.rglob("*.json"):
        document = json.loads(file.read_text("utf-8"))
        shapes = [_load_shape_json_obj(shape) for shape in document["shapes"]]
        size = (document["imageHeight"], document["imageWidth"])
        labels, _ = shapes_to_label((*size, 3), shapes, numbers)
        found[file.relative_to(out).with_suffix("").as_posix()] = labels
    compare(found, truth(masked_run, void == "ignore"))


def ultralytics_data(out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(out.parent))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    pytest.importorskip("ultralytics")
    dataset = pytest.importorskip("ultralytics.data.dataset")
    utils = pytest.importorskip("ultralytics.data.utils")
    monkeypatch.setattr(utils, "check_font", lambda *_: None)  # which would fetch one
    return dataset, utils


def test_yolo_by_ultralytics(masked_run, tmp_path, monkeypatch, capsys) -> None:
    dataset, utils = ultralytics_data(tmp_path / "out", monkeypatch)
    out = export_run(masked_run, tmp_path / "out", format="yolo-seg")
    said = capsys.readouterr().err
    data = utils.check_det_dataset(str(out / "data.yaml"))
    assert data["names"] == dict(enumerate(NAMES[1:]))
    read = dataset.YOLODataset(img_path=data["train"], data=data, task="segment", augment=False)
    expected = truth(masked_run, void=False)
    lost = 0
    for entry in read.labels:
        name = Path(entry["im_file"]).relative_to(out / "images").with_suffix("").as_posix()
        height, width = entry["shape"]
        labels = np.zeros((height, width), int)
        for number, points in zip(entry["cls"].ravel(), entry["segments"], strict=True):
            scaled = [(points * (width, height)).ravel()]
            mask = utils.polygon2mask((height, width), scaled)
            labels[mask > 0] = 1 + int(number)
        differ = labels != expected[name]
        assert not labels[differ].any()
        lost += int(differ.sum())
    line = next(line for line in said.splitlines() if "left out" in line)
    assert 0 < lost == int(line.partition("(")[2].split()[0])
    assert len(read.labels) == len(expected)


def test_semantic_masks_by_ultralytics(masked_run, tmp_path, monkeypatch) -> None:
    dataset, utils = ultralytics_data(tmp_path / "out", monkeypatch)
    if not hasattr(dataset, "SemanticDataset") or not hasattr(utils, "read_mask"):
        pytest.skip("this release of Ultralytics reads no semantic masks")
    out = export_run(masked_run, tmp_path / "out", format="ultralytics-semantic")
    data = utils.check_det_dataset(str(out / "data.yaml"))
    read = dataset.SemanticDataset(img_path=data["train"], data=data, augment=False)
    found = {}
    for number, entry in enumerate(read.labels):
        name = Path(entry["im_file"]).relative_to(out / "images").with_suffix("").as_posix()
        found[name] = read.load_mask(number)
    compare(found, truth(masked_run, void=True))


def test_hf_by_datasets(masked_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    out = export_run(masked_run, tmp_path / "out", format="hf")
    read = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert list(read) == ["train"]
    expected = truth(masked_run, void=True)
    rows = list(read["train"])
    assert len(rows) == len(expected)
    names = [
        json.loads(line)["file_name"].removeprefix("images/").rpartition(".")[0]
        for line in (out / "train" / "metadata.jsonl").read_text("utf-8").splitlines()
    ]
    found = {name: np.asarray(row["mask"]) for name, row in zip(names, rows, strict=True)}
    for name, row in zip(names, rows, strict=True):
        assert row["image"].size == expected[name].shape[::-1]
        assert set(row["tags"]) <= set(NAMES)
    compare(found, expected)
