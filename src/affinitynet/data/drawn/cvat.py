"""CVAT's XML ("CVAT for images 1.1") as drawn masks."""

from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from affinitynet.data.cvat import SHAPES
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
from affinitynet.data.drawn.shapes import check_place, ellipse, numbers, place, polygon, rectangle
from affinitynet.data.manifest import Manifest
from affinitynet.data.xml_file import parse_xml
from affinitynet.errors import UserError

_AREAS = ("mask", "polygon", "box", "ellipse")


def read_cvat_masks(path: Path, manifest: Manifest, rest: int) -> list[Drawing]:
    """List the images of an export that have shapes: masks, polygons, boxes and ellipses.

    They are painted by their z_order, and those of one order as they come.

    Raises:
        UserError: no such XML, an image or label that the run lacks, a shape without an area or
            that can't be read; names the entry.
    """
    root = parse_xml(path, "which CVAT never does; export it again", "export it again")
    images = root.findall("image") if root.tag == "annotations" else []
    if not images:
        raise UserError(f"{path}: has no images; export it as 'CVAT for images 1.1'")
    owners, classes = Owners(manifest), manifest.classes
    drawings = []
    for number, image in enumerate(images, 1):
        where = f"{path}, entry {number} ({image.get('name', '')})"
        shapes = [shape for shape in image if shape.tag in SHAPES]
        if not shapes:
            continue
        sizes = numbers([image.get("height"), image.get("width")], where, "a size")
        size = (int(sizes[0]), int(sizes[1]))
        heights = numbers([shape.get("z_order") or 0 for shape in shapes], where, "a z_order")
        shapes = [shapes[place] for place in np.argsort(heights, kind="stable")]
        regions = []
        for shape in shapes:
            if shape.tag not in _AREAS:
                raise UserError(f"{where}: has a {shape.tag}, which covers no area; delete it")
            label = label_of(shape.get("label") or "", classes, where)
            regions.append(Region(label, partial(_mask, shape, size, where)))
        sample = owners.find(where, *endings(image.get("name") or ""))
        paint = partial(paint_regions, regions, size, rest, len(classes), where)
        drawings.append(Drawing(sample, where, size, paint))
    return drawings


def _mask(shape: Element, size: Size, where: str) -> Mask:
    def read(*names: str) -> list[float]:
        return numbers([shape.get(name) for name in names], where, f"a {shape.tag}")

    (turn,) = numbers([shape.get("rotation") or 0], where, "a rotation")
    if shape.tag == "mask":
        return _decode(shape, size, where)
    if shape.tag == "polygon":
        corners = (shape.get("points") or "").replace(";", ",").split(",")
        return polygon(numbers(corners, where, "a polygon"), size, where)
    if shape.tag == "ellipse":
        x, y, rx, ry = read("cx", "cy", "rx", "ry")
        return ellipse(x, y, rx, ry, size, turn)
    left, top, right, bottom = read("xtl", "ytl", "xbr", "ybr")
    if turn:
        raise UserError(f"{where}: has a turned box; draw it as a polygon")
    return rectangle(left, top, right, bottom, size)


def _decode(shape: Element, size: Size, where: str) -> Mask:
    """Decode run lengths, which go along the rows of the mask's box and start with zeros."""
    words = [shape.get(name) or "" for name in ("left", "top", "width", "height")]
    runs = (shape.get("rle") or "").split(",")
    counts = [int(value) for value in numbers([*words, *runs], where, "a mask")]
    left, top, width, height = counts[:4]
    lengths = counts[4:]
    # Before they are decoded: a short text may ask for gigabytes.
    check_place(width, height, left, top, size, where)
    if min(counts) < 0 or sum(lengths) != width * height:
        raise UserError(
            f"{where}: has a mask of {width} x {height} whose run lengths add up to "
            f"{sum(lengths)}; export it again"
        )
    values = np.arange(len(lengths)) % 2 == 1
    part = np.repeat(values, lengths).reshape(height, width)
    return place(part, left, top, size, where)
