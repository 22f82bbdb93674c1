"""LabelMe: a JSON file beside each image, with a shape for each class."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from affinitynet.export.dataset import VOID, Export, Mask, bounds
from affinitynet.export.outlines import trace_outlines
from affinitynet.export.pictures import copy_picture, place


def write(export: Export, out: Path) -> None:
    """Write images, and beside each ``<id>.json``; ``labels.txt`` lists the classes.

    A class of an image is one shape of the kind *mask*, or with `polygons` one polygon for each
    connected region. LabelMe needs three points: smaller regions stay masks.
    """
    for sample in export.samples:
        name = copy_picture(sample, out)
        labels = export.labels(sample)
        height, width = labels.shape
        shapes = [
            {"label": region, "group_id": None, "description": "", "flags": {}} | shape
            for region, mask in export.regions(labels)
            for shape in (_polygons(mask) if export.polygons else [_mask(mask)])
        ]
        document = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(name).name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        text = json.dumps(document, ensure_ascii=False)
        place(out, sample.id, ".json").write_text(text, "utf-8")
    text = "".join(f"{name}\n" for name in (VOID, "_background_", *export.classes))
    (out / "labels.txt").write_text(text, "utf-8", newline="\n")


def _mask(mask: Mask) -> dict[str, Any]:
    left, top, right, bottom = bounds(mask)
    picture = io.BytesIO()
    Image.fromarray(mask[top:bottom, left:right]).save(picture, format="PNG")
    return {
        # Both corners are pixels of the box.
        "points": [[left, top], [right - 1, bottom - 1]],
        "shape_type": "mask",
        "mask": base64.b64encode(picture.getvalue()).decode("ascii"),
    }


def _polygons(mask: Mask) -> Iterator[dict[str, Any]]:
    small = np.zeros_like(mask)
    for outline in trace_outlines(mask):
        if outline.is_polygon:
            # LabelMe draws the line along with what it surrounds.
            points = outline.pixels.tolist()
            yield {"points": points, "shape_type": "polygon", "mask": None}
        else:
            (left, top), (right, bottom) = outline.corners.min(0), outline.corners.max(0)
            small[top:bottom, left:right] = True
    if small.any():
        yield _mask(small)
