"""Label Studio's JSON as drawn masks: brush strokes, polygons, rectangles and ellipses."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from affinitynet.data.drawn.drawing import (
    Drawing,
    Mask,
    Owners,
    Region,
    Size,
    label_of,
    paint_regions,
)
from affinitynet.data.drawn.shapes import corners, ellipse, numbers, polygon, rectangle
from affinitynet.data.json_rows import load_json
from affinitynet.data.label_studio import file_names, image_of, is_label_studio
from affinitynet.data.manifest import Manifest
from affinitynet.errors import UserError

_KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels")


def read_label_studio_masks(path: Path, manifest: Manifest, rest: int) -> list[Drawing]:
    """List the tasks of an export (JSON) that have regions; they are painted as they come.

    Raises:
        UserError: no such export, an image or label that the run lacks, two annotations of a task,
            or a region that can't be read; names the entry.
    """
    content = load_json(path)
    if not is_label_studio(content) or "annotations" not in content[0]:
        raise UserError(f"{path}: is no JSON export of Label Studio; export the project as JSON")
    owners, classes = Owners(manifest), manifest.classes
    drawings = []
    for number, task in enumerate(content, 1):
        where = f"{path}, entry {number}"
        results = _results(task, where)
        if not results:
            continue
        size, regions = None, []
        for result in results:
            own = tuple(int(n) for n in _read(result, where, "original_height", "original_width"))
            if size is not None and own != size:
                raise UserError(f"{where}: has regions of images of two sizes; export it again")
            size = (own[0], own[1])
            names = result["value"].get(result["type"])
            if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
                raise UserError(f"{where}: has a region with the labels {names!r:.60}; give it one")
            label = label_of(names[0], classes, where)
            regions.append(Region(label, partial(_mask, result, size, where)))
        assert size is not None
        sample = owners.find(where, *file_names(image_of(task["data"], where)))
        paint = partial(paint_regions, regions, size, rest, len(classes), where)
        drawings.append(Drawing(sample, where, size, paint))
    return drawings


def decode_brush(codes: Sequence[int], size: Size) -> Mask:
    """Decode Label Studio's run lengths of brush strokes to (H, W) bool.

    A stream of bits: the number of values (32 bits), their width - 1 (5), four widths of run
    lengths - 1 (4 each). Then groups: one bit says whether one value repeats, two which width the
    group's length - 1 has, and then come the length, and one value or one for each place. The
    values are the bytes of an RGBA picture, whose alpha is the mask (Label Studio's converter).

    Raises:
        ValueError: the stream ends early, or is of another size.
    """
    bits = np.unpackbits(np.array(codes, np.uint8))
    weights = 1 << np.arange(32)[::-1].astype(np.int64)
    position = 0

    def take(width: int) -> int:
        nonlocal position
        part = bits[position : position + width]
        if len(part) < width:
            raise ValueError("run lengths that end early")
        position += width
        return int(part @ weights[32 - width :])

    count, width = take(32), take(5) + 1
    if count != size[0] * size[1] * 4:
        raise ValueError("run lengths of another size than its image")
    widths = [take(4) + 1 for _ in range(4)]
    values = np.empty(count, np.int64)
    done = 0
    while done < count:
        repeats = take(1)
        end = done + take(widths[take(2)]) + 1
        if end > count:
            raise ValueError("run lengths of more pixels than its image")
        if repeats:
            values[done:end] = take(width)
        else:
            group = bits[position : position + width * (end - done)]
            if len(group) < width * (end - done):
                raise ValueError("run lengths that end early")
            values[done:end] = group.reshape(-1, width) @ weights[32 - width :]
            position += width * (end - done)
        done = end
    mask: Mask = values.reshape(*size, 4)[..., 3] > 0
    return mask


def _results(task: Any, where: str) -> list[dict[str, Any]]:
    """Return the regions of a task's one annotation that was not cancelled."""
    data, several = (task.get(key) for key in ("data", "annotations")) if _is(task) else (0, 0)
    if not _is(data) or not isinstance(several, list):
        raise UserError(f"{where}: has no data or no list of annotations; export the project again")
    kept = [a for a in several if _is(a) and isinstance(a.get("result"), list)]
    kept = [annotation for annotation in kept if not annotation.get("was_cancelled")]
    drawn = [
        [r for r in a["result"] if _is(r) and r.get("type") in _KINDS and _is(r.get("value"))]
        for a in kept
    ]
    drawn = [results for results in drawn if results]
    if len(drawn) > 1:
        raise UserError(f"{where}: has {len(drawn)} annotations with regions; delete all but one")
    return drawn[0] if drawn else []


def _is(value: Any) -> bool:
    return isinstance(value, dict)


def _read(values: dict[str, Any], where: str, *names: str) -> list[float]:
    return numbers([values.get(name) for name in names], where, "a region")


def _mask(result: dict[str, Any], size: Size, where: str) -> Mask:
    value, kind = result["value"], result["type"]
    if kind == "brushlabels":
        codes = value.get("rle")
        if not isinstance(codes, list) or not all(type(c) is int and 0 <= c < 256 for c in codes):
            raise UserError(f"{where}: has a brush stroke without run lengths; export it again")
        try:
            return decode_brush(codes, size)
        except ValueError as error:
            raise UserError(f"{where}: has {error}; export it again") from error
    # All others are in percent of the image's sides.
    across, down = size[1] / 100, size[0] / 100
    if kind == "polygonlabels":
        found = corners(value.get("points"), where, "a polygon")
        scaled = [n * (down if place % 2 else across) for place, n in enumerate(found)]
        return polygon(scaled, size, where)
    (turn,) = numbers([value.get("rotation") or 0], where, "a rotation")
    if kind == "ellipselabels":
        x, y, rx, ry = _read(value, where, "x", "y", "radiusX", "radiusY")
        return ellipse(x * across, y * down, rx * across, ry * down, size, turn)
    x, y, width, height = _read(value, where, "x", "y", "width", "height")
    right, bottom = (x + width) * across, (y + height) * down
    return rectangle(x * across, y * down, right, bottom, size, turn)
