"""The random walk's stencil on one CPU thread."""

import numpy as np
from numpy.typing import NDArray

from affinitynet.ops._numba import fused

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]

# Pixels whose sums are gathered before the next ones: their part of the graph (278 kB at radius
# 5) then stays in the second-level cache while one map after the other needs it.
_BLOCK = 2048
# Rows begin at multiples of the vector length.
_LANES = 8


@fused
def flow(
    weights: Floats, shifts: Integers, state: Floats, lead: int, start: int, sums: Floats
) -> None:
    """Sum W_ij (M_j - M_i) over the neighbors j of the pixels from start on, one per sum.

    Every displacement is met twice, from its first pixel and from its second; two of them a
    pass (P is always even), so that a sum is read and written once for four neighbors.
    """
    begin = lead + start
    end = begin + len(sums)
    center = state[begin:end]
    sums[:] = 0
    for p in range(0, len(shifts), 2):
        s, t = shifts[p], shifts[p + 1]
        ahead, back = weights[p, begin:end], weights[p, begin - s : end - s]
        ahead2, back2 = weights[p + 1, begin:end], weights[p + 1, begin - t : end - t]
        next_, last = state[begin + s : end + s], state[begin - s : end - s]
        next2, last2 = state[begin + t : end + t], state[begin - t : end - t]
        for i in range(len(sums)):
            here = center[i]
            sums[i] += (
                ahead[i] * (next_[i] - here)
                + back[i] * (last[i] - here)
                + ahead2[i] * (next2[i] - here)
                + back2[i] * (last2[i] - here)
            )


@fused
def lay_out(pairs: Floats, offsets: Integers) -> tuple[Floats, Integers, Floats, int, int]:
    """Lay the graph of one sample out in one line: (P, h, w) -> weights (P, lead + size).

    The rows of the grid are `stride` apart with room for the reach on their right, and states have
    `lead` places before and after, all with weight zero: every neighbor is then a fixed shift
    away, inside the line, and no bounds are checked.

    Returns:
        weights, shifts (P,), 1 / D_i (size,), stride and lead.
    """
    _, height, width = pairs.shape
    reach = 0
    for dy, dx in offsets:
        reach = max(reach, dy, abs(dx))
    stride = -(-(width + reach) // _LANES) * _LANES
    lead = -(-(reach * stride + reach) // _LANES) * _LANES
    size = height * stride
    shifts = offsets[:, 0] * stride + offsets[:, 1]

    # Room in front only: an edge lies at its first pixel, which is never after the last row.
    weights = np.zeros((len(offsets), lead + size), pairs.dtype)
    for p in range(len(offsets)):
        dy, dx = offsets[p]
        for y in range(height - dy):
            for x in range(max(0, -dx), min(width, width - dx)):
                weights[p, lead + y * stride + x] = pairs[p, y, x]
    # 1 / D_i; the one that each sum begins with is W_ii.
    rate = np.ones(size, pairs.dtype)
    for p in range(len(offsets)):
        ahead = weights[p, lead : lead + size]
        back = weights[p, lead - shifts[p] : lead - shifts[p] + size]
        for i in range(size):
            rate[i] += ahead[i] + back[i]
    for i in range(size):
        rate[i] = 1 / rate[i]
    return weights, shifts, rate, stride, lead


@fused
def walk(
    maps: Floats, pairs: Floats, offsets: Integers, coefficients: Floats, result: Floats
) -> None:
    """Write sum_k c_k T_k(T) M of one sample: (K, h, w), (P, h, w) -> result (K, h, w)."""
    K, height, width = maps.shape
    weights, shifts, rate, stride, lead = lay_out(pairs, offsets)
    size = len(rate)
    states = np.zeros((K, lead + size + lead), maps.dtype)
    for k in range(K):
        for y in range(height):
            begin = lead + y * stride
            states[k, begin : begin + width] = maps[k, y]
    changes = np.zeros((K, size), maps.dtype)
    totals = coefficients[0] * states[:, lead : lead + size]
    sums = np.empty(_BLOCK, maps.dtype)
    # T_{k+1} - T_k = (T_k - T_{k-1}) + 2 (T - I) T_k, as in random_walk.py. No state changes
    # before the flow of every pixel is known.
    for step in range(1, len(coefficients)):
        for start in range(0, size, _BLOCK):
            part = sums[: min(_BLOCK, size - start)]
            for k in range(K):
                flow(weights, shifts, states[k], lead, start, part)
                change = changes[k, start : start + len(part)]
                speed = rate[start : start + len(part)]
                for i in range(len(part)):
                    change[i] += speed[i] * part[i]
        coefficient = coefficients[step]
        for k in range(K):
            state, change, total = states[k, lead : lead + size], changes[k], totals[k]
            for i in range(size):
                state[i] += change[i]
                total[i] += coefficient * state[i]
        if step == 1:
            # T_1 is one product from T_0, every later polynomial two from the one before.
            rate += rate
    for k in range(K):
        for y in range(height):
            result[k, y] = totals[k, y * stride : y * stride + width]
