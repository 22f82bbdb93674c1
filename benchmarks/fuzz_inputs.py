"""A sound input of each kind, and the call that reads it, for `fuzz.py`."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_drawn import DRAWN
from fuzz_kinds import NAMES, SIZE, Input
from PIL import Image

from affinitynet.data import load_image, load_truth, read_dataset, read_labels, write_labels
from affinitynet.data.cams import load_cams, save_cams
from affinitynet.data.contents import changed_images, record_images
from affinitynet.data.grids import load_affinity, load_scores, save_affinity, save_scores
from affinitynet.data.images import read_orientation, read_size
from affinitynet.data.labels import voc_palette
from affinitynet.data.manifest import Manifest
from affinitynet.data.sources import read_affinity_source, read_cams, read_labels_source
from affinitynet.run_folder.recipe import Recipe


def _pixels(seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 255, (*SIZE, 3), dtype=np.uint8)


def _images(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_pixels(seed)).save(folder / name)


def _text(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def _tags(name: str, text: str, **others: str) -> Callable[[Path], Input]:
    """Make a data set of three images, a file of tags, and `others` (file name -> text)."""

    def make(folder: Path) -> Input:
        _images(folder, "images/1.png", "images/2.png", "images/3.png")
        files = [_text(folder / name, text)]
        files += [_text(folder / other.replace("_", "."), said) for other, said in others.items()]
        return Input(files, lambda: read_dataset(folder))

    return make


TABLE = "image,labels,split,group\n1.png,cat;dog,train,a\n2.png,dog,train,b\n3.png,,val,\n"
FLAGS = "filename\tcat\tdog\n1.png\t1\t0\n2.png\t0\t1\n3.png\t1\t1\n"
LISTS = 'image,labels\n1.png,"[\'cat\', \'dog\']"\n2.png,"[""dog""]"\n3.png,cat|dog\n'
ROWS = [
    {"image": "1.png", "labels": ["cat", "dog"], "split": "train"},
    {"image": "2.png", "labels": "dog", "split": "train"},
    {"image": "3.png", "labels": [], "split": "val"},
]
TASKS = [
    {
        "id": n,
        "data": {"image": f"/data/upload/1/a1b2c3d4-{n}.png"},
        "annotations": [
            {
                "id": n,
                "was_cancelled": False,
                "result": [
                    {"type": "choices", "from_name": "choice", "value": {"choices": [name]}}
                ],
            }
        ],
    }
    for n, name in ((1, "cat"), (2, "dog"), (3, "cat"))
]
MINIMAL = [
    {"id": n, "annotation_id": n, "annotator": 1, "image": f"/data/upload/1/a1b2c3d4-{n}.png"}
    | {"choice": choice}
    for n, choice in ((1, {"choices": ["cat", "dog"]}), (2, "dog"), (3, "cat"))
]
CVAT = (
    "<?xml version='1.0' encoding='utf-8'?>\n<annotations><meta><task><labels><label><name>cat"
    "</name></label><label><name>dog</name></label></labels></task></meta>"
    "<image id='0' name='1.png' subset='train'><tag label='cat'/><tag label='dog'/></image>"
    "<image id='1' name='2.png' subset='train'><tag label='dog'/></image>"
    "<image id='2' name='3.png' subset='val'><box label='cat' xtl='1'/></image></annotations>"
)


def _run(length: int) -> str:
    """Write a run length as COCO does: five bits a character from 48 on, 32 says more follow."""
    text = ""
    while length >= 16:
        text += chr(48 + (length & 31 | 32))
        length >>= 5
    return text + chr(48 + length)


def _coco_content() -> dict[str, Any]:
    runs = (100, 50, SIZE[0] * SIZE[1] - 150)
    lengths = {"size": list(SIZE), "counts": "".join(map(_run, runs))}
    shapes: list[Any] = [
        [[2, 2, 20, 2, 20, 15, 2, 15], [1.5, 1.5, 9, 9, 1, 9]],
        {"size": list(SIZE), "counts": [100, 50, SIZE[0] * SIZE[1] - 150]},
        lengths,
    ]
    return {
        "images": [
            {"id": n, "file_name": f"{n}.png", "height": SIZE[0], "width": SIZE[1]}
            for n in (1, 2, 3)
        ],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1 + n % 2, "iscrowd": n % 2}
            | {"bbox": [2, 2, 18, 13], "area": 234, "segmentation": shape}
            for n, shape in enumerate(shapes, 1)
        ],
        "categories": [
            {"id": 1, "name": "cat", "supercategory": "a"},
            {"id": 2, "name": "dog", "supercategory": "a"},
        ],
    }


def _coco(folder: Path) -> Input:
    _images(folder, *(f"train2017/{n}.png" for n in (1, 2, 3)))
    content = json.dumps(_coco_content())
    file = _text(folder / "annotations" / "instances_train2017.json", content)

    def read() -> None:
        manifest = read_dataset(folder)
        for sample in manifest.samples:
            if sample.mask:
                load_truth(manifest, sample)

    return Input([file], read)


def _devkit(folder: Path) -> list[Path]:
    names = ("2007_000032", "a b", "scan 0")
    _images(folder, *(f"JPEGImages/{name}.jpg" for name in names))
    head = "<?xml version='1.0' encoding='{}'?>\n<annotation><filename>x</filename>"
    for name, tag, encoding in zip(names, (*NAMES, "cat"), ("utf-8", "GB2312", "x"), strict=True):
        said = head.format(encoding) if encoding != "x" else "<annotation>"
        shape = "<bndbox><xmin>1</xmin></bndbox>"
        _text(
            folder / "Annotations" / f"{name}.xml",
            f"{said}<object><name>{tag}</name>{shape}</object><object><name>dog</name></object>"
            "</annotation>",
        )
    _text(folder / "classes.txt", "cat\ndog\n")
    sets = folder / "ImageSets" / "Segmentation"
    return [
        _text(sets / "train.txt", f"{names[0]}\n{names[1]}\n"),
        _text(sets / "val.txt", f"/JPEGImages/{names[2]}.jpg /SegmentationClass/{names[2]}.png\n"),
        _text(folder / "ImageSets" / "Main" / "cat_train.txt", f"{names[0]}  1\n{names[1]} -1\n"),
    ]


def _voc_lists(folder: Path) -> Input:
    return Input(_devkit(folder), lambda: read_dataset(folder))


def _voc_xml(folder: Path) -> Input:
    _devkit(folder)
    return Input(sorted((folder / "Annotations").iterdir()), lambda: read_dataset(folder))


def _photo(suffix: str, mode: str = "RGB", **options: Any) -> Callable[[Path], Input]:
    def make(folder: Path) -> Input:
        file = folder / f"1.{suffix}"
        image = Image.fromarray(_pixels()).convert(mode)
        exif = Image.Exif()
        exif[274], exif[305] = 6, "camera"
        if suffix in ("jpg", "png", "webp", "tif"):
            options.setdefault("exif", exif)
        image.save(file, **options)

        def read() -> None:
            pixels = load_image(file)
            read_orientation(file)
            assert read_size(file) == pixels.shape[:2], "head and pixels differ in size"

        return Input([file], read)

    return make


def _labels() -> np.ndarray[Any, Any]:
    labels = np.zeros(SIZE, np.uint8)
    labels[4:12, 6:20], labels[14:20, 2:9], labels[0, 0] = 1, 2, 255
    return labels


def _masks(folder: Path) -> Input:
    """Masks of a table: read as ground truth."""
    _images(folder, "images/1.png", "images/2.png", "images/3.png")
    _text(folder / "labels.csv", TABLE)
    _text(folder / "classes.txt", "cat\ndog\n")
    (folder / "masks").mkdir()
    write_labels(folder / "masks" / "1.png", _labels(), voc_palette())
    Image.fromarray(_labels()).save(folder / "masks" / "2.png")
    colors = np.zeros((*SIZE, 3), np.uint8)
    colors[3:9, 3:9] = (128, 0, 0)
    Image.fromarray(colors).save(folder / "masks" / "3.png")
    manifest = read_dataset(folder)

    def read() -> None:
        for sample in manifest.samples:
            load_truth(manifest, sample)

    return Input(sorted((folder / "masks").iterdir()), read)


def _label_tiff(folder: Path) -> Input:
    file = folder / "1.tif"
    Image.fromarray(_labels()).save(file, compression="tiff_lzw")
    return Input([file], lambda: read_labels(file))


def _label_source(folder: Path) -> Input:
    file = folder / "1.png"
    write_labels(file, _labels(), voc_palette())
    return Input([file], lambda: read_labels_source(file, NAMES, NAMES, (0, 1), SIZE))


def _maps() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random((2, *SIZE)).astype(np.float32)


def _read_cams(file: Path) -> Callable[[], Any]:
    return lambda: read_cams(file, NAMES, NAMES, (0, 1), SIZE)


def _psa(folder: Path) -> Input:
    """Dictionaries as psa and IRN save them: a pickle in a .npy."""
    psa, irn = folder / "1.npy", folder / "2.npy"
    maps = _maps()
    np.save(psa, dict(enumerate(maps)), allow_pickle=True)  # type: ignore[arg-type]
    small = {"keys": np.arange(2), "cam": maps[:, ::4, ::4].copy(), "high_res": maps}
    np.save(irn, small, allow_pickle=True)  # type: ignore[arg-type]

    def read() -> None:
        for file in (psa, irn):
            _read_cams(file)()

    return Input([psa, irn], read)


def _npz_cams(folder: Path) -> Input:
    named, keyed = folder / "1.npz", folder / "2.npz"
    maps = _maps()
    np.savez(named, cat=maps[0], dog=maps[1].astype(np.float64))
    np.savez_compressed(keyed, keys=np.arange(2), cams=maps)

    def read() -> None:
        for file in (named, keyed):
            _read_cams(file)()

    return Input([named, keyed], read)


def _png_cams(folder: Path) -> Input:
    for name, values in zip(NAMES, _maps(), strict=True):
        (folder / "1").mkdir(exist_ok=True)
        Image.fromarray((values * 255).astype(np.uint8)).save(folder / "1" / f"{name}.png")
    return Input(sorted((folder / "1").iterdir()), _read_cams(folder / "1"))


def _affinities(folder: Path) -> Input:
    ours, theirs = folder / "1.npz", folder / "2.npz"
    affinity = np.random.default_rng(0).random((34, 3, 4)).astype(np.float32)
    save_affinity(ours, affinity)
    np.savez(theirs, affinity=affinity)

    def read() -> None:
        load_affinity(ours, size=(3, 4))
        read_affinity_source(theirs, SIZE)

    return Input([ours, theirs], read)


def _own_maps(folder: Path) -> Input:
    cams, scores = folder / "1.npz", folder / "2.npz"
    save_cams(cams, (0, 1), _maps())
    save_scores(scores, (0, 1), np.random.default_rng(0).random((3, 3, 4)).astype(np.float32))

    def read() -> None:
        load_cams(cams, classes=2, size=SIZE)
        load_scores(scores, classes=2, size=(3, 4))

    return Input([cams, scores], read)


def _recipe(folder: Path) -> Input:
    text = "seed: 1\nbackbone: {name: resnet38, weights: none}\nchoose: [classifier.steps]\n"
    text += "cams: &c\n  scales: [0.5, 1.0]\n  flip: true\nwalk: {beta: 8, crf: {iterations: 1}}\n"
    file = _text(folder / "short.yaml", text)
    return Input([file], lambda: Recipe.load(file))


def _run_folder(folder: Path) -> Input:
    """Records of a run: what status, report and the next run read of them."""
    from affinitynet.data.judgements import class_lines, class_table, read_judgements, read_seeds
    from affinitynet.data.verdicts import failed_classes
    from affinitynet.pipeline import Run
    from affinitynet.run_folder.choices import read_choices
    from affinitynet.run_folder.freshness import Freshness
    from affinitynet.run_folder.records import Record, StageFolder

    data, out = folder / "data", folder / "run"
    _tags("labels.csv", TABLE)(data)
    recipe = Recipe.load(_text(folder / "r.yaml", "seed: 1\n"), data=data, out=out)
    manifest = read_dataset(data)
    manifest.write(out)
    _text(out / "recipe.yaml", recipe.dump())
    files = [out / "manifest.jsonl"]
    rows: dict[str, list[dict[str, Any]]] = {
        "seeds": [{"class": "cat", "images": 9, "empty": 1, "failed": ""}] * 2,
        "tags": [
            {"class": "cat", "images": 9, "positives": 4, "ap": 0.5, "chance": 0.4}
            | {"verdict": "learned"}
        ],
    }
    freshness = Freshness(recipe)
    for stage in freshness.stages:
        plan, place = freshness.plan(stage), StageFolder(out / stage.folder, stage.name)
        place.start(plan)
        figures = {"judgements": ["said"], "warnings": ["said"], "loss": 0.5, **rows}
        kept = {"figures": figures, "counts": {"total": 3, "done": 3}, "seconds": 1.5}
        own = {"stage": stage.name, "fingerprint": plan.fingerprint, "settings": plan.settings}
        place.finish(Record.model_validate(own | kept))
        if stage.suffix:
            place.finish_shard(0, ["1", "2"])
            files.append(place.path / "shards" / "000000.json")
        files += [place.path / "stage.json", place.path / "plan.json"]
    figure = {"stage": "pseudo", "split": "train", "miou": 0.5, "tags_given": True, "crf": True}
    figure |= {"tta": "none", "images": 2, "iou": {"cat": 0.4}, "threshold": None}
    files.append(_text(out / "evaluation" / "figures.json", json.dumps({"figures": [figure]})))
    choice = {"cams.scales": {"value": [1.0], "reason": "few images"}}
    files.append(_text(out / "choices.json", json.dumps(choice)))
    record_images(recipe, manifest)
    files.append(out / "images.json")

    def read() -> None:
        opened = Run(recipe)  # not `open`: reading the recipe takes most of the time
        opened.status()
        opened.figures()
        assert isinstance(opened.manifest, Manifest)
        read_judgements(out, opened.stages)
        read_choices(out)
        read_seeds(out)
        failed_classes(out)
        class_lines(class_table(out))
        changed_images(recipe, manifest, freshness.stages[0], finished=True)

    return Input(files, read)


def _saved_model(folder: Path) -> Input:
    from torch import nn

    from affinitynet.models.saved import Description, load_model, save_model

    class Small(Description):
        stage = "train_classifier"
        width: int

    def build(description: Small) -> nn.Module:
        return nn.Linear(3, min(max(description.width, 1), 9))

    save_model(folder, nn.Linear(3, 4), Small(width=4))
    # Without the checksum, as earlier versions wrote it: else all that is changed is refused alike.
    _text(folder / "model.json", '{"width": 4, "kind": "small"}')
    files = [folder / "weights.safetensors", folder / "model.json"]
    return Input(files, lambda: load_model(folder, Small, build))


def _weights(folder: Path) -> Input:
    import torch

    from affinitynet.models.weights.loading import load_weights

    tensors = {"conv1.weight": torch.ones(2, 3, 1, 1), "bn.running_mean": torch.zeros(2)}
    torch.save({"state_dict": tensors, "epoch": 3}, folder / "new.pth")
    torch.save(tensors, folder / "old.pth", _use_new_zipfile_serialization=False)
    name, values = b"arg:fc9_weight", np.ones((2, 3), np.float32)
    array = struct.pack("<I", 0xF993FAC9) + struct.pack("<iI2q", 0, 2, 2, 3)
    array += struct.pack("<iii", 1, 0, 0) + values.tobytes()
    content = struct.pack("<QQQ", 0x112, 0, 1) + array + struct.pack("<QQ", 1, len(name)) + name
    (folder / "x.params").write_bytes(content)
    files = [folder / "new.pth", folder / "old.pth", folder / "x.params"]

    def read() -> None:
        for file in files:
            load_weights(file)

    return Input(files, read, "zip")


def _caffe(folder: Path) -> Input:
    from affinitynet.models.weights.caffe import _net_parameter, read_caffe

    net = _net_parameter()()
    layer = net.layer.add()
    layer.name = b"conv1_1"
    blob = layer.blobs.add()
    blob.shape.dim.extend([2, 3])
    blob.data.extend(range(6))
    file = folder / "x.caffemodel"
    file.write_bytes(net.SerializeToString())
    return Input([file], lambda: read_caffe(file))


def _checkpoint(folder: Path) -> Input:
    import torch
    from torch import nn

    from affinitynet.checkpoint import State, load_state, save_state

    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    file = folder / "checkpoint.pt"
    save_state(file, model, optimizer, State(epochs=3, means={"loss": 0.5}))
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups = optimizer.state_dict()

    def read() -> None:
        try:
            load_state(file, model, optimizer, torch.device("cpu"))
        finally:
            model.load_state_dict(start)
            optimizer.load_state_dict(groups)

    return Input([file], read, "checkpoint")


def _cells(folder: Path) -> Input:
    """Labels in cells: lists of Python's and JSON's, and separators."""
    return _tags("labels.csv", LISTS)(folder)


READERS: dict[str, Callable[[Path], Input]] = {
    "table": _tags(
        "labels.csv", TABLE, classes_txt="cat\ndog\n", groups_csv="image,group\n1.png,a\n"
    ),
    "flags": _tags("tags.tsv", FLAGS),
    "cells": _cells,
    "json_lines": _tags("tags.jsonl", "\n".join(json.dumps(row) for row in ROWS)),
    "json_list": _tags("tags.json", json.dumps(ROWS)),
    "label_studio": _tags("export.json", json.dumps(TASKS)),
    "label_studio_min": _tags("export.json", json.dumps(MINIMAL)),
    "cvat": _tags("annotations.xml", CVAT),
    "coco": _coco,
    "voc_lists": _voc_lists,
    "voc_xml": _voc_xml,
    "jpeg": _photo("jpg"),
    "png": _photo("png"),
    "tiff": _photo("tif", compression="tiff_lzw"),
    "webp": _photo("webp"),
    "bmp": _photo("bmp"),
    "gif": _photo("gif", "P"),
    "ppm": _photo("ppm"),
    "masks": _masks,
    "label_tiff": _label_tiff,
    "label_source": _label_source,
    "npy_cams": _psa,
    "npz_cams": _npz_cams,
    "png_cams": _png_cams,
    "affinities": _affinities,
    "own_maps": _own_maps,
    "recipe": _recipe,
    "run_folder": _run_folder,
    "saved_model": _saved_model,
    "weights": _weights,
    "caffe": _caffe,
    "checkpoint": _checkpoint,
    **DRAWN,
}
