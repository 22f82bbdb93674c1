"""COCO instances (polygons or run lengths) as drawn masks."""

from functools import partial
from pathlib import Path
from typing import Any

from affinitynet.data.coco_file import load_annotations
from affinitynet.data.coco_masks import decode_segmentation
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
from affinitynet.data.labels import Labels
from affinitynet.data.manifest import Manifest
from affinitynet.errors import UserError


def read_coco(path: Path, manifest: Manifest, rest: int) -> list[Drawing]:
    """List the images of an annotation file that have annotations.

    Instances are painted from the largest to the smallest, as where COCO is ground truth.

    Raises:
        UserError: no COCO file, a panoptic one, an image or category that the run lacks, a
            segmentation that is none; names the entry.
    """
    content, owners = load_annotations(path), Owners(manifest)
    names: dict[int, str] = {}
    for entry in content["categories"]:
        if names.setdefault(entry["id"], entry["name"]) != entry["name"]:
            raise UserError(
                f"{path}: the category {entry['id']} has two names, {names[entry['id']]!r} and "
                f"{entry['name']!r}; give each its own id"
            )
    found: dict[Any, list[tuple[Region, str]]] = {}
    sizes = {entry["id"]: entry for entry in content["images"]}
    for number, item in enumerate(content["annotations"]):
        where = f"{path}, annotations[{number}]"
        if "segments_info" in item:
            raise UserError(f"{where}: is panoptic; export instances")
        if item["image_id"] not in sizes:
            raise UserError(f"{where}: belongs to no image of the file; export it again")
        size = _size(sizes[item["image_id"]], where)
        label = label_of(names[item["category_id"]], manifest.classes, where)
        mask = partial(_decode, item.get("segmentation"), size, where)
        found.setdefault(item["image_id"], []).append((Region(label, mask), where))
    drawings = []
    for number, entry in enumerate(content["images"]):
        if entry["id"] in found:
            where, size = f"{path}, images[{number}]", _size(entry, str(path))
            sample = owners.find(where, *endings(entry["file_name"]))
            regions = [region for region, _ in found[entry["id"]]]
            paint = partial(_paint, regions, size, rest, len(manifest.classes), where)
            drawings.append(Drawing(sample, where, size, paint))
    return drawings


def _size(entry: dict[str, Any], where: str) -> Size:
    height, width = entry.get("height"), entry.get("width")
    # Not isinstance, as true is an int too.
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise UserError(f"{where}: the image {entry['file_name']} has no size; export it again")
    return height, width


def _decode(segmentation: Any, size: Size, where: str) -> Mask:
    try:
        return decode_segmentation(segmentation, *size)
    except UserError as error:
        raise UserError(f"{where}: has {error}; correct it") from error


def _paint(regions: list[Region], size: Size, rest: int, classes: int, where: str) -> Labels:
    # Sorted by size, so that what stands in front of something larger stays visible.
    drawn = [Region(region.label, partial(_same, region.mask())) for region in regions]
    drawn.sort(key=lambda region: -int(region.mask().sum()))
    return paint_regions(drawn, size, rest, classes, where)


def _same(mask: Mask) -> Mask:
    return mask
