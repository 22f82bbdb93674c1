"""The largest value on the lines between pixels, and its derivative, on one CPU thread.

As in `_affinity_kernels` the plane is one line with room between its rows, so that a cell of a path
is a fixed shift away and no bounds are checked. What is found for a pair that leaves the grid means
nothing and is dropped by the caller.
"""

import numpy as np
from numpy.typing import NDArray

from affinitynet.ops._numba import compiled, fused

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Places = NDArray[np.int32]

# Pixels worked on at a time: what a path reads of the plane stays in the first-level cache.
_BLOCK = 512


@fused
def largest_on_lines(
    plane: Floats, shifts: Integers, starts: Integers, lead: int, largest: Floats
) -> None:
    """Write max_c plane[i + shift_c] over the cells c of each path: -> largest (P, n).

    Path p has the shifts from starts[p] to starts[p + 1]. An odd number of them ends in one that
    stands there twice.
    """
    size = largest.shape[1]
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        begin, end = lead + start, lead + stop
        for p in range(len(largest)):
            best = largest[p, start:stop]
            best[:] = plane[begin:end]
            for c in range(starts[p], starts[p + 1], 2):
                s, t = shifts[c], shifts[c + 1]
                one, two = plane[begin + s : end + s], plane[begin + t : end + t]
                for i in range(stop - start):
                    larger = one[i] if one[i] > two[i] else two[i]
                    best[i] = larger if larger > best[i] else best[i]


@fused
def places_on_lines(
    plane: Floats, shifts: Integers, starts: Integers, lead: int, largest: Floats, places: Places
) -> None:
    """Write the same, and the shift of the first cell that holds it: -> places (P, n)."""
    size = largest.shape[1]
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        begin, end = lead + start, lead + stop
        for p in range(len(largest)):
            best, place = largest[p, start:stop], places[p, start:stop]
            best[:] = plane[begin:end]
            place[:] = 0
            for c in range(starts[p], starts[p + 1]):
                s = shifts[c]
                there, here = plane[begin + s : end + s], np.int32(s)
                for i in range(stop - start):
                    # The place first: selections alone, which the compiler turns into masks.
                    place[i] = here if there[i] > best[i] else place[i]
                    best[i] = there[i] if there[i] > best[i] else best[i]


@compiled
def add_at_places(pulls: Floats, places: Places, lead: int, gradient: Floats) -> None:
    """Add each pull (P, n) to the gradient (lead + n + lead) at its place."""
    for p in range(len(pulls)):
        for i in range(pulls.shape[1]):
            pull = pulls[p, i]
            if pull != 0:  # most pairs have a neutral member
                gradient[lead + i + places[p, i]] += pull
