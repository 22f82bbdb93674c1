"""Outlines are exact: what they surround is the mask, whatever its holes and corners."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from affinitynet.export.outlines import trace_outlines


def inside(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels whose center a horizontal ray from the left reaches after an odd number of edges."""
    found = np.zeros((height, width), dtype=bool)
    edges = list(zip(points.tolist(), np.roll(points, -1, 0).tolist(), strict=True))
    for row in range(height):
        for column in range(width):
            crossed = [
                x0 < column + 0.5
                for (x0, y0), (x1, y1) in edges
                if x0 == x1 and min(y0, y1) < row + 0.5 < max(y0, y1)
            ]
            found[row, column] = sum(crossed) % 2
    return found


def masks() -> list[np.ndarray]:
    random = np.random.default_rng(1)
    small = [random.random(random.integers(1, 10, 2)) < part for part in (0.4, 0.6, 0.85) * 12]
    target = np.maximum(*np.abs(np.mgrid[-6:7, -6:7])) % 2 == 0  # rings in rings
    sieve = np.ones((41, 41), dtype=bool)
    sieve[1::2, 1::2] = False
    return [*small, target, sieve, np.ones((3, 4), bool), np.zeros((2, 2), bool)]


@pytest.mark.parametrize("mask", masks())
def test_corners_surround_each_region(mask: np.ndarray) -> None:
    total = np.zeros(mask.shape, dtype=int)
    for outline in trace_outlines(mask):
        filled = inside(outline.corners, *mask.shape)
        assert filled.sum() == outline.area
        total += filled
    np.testing.assert_array_equal(total, mask)


@pytest.mark.parametrize("mask", masks())
def test_pixels_are_the_border_that_drawing_programs_take(mask: np.ndarray) -> None:
    height, width = mask.shape
    drawn = Image.new("1", (width, height))
    lines = np.zeros_like(mask)
    for outline in trace_outlines(mask):
        if outline.is_polygon:
            points = [tuple(point) for point in outline.pixels.tolist()]
            ImageDraw.Draw(drawn).polygon(points, fill=1, outline=1)
        else:
            lines |= inside(outline.corners, *mask.shape)
    np.testing.assert_array_equal(np.asarray(drawn) | lines, mask)


def test_pixels_that_touch_at_a_corner_are_two_regions() -> None:
    assert len(trace_outlines(np.eye(3, dtype=bool))) == 3
