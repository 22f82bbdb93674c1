"""CPU kernels that build a permutohedral lattice; permutohedral.py is the plain version."""

import numpy as np
from numpy.typing import NDArray

from affinitynet.ops._numba import compiled

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]

BLOCK = 64  # pixels embedded side by side, so that the arithmetic runs in vector registers
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads keys over the high bits


@compiled
def find(table: Longs, key: int) -> int:
    """Give the slot that holds the key, or the empty one it belongs in.

    The table has 2^k rows (key, number); number is -1 where the row is empty.
    """
    mask = len(table) - 1
    slot = np.int64((np.uint64(key) * GOLDEN) >> np.uint64(34)) & mask
    while table[slot, 1] >= 0 and table[slot, 0] != key:
        slot = (slot + 1) & mask
    return slot


@compiled
def empty_table(size: int) -> Longs:
    """Give an empty hash table of `size` slots, a power of two."""
    table = np.empty((size, 2), np.int64)
    table[:, 1] = -1
    return table


@compiled
def grown(table: Longs) -> Longs:
    """Give a table of four times the size with the same contents."""
    larger = empty_table(4 * len(table))
    for row in range(len(table)):
        if table[row, 1] >= 0:
            slot = find(larger, table[row, 0])
            larger[slot, 0] = table[row, 0]
            larger[slot, 1] = table[row, 1]
    return larger


@compiled
def build(features: Floats, scale: Floats, strides: Longs) -> tuple[Ints, Floats, Ints]:
    """Embed features in the lattice; number its points and find their neighbours.

    A lattice point is known by the sum of coordinate times stride over its first d coordinates;
    the caller chooses strides for which this tells all points of the image apart.

    Args:
        features: (N, d).
        scale: (d,) diagonal of the elevation matrix.
        strides: (d + 1,), the last one 0.

    Returns:
        Corners (N, d + 1), the points around each pixel; their barycentric weights (N, d + 1);
        neighbours (d + 1, M + 1, 2). Points count from 1 in the order in which pixels first
        touch them, and 0 stands for every point that is not there.
    """
    N, d = features.shape
    D = d + 1
    inverse = np.float32(1) / np.float32(D)
    weights = np.empty((N, D), np.float32)
    corners = np.empty((N, D), np.int32)
    simplices = empty_table(1 << 14)  # simplex key -> first pixel in it
    points = empty_table(1 << 12)  # point key -> number
    keys = np.empty(1 << 12, np.int64)
    step = strides.sum()
    S = 0
    M = 0

    elevated = np.empty((D, BLOCK), np.float32)
    rem0 = np.empty((D, BLOCK), np.float32)
    rank = np.empty((D, BLOCK), np.int32)
    running = np.empty(BLOCK, np.float32)
    total = np.empty(BLOCK, np.int32)
    residuals = np.empty((D, BLOCK), np.float32)
    at_rank = np.empty((D, BLOCK), np.int32)
    elevated[:] = 0

    for start in range(0, N, BLOCK):
        size = min(BLOCK, N - start)
        # y = E f (Adams et al. 2010, page 5), one rounding per operation as in the reference.
        running[:] = 0
        for j in range(d, 0, -1):
            factor = scale[j - 1]
            for p in range(size):
                scaled = features[start + p, j - 1] * factor
                elevated[j, p] = running[p] - np.float32(j) * scaled
                running[p] += scaled
        for p in range(size):
            elevated[0, p] = running[p]
        # The nearest point of remainder 0, coordinate by coordinate.
        total[:] = 0
        for i in range(D):
            for p in range(BLOCK):
                nearest = np.rint(inverse * elevated[i, p])
                rem0[i, p] = nearest * np.float32(D)
                total[p] += np.int32(nearest)
                rank[i, p] = 0
        # The order of the residuals says which simplex around that point it is.
        for i in range(d):
            for j in range(i + 1, D):
                for p in range(BLOCK):
                    less = np.int32(elevated[i, p] - rem0[i, p] < elevated[j, p] - rem0[j, p])
                    rank[i, p] += less
                    rank[j, p] += np.int32(1) - less
        # Coordinates that were rounded off the plane of sum zero go back to it.
        for i in range(D):
            for p in range(BLOCK):
                moved = rank[i, p] + total[p]
                shift = np.int32(0)
                if moved < 0:
                    shift = np.int32(D)
                if moved >= D:
                    shift = np.int32(-D)
                rank[i, p] = moved + shift
                rem0[i, p] += np.float32(shift)
        for i in range(D):
            for p in range(size):
                r = rank[i, p]
                residuals[r, p] = (elevated[i, p] - rem0[i, p]) * inverse
                at_rank[r, p] = i
        for p in range(size):
            weights[start + p, 0] = residuals[d, p] + (np.float32(1) - residuals[0, p])
        for i in range(1, D):
            for p in range(size):
                weights[start + p, i] = residuals[d - i, p] - residuals[d - i + 1, p]

        for p in range(size):
            n = start + p
            base = np.int64(0)
            order = np.int64(0)
            for i in range(d):
                base += np.int64(rem0[i, p]) * strides[i]
                order += np.int64(rank[i, p]) * strides[i]
            # rem0 are multiples of d + 1 and ranks lie below it: their sum names the simplex.
            slot = find(simplices, base + order)
            if simplices[slot, 1] >= 0:
                first = simplices[slot, 1]
                for i in range(D):
                    corners[n, i] = corners[first, i]
                continue
            simplices[slot, 0] = base + order
            simplices[slot, 1] = n
            S += 1
            if len(simplices) < 2 * S:
                simplices = grown(simplices)
            for k in range(D):
                slot = find(points, base)
                if points[slot, 1] < 0:
                    if len(keys) == M:
                        longer = np.empty(2 * M, np.int64)
                        longer[:M] = keys
                        keys = longer
                    keys[M] = base
                    M += 1
                    points[slot, 0] = base
                    points[slot, 1] = M
                    corners[n, k] = M
                    if len(points) < 2 * M:
                        points = grown(points)
                else:
                    corners[n, k] = points[slot, 1]
                # The next corner: one up in every coordinate, but d down in the largest left.
                base += step - D * strides[at_rank[d - k, p]]

    neighbours = np.zeros((D, M + 1, 2), np.int32)
    for axis in range(D):
        ahead = step - D * strides[axis]
        for m in range(M):
            other = points[find(points, keys[m] + ahead), 1]
            if other >= 0:
                neighbours[axis, m + 1, 1] = other
                neighbours[axis, other, 0] = m + 1
    return corners, weights, neighbours
