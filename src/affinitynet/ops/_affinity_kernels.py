"""L1 distances of neighboring feature vectors, and their derivative, on one CPU thread.

Both kernels see a feature plane as one line: its rows stand one after the other with a gap of
zeros, so that a displacement is a fixed shift along the line and no bounds are checked. What is
calculated for a pair that leaves the grid means nothing and is dropped by the caller.
"""

import numpy as np
from numpy.typing import NDArray

from affinitynet.ops._numba import fused

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

# Channels that are summed up between reading and writing a distance.
CHANNELS = 4
# Pixels worked on at a time: their distances for all displacements stay in the first-level cache.
_BLOCK = 192


@fused
def sum_distances(planes: Floats, shifts: Integers, lead: int, distances: Floats) -> None:
    """Write sum_d |f_d[i] - f_d[i + shift]|: (D, lead + n + lead) -> distances (P, n).

    D is a multiple of CHANNELS.
    """
    size = distances.shape[1]
    distances[:] = 0
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        for d in range(0, len(planes), CHANNELS):
            plane0, plane1, plane2, plane3 = planes[d], planes[d + 1], planes[d + 2], planes[d + 3]
            here0, here1 = plane0[lead + start : lead + stop], plane1[lead + start : lead + stop]
            here2, here3 = plane2[lead + start : lead + stop], plane3[lead + start : lead + stop]
            for p in range(len(shifts)):
                begin, end = lead + start + shifts[p], lead + stop + shifts[p]
                there0, there1 = plane0[begin:end], plane1[begin:end]
                there2, there3 = plane2[begin:end], plane3[begin:end]
                total = distances[p, start:stop]
                for i in range(stop - start):
                    total[i] += (
                        abs(here0[i] - there0[i])
                        + abs(here1[i] - there1[i])
                        + abs(here2[i] - there2[i])
                        + abs(here3[i] - there3[i])
                    )


@fused
def _signed(value: np.float32, first: np.float32, second: np.float32) -> np.float32:
    """Give value * sign(first - second) by selections, which the compiler turns into masks."""
    nothing = np.float32(0)
    return (value if first > second else nothing) - (value if first < second else nothing)


@fused
def sum_pulls(planes: Floats, shifts: Integers, lead: int, pulls: Floats, gradient: Floats) -> None:
    """Write sum_j pull_ij sign(f_i - f_j) over all neighbors j: the gradient (D, n).

    Args:
        planes: as in `sum_distances`, (at least D, lead + n + lead).
        shifts: (P,), P even; every one is followed in both directions.
        lead: zeros before and after.
        pulls: (P, lead + n), the derivative by each distance; 0 for pairs outside the grid.
        gradient: (D, n), the result.
    """
    size = gradient.shape[1]
    gradient[:] = 0
    for start in range(0, size, _BLOCK):
        begin, end = lead + start, lead + min(start + _BLOCK, size)
        for d in range(len(gradient)):
            plane = planes[d]
            here, total = plane[begin:end], gradient[d, start : start + end - begin]
            for p in range(0, len(shifts), 2):
                s, t = shifts[p], shifts[p + 1]
                # Ahead and back along two displacements a pass: a sum is read and written once
                # for four neighbors.
                next_, last = plane[begin + s : end + s], plane[begin - s : end - s]
                next2, last2 = plane[begin + t : end + t], plane[begin - t : end - t]
                ahead, back = pulls[p, begin:end], pulls[p, begin - s : end - s]
                ahead2, back2 = pulls[p + 1, begin:end], pulls[p + 1, begin - t : end - t]
                for i in range(end - begin):
                    f = here[i]
                    total[i] += (
                        _signed(ahead[i], f, next_[i])
                        + _signed(back[i], f, last[i])
                        + _signed(ahead2[i], f, next2[i])
                        + _signed(back2[i], f, last2[i])
                    )
