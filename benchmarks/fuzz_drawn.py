"""Sound inputs of what people draw and hand back: corrections, imports, masks for `tune`."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_kinds import NAMES, SIZE, Input
from PIL import Image

from affinitynet.data import Manifest, Sample, voc_palette, write_labels
from affinitynet.data.corrections import check_corrections
from affinitynet.data.drawn import import_corrections

HEIGHT, WIDTH = SIZE
BOX = np.zeros(SIZE, np.uint8)
BOX[3:8, 4:10] = 2
CORNERS = [[4, 3], [10, 3], [10, 8], [4, 8]]


def _run(folder: Path) -> Path:
    """Make a run folder of two images; return it."""
    data, run = folder / "data", folder / "run"
    samples = []
    for name in ("1", "2"):
        file = data / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(file)
        samples.append(Sample(name, file, (0,)))
    run.mkdir()
    Manifest(data, NAMES, {"train": tuple(samples)}).write(run)
    return run


def _drawn(name: str, content: Any) -> Callable[[Path], Input]:
    def make(folder: Path) -> Input:
        run, file = _run(folder), folder / "drawn" / name
        file.parent.mkdir()
        text = content if isinstance(content, str) else json.dumps(content)
        file.write_text(text, encoding="utf-8")
        return Input([file], lambda: import_corrections(run, file, replace=True))

    return make


def _pngs(folder: Path) -> Input:
    run, drawn = _run(folder), folder / "drawn"
    for name in ("1", "2"):
        write_labels(drawn / f"{name}.png", BOX, voc_palette())
    files = sorted(drawn.iterdir())
    return Input(files, lambda: import_corrections(run, drawn, replace=True))


def _corrections(folder: Path) -> Input:
    run = _run(folder)
    manifest = Manifest.of_run(run)
    write_labels(run / "corrections" / "1.png", BOX, voc_palette())
    Image.fromarray(BOX).save(run / "corrections" / "2.png")
    files = sorted((run / "corrections").iterdir())
    return Input(files, lambda: check_corrections(run, manifest))


def _brush(mask: Any) -> list[int]:
    """Encode as Label Studio's converter does, with runs alone."""
    values = np.repeat(mask.astype(np.int64)[..., None] * 255, 4, axis=2).ravel()
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(values)], strict=True):
        bits += f"111{stop - start - 1:016b}{values[start]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def _region(kind: str, **value: Any) -> dict[str, Any]:
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    return {"type": kind, **size, "value": {kind: ["dog"], "rotation": 10, **value}}


def _label_studio() -> list[dict[str, Any]]:
    drawn = [
        _region("brushlabels", format="rle", rle=_brush(BOX > 0)),
        _region("polygonlabels", points=[[20, 25], [50, 25], [50, 60]]),
        _region("rectanglelabels", x=20, y=25, width=30, height=40),
        _region("ellipselabels", x=20, y=25, radiusX=30, radiusY=4.5),
    ]
    one = {"id": 1, "was_cancelled": False, "result": drawn}
    return [{"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-1.png"}, "annotations": [one]}]


def _labelme() -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray((BOX[3:8, 4:10] > 0).astype(np.uint8) * 255).save(buffer, "PNG")
    mask = base64.b64encode(buffer.getvalue()).decode()
    shapes = [
        {"label": "dog", "points": CORNERS, "shape_type": "polygon"},
        {"label": "cat", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"},
        {"label": "cat", "points": [[10, 6], [14, 6]], "shape_type": "circle"},
        {"label": "dog", "points": [[4, 3], [9, 7]], "shape_type": "mask", "mask": mask},
    ]
    size = {"imagePath": "../data/1.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {"version": "5.5.0", "flags": {}, "shapes": shapes, "imageData": None, **size}


def _coco() -> dict[str, Any]:
    runs = [3 + 4 * HEIGHT, 5, HEIGHT * WIDTH - 8 - 4 * HEIGHT]
    item = {"id": 1, "image_id": 7, "category_id": 3}
    return {
        "images": [{"id": 7, "file_name": "1.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [
            item | {"segmentation": [[4, 3, 10, 3, 10, 8, 4, 8]]},
            item | {"id": 2, "segmentation": {"counts": runs, "size": list(SIZE)}},
        ],
        "categories": [{"id": 3, "name": "dog"}],
    }


CVAT = (
    '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>'
    f'<image id="0" name="1.png" width="{WIDTH}" height="{HEIGHT}">'
    '<mask label="dog" rle="0, 30" left="4" top="3" width="6" height="5" z_order="0"/>'
    '<polygon label="dog" points="4,3;10,3;10,8;4,8" z_order="1"/>'
    '<box label="cat" xtl="4" ytl="3" xbr="10" ybr="8" rotation="0.0"/>'
    '<ellipse label="cat" cx="10" cy="6" rx="4" ry="4" rotation="20"/></image></annotations>'
)
DRAWN: dict[str, Callable[[Path], Input]] = {
    "drawn_png": _pngs,
    "drawn_coco": _drawn("c.json", _coco()),
    "drawn_cvat": _drawn("a.xml", CVAT),
    "drawn_label_studio": _drawn("p.json", _label_studio()),
    "drawn_labelme": _drawn("1.json", _labelme()),
    "corrections": _corrections,
}
