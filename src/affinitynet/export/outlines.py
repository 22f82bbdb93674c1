"""Outlines of masks as polygons, exact: filling them gives the mask again.

An outline follows the edges between pixels inside and outside, with the inside on its right.
Pixels that touch at a corner only belong to two outlines. A hole is joined to what surrounds it by
a cut of no width, since most formats know no holes: one polygon for each connected region.

          0   1   2   3
        0 +---+---+---+      outline 0,0 -> 3,0 -> 3,3 -> 0,3 -> 0,1, by the cut to the hole at
          | x   x   x |      1,1, around it and back
        1 +   +---+   +
          | x |   | x |
        2 +   +---+   +
          | x   x   x |
        3 +---+---+---+
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.int64]

_RIGHT, _DOWN, _LEFT, _UP = range(4)
_STEP = ((1, 0), (0, 1), (-1, 0), (0, -1))
# From the start of an edge to the pixel on its right.
_INSIDE = ((0, 0), (-1, 0), (-1, -1), (0, -1))

_Edge = tuple[int, int, int]  # x, y of its start, and its direction
_Token = tuple[int, int, int, int]  # x, y of a corner, and of the pixel inside


class _Hole(NamedTuple):
    """A loop around a hole: its number, its edge to start with, and where it hangs on another."""

    number: int
    start: int
    position: int


class Outline(NamedTuple):
    """One connected region's outline, closed, in two forms; each (N, 2) of x, y.

    corners: corners of pixels: the region is what has its center inside, by the even-odd rule.
    pixels: the region's own pixels along its border, by column and row: for programs that draw the
    line along with what it surrounds. area: the region's pixels.
    """

    corners: Points
    pixels: Points
    area: int

    @property
    def is_polygon(self) -> bool:
        """Whether `pixels` are three or more: a row of pixels is a line, or a point."""
        return len(self.pixels) > 2


def trace_outlines(mask: Mask) -> list[Outline]:
    """Return the outline of each connected region (4 neighbors) of a mask (H, W)."""
    padded = np.pad(mask, 1)
    loops, place = _trace_loops(padded)
    areas = [_area(loop) for loop in loops]
    # Each hole hangs on the loop that is hit to its left: an outer one, or another hole.
    children: dict[int, list[_Hole]] = {}
    parents: dict[int, int] = {}
    for number, loop in enumerate(loops):
        if areas[number] > 0:
            continue
        # The first edge on its left side: down, with the inside to the left.
        first = min((e for e in loop if e[2] == _DOWN), key=lambda e: (e[0], e[1]))
        left, y = first[0] - 1, first[1]
        while padded[y, left - 1]:
            left -= 1
        parent, position = place[left, y + 1, _UP]
        children.setdefault(parent, []).append(_Hole(number, place[first][1], position))
        parents[number] = parent
    whole = {number: area for number, area in enumerate(areas) if area > 0}
    for number in parents:
        outer = number
        while outer in parents:
            outer = parents[outer]
        whole[outer] += areas[number]
    return [_outline(loops, children, number, area) for number, area in whole.items()]


def _trace_loops(padded: Mask) -> tuple[list[list[_Edge]], dict[_Edge, tuple[int, int]]]:
    """Follow all edges of a mask with an empty border; return loops, and each edge's place."""
    starts = set()
    for direction, (dx, dy) in enumerate(((0, -1), (1, 0), (0, 1), (-1, 0))):
        # The neighbor beyond the edge: above, right, below, left.
        ys, xs = np.nonzero(padded & ~np.roll(padded, (-dy, -dx), (0, 1)))
        ox, oy = _INSIDE[direction]
        found = zip((xs - ox).tolist(), (ys - oy).tolist(), strict=True)
        starts |= {(x, y, direction) for x, y in found}
    loops: list[list[_Edge]] = []
    place: dict[_Edge, tuple[int, int]] = {}
    for start in sorted(starts):
        if start in place:
            continue
        loop: list[_Edge] = []
        edge = start
        while edge not in place:
            place[edge] = (len(loops), len(loop))
            loop.append(edge)
            x, y, direction = edge
            dx, dy = _STEP[direction]
            # To the right first, so that pixels that touch at a corner are two regions.
            turns = ((x + dx, y + dy, (direction + turn) % 4) for turn in (1, 0, 3))
            edge = next(turn for turn in turns if turn in starts)
        loops.append(loop)
    return loops, place


def _area(loop: list[_Edge]) -> int:
    """The pixels inside a loop; of a hole, negative."""
    return sum(x if direction == _DOWN else -x for x, _, direction in loop if direction & 1)


def _outline(
    loops: list[list[_Edge]], children: dict[int, list[_Hole]], outer: int, area: int
) -> Outline:
    tokens: list[_Token] = []
    # Not by recursion: a sieve's holes hang on each other by the hundred.
    stack = [iter(_walk(loops[outer], children.get(outer, []), 0))]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
        elif isinstance(step, _Hole):
            steps = _walk(loops[step.number], children.get(step.number, []), step.start)
            stack.append(iter([*steps, steps[0]]))  # closed before the way back
        else:
            tokens.append(step)
    # Without the border that was put around the mask.
    points = np.array(tokens, np.int64) - 1
    return Outline(_straighten(points[:, :2]), _straighten(points[:, 2:]), area)


def _walk(loop: list[_Edge], children: list[_Hole], start: int) -> list[_Token | _Hole]:
    """List a loop's corners from `start` on, with its holes between their cuts."""
    holes: dict[int, list[_Hole]] = {}
    for hole in children:
        holes.setdefault(hole.position, []).append(hole)
    steps: list[_Token | _Hole] = []
    for position in (*range(start, len(loop)), *range(start)):
        x, y, direction = loop[position]
        ox, oy = _INSIDE[direction]
        steps.append((x, y, x + ox, y + oy))
        for hole in holes.get(position, ()):
            # From the upper end of this edge, which goes up, and back to it.
            end = (x, y - 1, x + ox, y + oy)
            steps += [end, hole, end]
    return steps


def _straighten(points: Points) -> Points:
    """Leave out points that repeat the one before or lie on a straight line."""
    points = points[(points != np.roll(points, 1, 0)).any(1)]
    if not len(points):
        return points
    before = np.sign(points - np.roll(points, 1, 0))
    after = np.sign(np.roll(points, -1, 0) - points)
    turns: Points = points[(before != after).any(1)]
    return turns
