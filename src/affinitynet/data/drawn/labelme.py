"""LabelMe's JSON files, one an image, as drawn masks."""

import base64
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from affinitynet.data.drawn.drawing import (
    Drawing,
    Mask,
    Owners,
    Region,
    Size,
    endings,
    label_of,
    paint_regions,
)
from affinitynet.data.drawn.shapes import corners, ellipse, numbers, place, polygon, rectangle
from affinitynet.data.images import walk_files
from affinitynet.data.json_rows import load_json
from affinitynet.data.manifest import Manifest
from affinitynet.errors import UserError

_AREAS = ("polygon", "rectangle", "circle", "mask")


def is_labelme(content: Any) -> bool:
    """Whether a parsed JSON file is one of LabelMe's."""
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def read_labelme(path: Path, manifest: Manifest, rest: int) -> list[Drawing]:
    """List the images of a folder of JSON files, or of one file; shapes are painted as they come.

    Raises:
        UserError: a file is none of LabelMe's, its image or a label is not the run's, or a shape
            covers no area; names file and shape.
    """
    files = [path] if path.is_file() else [f for f in walk_files(path) if f.suffix == ".json"]
    if not files:
        raise UserError(f"{path}: holds no JSON file; name the folder of LabelMe's files")
    owners = Owners(manifest)
    return [_read(file, manifest, owners, rest) for file in files]


def _read(file: Path, manifest: Manifest, owners: Owners, rest: int) -> Drawing:
    content = load_json(file)
    if not is_labelme(content) or not isinstance(content["shapes"], list):
        raise UserError(f"{file}: is no file of LabelMe (it needs shapes and imagePath)")
    sizes = [content.get("imageHeight"), content.get("imageWidth")]
    height, width = numbers(sizes, str(file), "a size")
    size = (int(height), int(width))
    regions = []
    for number, shape in enumerate(content["shapes"]):
        where = f"{file}, shapes[{number}]"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise UserError(f"{where}: has no label; correct it")
        kind = shape.get("shape_type", "polygon")
        if not isinstance(kind, str) or kind not in _AREAS:
            raise UserError(f"{where}: is a {kind}, which covers no area; delete it")
        label = label_of(shape["label"], manifest.classes, where)
        regions.append(Region(label, partial(_mask, kind, shape, size, where)))
    sample = owners.find(str(file), *endings(str(content["imagePath"])), file.stem)
    paint = partial(paint_regions, regions, size, rest, len(manifest.classes), str(file))
    return Drawing(sample, str(file), size, paint)


def _mask(kind: str, shape: dict[str, Any], size: Size, where: str) -> Mask:
    points = corners(shape.get("points"), where, f"a {kind}")
    if kind == "polygon":
        return polygon(points, size, where)
    if len(points) != 4:
        raise UserError(f"{where}: is a {kind} without its two points; correct it")
    x0, y0, x1, y1 = points
    if kind == "circle":
        # The center, and a point on the circle.
        radius = float(np.hypot(x1 - x0, y1 - y0))
        return ellipse(x0, y0, radius, radius, size)
    if kind == "rectangle":
        return rectangle(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1), size)
    return _decode(shape.get("mask"), int(x0), int(y0), size, where)


def _decode(text: Any, left: int, top: int, size: Size, where: str) -> Mask:
    """Decode a PNG in base64, the size of the shape's box."""
    try:
        content = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width > size[1] or image.height > size[0]:
                raise ValueError("larger than the image")
            part = np.array(image.convert("L")) > 0
    except Exception as error:  # what the decoder raises at odd content differs from case to case
        raise UserError(f"{where}: has a mask that is no PNG ({error}); save it again") from error
    return place(part, left, top, size, where)
