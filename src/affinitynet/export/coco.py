"""COCO's instance annotations: one per image and class, as compressed run lengths or polygons."""

import json
from pathlib import Path
from typing import Any

from affinitynet.export.dataset import VOID, Export, Mask, bounds, run_lengths
from affinitynet.export.outlines import trace_outlines
from affinitynet.export.pictures import copy_picture


def write(export: Export, out: Path) -> None:
    """Write ``images/``, and ``annotations/instances_<part>.json`` for each part.

    Void, where it is kept, is a category of its own, and its regions are crowds, which COCO's
    evaluation leaves out.
    """
    categories = [{"id": number, "name": name} for number, name in enumerate(export.names, 1)]
    numbers = {name: number for number, name in enumerate(export.names, 1)}
    image_id = annotation_id = 0
    for part, samples in export.parts.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for sample in samples:
            image_id += 1
            name = copy_picture(sample, out / "images")
            labels = export.labels(sample)
            height, width = labels.shape
            images.append({"id": image_id, "file_name": name, "width": width, "height": height})
            for region, mask in export.regions(labels):
                annotation_id += 1
                entry = _annotation(mask, export.polygons)
                crowd = int(region == VOID and export.keep_void)
                numbered = {"id": annotation_id, "image_id": image_id}
                annotations.append(
                    numbered | {"category_id": numbers[region], "iscrowd": crowd} | entry
                )
        document = {"images": images, "annotations": annotations, "categories": categories}
        target = out / "annotations" / f"instances_{part}.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(document, ensure_ascii=False), "utf-8")


def _annotation(mask: Mask, polygons: bool) -> dict[str, Any]:
    left, top, right, bottom = bounds(mask)
    segmentation: Any = {"size": list(mask.shape), "counts": compress(mask)}
    if polygons:
        segmentation = [outline.corners.ravel().tolist() for outline in trace_outlines(mask)]
    box = [left, top, right - left, bottom - top]
    return {"segmentation": segmentation, "area": int(mask.sum()), "bbox": box}


def compress(mask: Mask) -> str:
    """Return a mask (H, W) as the COCO API's string of run lengths, down the columns.

    From the third count on each is the difference to the one two before; a number is written in
    groups of five bits, lowest first, with bit 6 for "more", as the character 48 + group.
    """
    runs = run_lengths(mask.T.ravel())
    text = []
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        while True:
            group = value & 31
            value >>= 5
            # Done when what is left is the sign of the group's highest bit.
            if value == (-1 if group & 16 else 0):
                text.append(chr(48 + group))
                break
            text.append(chr(48 + (group | 32)))
    return "".join(text)
