"""COCO's segmentations (polygons, run lengths, panoptic PNGs) as label maps.

The formats are those of the COCO API's mask documentation: run lengths go down the columns and
start with zeros; the compressed string holds each count in groups of five bits, the third count
and those after it as difference to the one two before.
"""

import re
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from affinitynet.data.coco_file import find_base, load_annotations
from affinitynet.data.images import load_image
from affinitynet.data.labels import Labels, ignore_index
from affinitynet.data.names import Files, compose
from affinitynet.data.tags import is_background, is_void
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import check_relative

Mask = npt.NDArray[np.bool_]

MOST_PIXELS = 2**31  # of an image, so that a number without bound takes no memory
_LONGEST = 60  # bits of a run length
_FARTHEST = 1e7  # corner of a polygon: what is farther out is no picture's
_CROSSINGS = 1 << 24  # rows times edges that are looked at together


def render_truth(path: Path, image: Path, classes: tuple[str, ...]) -> Labels:
    """Ground truth of one image from a COCO annotation file, (H, W) labels.

    Instances are painted from the largest to the smallest, so that what stands in front of
    something larger stays visible; crowd regions count as their class. In panoptic files, stuff
    is background and unlabeled pixels are void.

    Raises:
        UserError: the file does not have the image or its size, names an unknown category, or has
            a segmentation that is none; names file and entry.
    """
    index = _index(path)
    entry = index.find(image)
    void = ignore_index(len(classes))
    labels_of = {name: label for label, name in enumerate(classes, start=1)}
    dtype = np.uint8 if len(classes) < 255 else np.uint16
    if index.panoptic:
        return _render_panoptic(path, index, entry, labels_of, dtype, void)
    labels = np.zeros(_size(path, entry), dtype=dtype)
    instances = []
    for item in index.annotations.get(entry["id"], []):
        mask = _instance(path, item, *labels.shape)
        number = item.get("id", 0)
        # By the id where sizes are equal, so that the order in the file doesn't matter.
        rank = (-int(mask.sum()), number if isinstance(number, int) else 0)
        instances.append((rank, mask, item["category_id"]))
    for _, mask, category in sorted(instances, key=lambda instance: instance[0]):
        labels[mask] = index.label(category, labels_of, void)
    return labels


def _size(path: Path, entry: dict[str, Any]) -> tuple[int, int]:
    height, width = entry.get("height"), entry.get("width")
    # Not isinstance, as true is an int too.
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise UserError(
            f"{path}: {entry['file_name']} has the size {height!r:.20} x {width!r:.20}; correct it"
        )
    if height * width > MOST_PIXELS:
        raise UserError(
            f"{path}: {entry['file_name']} has the size {height!r:.20} x {width!r:.20}, more than "
            "any image; correct it"
        )
    return height, width


def _instance(path: Path, item: dict[str, Any], height: int, width: int) -> Mask:
    try:
        return decode_segmentation(item.get("segmentation"), height, width)
    except UserError as error:
        raise UserError(
            f"{path}: the annotation with id {item.get('id')!r:.20} has {error}; correct it"
        ) from error


def decode_segmentation(segmentation: Any, height: int, width: int) -> Mask:
    """Return one instance's segmentation (polygons, or run lengths) as (H, W) bool.

    Raises:
        UserError: it is neither, or has run lengths of another size than the image.
    """
    if isinstance(segmentation, list) and segmentation:
        mask = np.zeros((height, width), dtype=np.bool_)
        for polygon in segmentation:
            mask |= fill_polygon(_corners(polygon), height, width)
        return mask
    if not isinstance(segmentation, dict) or not {"counts", "size"} <= segmentation.keys():
        raise UserError(f"{segmentation!r:.60}, which is neither polygons nor run lengths")
    counts = segmentation["counts"]
    runs = _decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        raise UserError(f"the run lengths {counts!r:.60}, which are no counts of pixels")
    if segmentation["size"] != [height, width] or sum(runs) != height * width:
        raise UserError(
            f"a run-length mask of size {segmentation['size']!r:.30}, which does not fit its image "
            f"of {height} x {width}"
        )
    values = np.arange(len(runs)) % 2 == 1
    # Run lengths go down the columns, so the rows are the second axis.
    return np.repeat(values, runs).reshape(width, height).T


