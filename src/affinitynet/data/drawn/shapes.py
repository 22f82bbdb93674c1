"""Shapes of drawing programs as (H, W) bool; a pixel belongs to one if its center lies inside."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from affinitynet.data.coco_masks import fill_polygon
from affinitynet.data.drawn.drawing import Mask, Size
from affinitynet.errors import UserError

_FARTHEST = 1e7  # from the origin: what is farther out is no picture's


def numbers(values: Sequence[object], where: str, what: str) -> list[float]:
    """Return values as finite floats.

    Raises:
        UserError: one is no such number.
    """
    found = []
    for value in values:
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if isinstance(value, bool) or not abs(number) <= _FARTHEST:
            raise UserError(f"{where}: has {what} with {value!r:.40}, which is no number; mend it")
        found.append(number)
    return found


def corners(points: object, where: str, what: str) -> list[float]:
    """Return the corners [[x0, y0], ...] of JSON as x0, y0, ...

    Raises:
        UserError: they are none.
    """
    found = points if isinstance(points, list) else []
    if not found or not all(isinstance(point, list) and len(point) == 2 for point in found):
        raise UserError(f"{where}: has {what} without corners [[x, y], ...]; delete or mend it")
    return numbers([number for point in found for number in point], where, what)


def polygon(points: Sequence[float], size: Size, where: str) -> Mask:
    """Fill a polygon x0, y0, x1, ... by the even-odd rule.

    Raises:
        UserError: fewer than three corners, or half a corner.
    """
    if len(points) < 6 or len(points) % 2:
        raise UserError(f"{where}: has a polygon of fewer than three corners; delete or mend it")
    return fill_polygon(np.array(points, np.float64), *size)


def rectangle(
    left: float, top: float, right: float, bottom: float, size: Size, turn: float = 0
) -> Mask:
    """Fill a rectangle, turned by `turn` degrees clockwise around its upper left corner."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    turned = [_turn(x - left, y - top, turn) for x, y in corners]
    points = np.array([(left + x, top + y) for x, y in turned]).ravel()
    return fill_polygon(points, *size)


def ellipse(x: float, y: float, rx: float, ry: float, size: Size, turn: float = 0) -> Mask:
    """Fill an ellipse of center (x, y), turned by `turn` degrees clockwise around it."""
    rows, columns = np.indices(size) + 0.5
    dx, dy = _turn(columns - x, rows - y, -turn)
    if rx <= 0 or ry <= 0:
        return np.zeros(size, np.bool_)
    with np.errstate(over="ignore"):  # of a thin one: infinitely far out is outside
        inside: Mask = (dx / rx) ** 2 + (dy / ry) ** 2 <= 1
    return inside


def place(part: Mask, left: int, top: int, size: Size, where: str) -> Mask:
    """Put a mask (h, w) into an image at a place.

    Raises:
        UserError: it does not lie within the image.
    """
    height, width = part.shape
    check_place(width, height, left, top, size, where)
    mask = np.zeros(size, np.bool_)
    mask[top : top + height, left : left + width] = part
    return mask


def check_place(width: int, height: int, left: int, top: int, size: Size, where: str) -> None:
    """Refuse a box that does not lie within the image.

    Raises:
        UserError: the box and the image.
    """
    if min(left, top) < 0 or top + height > size[0] or left + width > size[1]:
        raise UserError(
            f"{where}: has a mask of {width} x {height} at {left}, {top}, which leaves the image "
            f"of {size[1]} x {size[0]}; export it again"
        )


def _turn(x: Any, y: Any, degrees: float) -> tuple[Any, Any]:
    angle = np.deg2rad(degrees)
    return x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
