"""COCO's segmentations (polygons, run lengths, panoptic PNGs) as label maps.

The formats are those of the COCO API's mask documentation: run lengths go down the columns and
start with zeros; the compressed string holds each count in groups of five bits, the third count
and those after it as difference to the one two before.
"""

from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from affinitynet.data.coco_file import load_annotations
from affinitynet.data.images import load_image
from affinitynet.data.labels import Labels, ignore_index
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import check_relative

Mask = npt.NDArray[np.bool_]


def render_truth(path: Path, image: Path, classes: tuple[str, ...]) -> Labels:
    """Ground truth of one image from a COCO annotation file, (H, W) labels.

    Instances are painted from the largest to the smallest, so that what stands in front of
    something larger stays visible; crowd regions count as their class. In panoptic files, stuff
    is background and unlabelled pixels are void. Raises UserError, naming file and entry, where the
    file does not have the image or its size, names an unknown category, or has a segmentation that
    is none.
    """
    index = _index(path)
    entry = index.find(image)
    labels_of = {name: label for label, name in enumerate(classes, start=1)}
    dtype = np.uint8 if len(classes) < 255 else np.uint16
    if index.panoptic:
        return _render_panoptic(path, index, entry, labels_of, dtype, ignore_index(len(classes)))
    labels = np.zeros(_size(path, entry), dtype=dtype)
    masks = [
        (_instance(path, item, *labels.shape), item)
        for item in index.annotations.get(entry["id"], [])
    ]
    for mask, item in sorted(masks, key=lambda pair: (-int(pair[0].sum()), pair[1].get("id", 0))):
        labels[mask] = labels_of[index.category(item["category_id"], labels_of)]
    return labels


def _size(path: Path, entry: dict[str, Any]) -> tuple[int, int]:
    height, width = entry.get("height"), entry.get("width")
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise UserError(f"{path}: {entry['file_name']} has the size {height} x {width}.")
    return height, width


def _instance(path: Path, item: dict[str, Any], height: int, width: int) -> Mask:
    try:
        return decode_segmentation(item.get("segmentation"), height, width)
    except UserError as error:
        raise UserError(f"{path}, the annotation with id {item.get('id')}: {error}") from error


def decode_segmentation(segmentation: Any, height: int, width: int) -> Mask:
    """One instance's segmentation (polygons, or run lengths) as (H, W) bool.

    Raises UserError for what is neither, and for run lengths of another size than the image.
    """
    if isinstance(segmentation, list) and segmentation:
        mask = np.zeros((height, width), dtype=np.bool_)
        for polygon in segmentation:
            mask |= fill_polygon(_corners(polygon), height, width)
        return mask
    if not isinstance(segmentation, dict) or not {"counts", "size"} <= segmentation.keys():
        raise UserError(f"{segmentation!r:.60} is no segmentation: it has no polygons and no runs.")
    counts = segmentation["counts"]
    runs = _decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise UserError(f"The run lengths {counts!r:.60} are no counts of pixels.")
    if segmentation["size"] != [height, width] or sum(runs) != height * width:
        raise UserError(
            f"A run-length mask of {sum(runs)} pixels and size {segmentation['size']} does not "
            f"fit its image of {height} x {width}."
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _corners(polygon: Any) -> npt.NDArray[np.float64]:
    try:
        corners = np.asarray(polygon, dtype=np.float64)
    except (ValueError, TypeError):
        corners = np.empty(0)
    if corners.ndim != 1 or corners.size < 2 or corners.size % 2 or not np.isfinite(corners).all():
        raise UserError(f"{polygon!r:.60} is no polygon: it needs pairs of numbers x, y.")
    return corners


def fill_polygon(polygon: npt.NDArray[np.float64], height: int, width: int) -> Mask:
    """Pixels whose centre lies inside a polygon (x0, y0, x1, y1, ...), by the even-odd rule.

    Pixel (row r, column c) has its centre at x = c + 1/2, y = r + 1/2.
    """
    points = polygon.reshape(-1, 2)
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    rows = np.arange(height)[:, None] + 0.5
    crossed = (y0 <= rows) != (y1 <= rows)
    row, edge = np.nonzero(crossed)
    along = (rows[row, 0] - y0[edge]) / (y1[edge] - y0[edge])
    x = x0[edge] + along * (x1[edge] - x0[edge])
    # Each crossing flips all pixels whose centre is to its right.
    flips = np.zeros((height, width + 1), dtype=np.int64)
    np.add.at(flips, (row, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)), 1)
    inside: Mask = np.cumsum(flips[:, :width], axis=1) % 2 == 1
    return inside


def _decompress(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


class _Index:
    """An annotation file, arranged to find what belongs to an image."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = load_annotations(path)
        self.images = {entry["file_name"]: entry for entry in content["images"]}
        self.categories = {entry["id"]: entry for entry in content["categories"]}
        self.annotations: dict[int, list[dict[str, Any]]] = {}
        for item in content["annotations"]:
            self.annotations.setdefault(item["image_id"], []).append(item)
        self.panoptic = any("segments_info" in item for item in content["annotations"])

    def find(self, image: Path) -> dict[str, Any]:
        parts = image.as_posix().split("/")
        for start in range(len(parts)):
            entry = self.images.get("/".join(parts[start:]))
            if entry is not None:
                return dict(entry)
        raise UserError(f"{self.path} has no image {image.name}.")

    def category(self, category_id: int, labels_of: dict[str, int]) -> str:
        name = self.categories.get(category_id, {}).get("name")
        if name not in labels_of:
            raise UserError(f"{self.path} has the category {name or category_id!r}: no such class.")
        return str(name)


_LOADING = Lock()


@lru_cache(maxsize=2)
def _loaded(path: Path, changed: int) -> _Index:
    return _Index(path)


def _index(path: Path) -> _Index:
    # One thread at a time: COCO's files take seconds and gigabytes to load.
    with _LOADING:
        return _loaded(path, path.stat().st_mtime_ns if path.exists() else 0)


def panoptic_folder(path: Path) -> Path | None:
    """The folder of PNGs of a panoptic JSON: of its name, beside it or one level up."""
    folders = (path.with_suffix(""), path.parent.parent / path.stem)
    return next((folder for folder in folders if folder.is_dir()), None)


def _render_panoptic(
    path: Path,
    index: _Index,
    entry: dict[str, Any],
    labels_of: dict[str, int],
    dtype: type[np.uint8] | type[np.uint16],
    void: int,
) -> Labels:
    folder = panoptic_folder(path)
    annotations = index.annotations.get(entry["id"], [])
    if folder is None or not annotations:
        raise UserError(f"{path} has no panoptic PNG for {entry['file_name']}.")
    name = annotations[0]["file_name"]
    check_relative(name, f"{path}: the PNG")
    colours = load_image(folder / name).astype(np.int64)
    segments = colours @ np.array([1, 256, 256 * 256])
    labels = np.full(segments.shape, void, dtype=dtype)
    for item in annotations[0]["segments_info"]:
        is_thing = index.categories.get(item["category_id"], {}).get("isthing", 1)
        label = labels_of[index.category(item["category_id"], labels_of)] if is_thing else 0
        labels[segments == item["id"]] = label
    return labels