def _corners(polygon: Any) -> npt.NDArray[np.float64]:
    try:
        corners = np.asarray(polygon, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        corners = np.empty(0)
    # A comparison with NaN is false.
    near = corners.ndim == 1 and bool((np.abs(corners) <= _FARTHEST).all())
    if not near or corners.size < 2 or corners.size % 2:
        raise UserError(f"{polygon!r:.60}, which is no polygon (pairs of numbers x, y)")
    return corners


def fill_polygon(polygon: npt.NDArray[np.float64], height: int, width: int) -> Mask:
    """Return the pixels whose center lies inside a polygon (x0, y0, x1, ...), even-odd rule.

    Pixel (row r, column c) has its center at x = c + 1/2, y = r + 1/2.
    """
    points = polygon.reshape(-1, 2)
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    rows = np.arange(height)[:, None] + 0.5
    # Each crossing flips all pixels whose center is to its right.
    flips = np.zeros((height, width + 1), dtype=np.int64)
    step = max(_CROSSINGS // height, 1)
    for start in range(0, len(points), step):
        part = slice(start, start + step)
        # <= at both ends: a corner at a row's height belongs to one of its two edges only.
        row, edge = np.nonzero((y0[part] <= rows) != (y1[part] <= rows))
        edge += start
        along = (rows[row, 0] - y0[edge]) / (y1[edge] - y0[edge])
        x = x0[edge] + along * (x1[edge] - x0[edge])
        np.add.at(flips, (row, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)), 1)
    inside: Mask = np.cumsum(flips[:, :width], axis=1) % 2 == 1
    return inside


def _decompress(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        # A count that never ends would be added up in ever larger numbers.
        if not 0 <= bits < 64 or shift > _LONGEST:
            raise UserError(f"the run lengths {text!r:.60}, which are no counts of pixels")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            # The sign, in the last group's highest bit.
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
        files, root = Files(), path.parent.parent
        folder = re.sub(r"^(instances|panoptic)_*", "", path.stem)
        base = find_base(root, folder, content["images"], files) or root
        # By the file itself: names in two folders may be equal, or spelled otherwise on the disk.
        self.images = {files.find(base, e["file_name"]): e for e in content["images"]}
        self.categories = {entry["id"]: entry for entry in content["categories"]}
        self.annotations: dict[int | str, list[dict[str, Any]]] = {}
        for item in content["annotations"]:
            self.annotations.setdefault(item["image_id"], []).append(item)
        self.panoptic = any("segments_info" in item for item in content["annotations"])

    def find(self, image: Path) -> dict[str, Any]:
        entry = self.images.get(image)
        if entry is None:
            raise UserError(f"{self.path}: has no image {image.name}; add it")
        return dict(entry)

    def label(self, category_id: int, labels_of: dict[str, int], void: int) -> int:
        name = compose(str(self.categories.get(category_id, {}).get("name")).strip())
        if is_background(name) or is_void(name):
            return 0 if is_background(name) else void
        if name not in labels_of:
            raise UserError(f"{self.path}: has the category {name!r}, which is no class; add it")
        return labels_of[name]


_LOADING = Lock()


@lru_cache(maxsize=2)
def _loaded(path: Path, changed: int) -> _Index:
    return _Index(path)


def _index(path: Path) -> _Index:
    # One thread at a time: COCO's files take seconds and gigabytes to load.
    with _LOADING:
        return _loaded(path, path.stat().st_mtime_ns if path.exists() else 0)


def panoptic_folder(path: Path) -> Path | None:
    """Return the folder of PNGs of a panoptic JSON: of its name, beside it or one level up."""
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
    if folder is None or len(annotations) != 1:
        raise UserError(
            f"{path}: has {len(annotations)} panoptic PNGs for {entry['file_name']}; give it one"
        )
    name = annotations[0]["file_name"]
    check_relative(name, f"{path}: the PNG")
    colors = load_image(folder / name).astype(np.int64)
    # COCO's panoptic PNGs: id = R + 256 G + 256² B.
    segments = colors @ np.array([1, 256, 256 * 256])
    labels = np.full(segments.shape, void, dtype=dtype)
    for item in annotations[0]["segments_info"]:
        is_thing = index.categories.get(item["category_id"], {}).get("isthing", 1)
        label = index.label(item["category_id"], labels_of, void) if is_thing else 0
        labels[segments == item["id"]] = label
    return labels
