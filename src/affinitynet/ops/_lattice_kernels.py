"""CPU kernels that build a permutohedral lattice; permutohedral.py is its plain twin."""

import numpy as np
from numpy.typing import NDArray

from affinitynet.ops._numba import compiled
from affinitynet.ops._vectors import Count

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Offsets = NDArray[np.uint32]
Floats = NDArray[np.float32]

BLOCK = 128  # pixels handled side by side, so that arithmetic runs in vector registers
FEW = 1 << 16  # points that the hash table is made for at first: the fewer, the nearer they lie
RECENT = 2048  # points remembered in front of the hash table, small enough for the first cache
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads keys over the high bits


@compiled
def home(table: Ints, key: np.int64) -> np.int64:
    """Give the slot at which the search for a key begins."""
    return np.int64((np.uint64(key) * GOLDEN) >> np.uint64(32)) & (len(table) - 1)


@compiled
def find(table: Ints, points: Longs, key: np.int64) -> np.int64:
    """Give the slot that holds the key, or the empty one it belongs in.

    The table has 2^k numbers of points, 0 where a slot is empty; their keys are in points.
    """
    mask = len(table) - 1
    slot = home(table, key)
    while table[slot] != 0 and points[table[slot] - 1] != key:
        slot = (slot + 1) & mask
    return slot


@compiled
def place(
    positions: Floats,
    colors: Floats,
    order: Ints,
    sxy: np.float32,
    srgb: np.float32,
    scale: Floats,
    elevated: Floats,
) -> None:
    """Elevate a block's features (x / sxy, y / sxy, colors / srgb) into the lattice's plane.

    y = E f (Adams et al. 2010, page 5), with one rounding per operation and in the order of the
    reference, so that ties fall the same way. Writes elevated (d + 1, BLOCK).
    """
    running = np.zeros(BLOCK, np.float32)
    for j in range(len(scale), 0, -1):
        # Gathered first, so that the arithmetic below runs over plain lines. The last block may be
        # shorter: what is calculated beyond its pixels is never written.
        for p in range(len(order)):
            elevated[j, p] = colors[order[p], j - 3] if j > 2 else positions[j - 1, p]
        deviation = srgb if j > 2 else sxy
        for p in range(BLOCK):
            scaled = elevated[j, p] / deviation * scale[j - 1]
            elevated[j, p] = running[p] - np.float32(j) * scaled
            running[p] += scaled
    elevated[0] = running


@compiled
def enclose(elevated: Floats, rem0: Floats, rank: Ints, axes: Count) -> None:
    """Find the simplex around each pixel of a block: its remainder-0 point and its order.

    All arrays are (d + 1, BLOCK). Writes rem0 and rank, and into elevated what is left over
    beside rem0, divided by d + 1.
    """
    D = len(axes)
    inverse = np.float32(1) / np.float32(D)
    total = np.zeros(BLOCK, np.int32)
    # The nearest point of remainder 0, coordinate by coordinate.
    for i in range(D):
        for p in range(BLOCK):
            nearest = np.rint(inverse * elevated[i, p])
            rem0[i, p] = nearest * np.float32(D)
            total[p] += np.int32(nearest)
        rank[i] = 0
    # The order of the residuals says which simplex around that point it is.
    for i in range(D - 1):
        for j in range(i + 1, D):
            for p in range(BLOCK):
                # Of equal residuals the first coordinate ranks first, as in the reference.
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
            elevated[i, p] = (elevated[i, p] - rem0[i, p]) * inverse


@compiled
def weigh(
    left: Floats,
    rem0: Floats,
    rank: Ints,
    strides: Longs,
    weights: Floats,
    keys: Longs,
    axes: Count,
) -> None:
    """Give the barycentric weights (pixels, d + 1) of a block and its corners' keys (d + 1, BLOCK).

    What is left of the coordinate of rank r is found by looking at all of them: d + 1 selections
    side by side for many pixels are faster than one write to a place that depends on the pixel.
    """
    D = len(axes)
    step = strides.sum()
    ranked = np.zeros((D, BLOCK), np.float32)
    for r in range(D):
        for i in range(D):
            for p in range(BLOCK):
                ranked[r, p] += np.float32(rank[i, p] == r) * left[i, p]
    for p in range(len(weights)):
        weights[p, 0] = ranked[D - 1, p] + (np.float32(1) - ranked[0, p])
        for k in range(1, D):
            weights[p, k] = ranked[D - 1 - k, p] - ranked[D - k, p]
    keys[0] = 0
    for i in range(D):
        for p in range(BLOCK):
            keys[0, p] += np.int64(rem0[i, p]) * strides[i]
    for k in range(1, D):
        # The next corner: one up in every coordinate, but d down in the largest left.
        for p in range(BLOCK):
            keys[k, p] = keys[k - 1, p] + step
        for i in range(D):
            drop = D * strides[i]
            for p in range(BLOCK):
                # -1 is a mask of ones: no branch.
                keys[k, p] -= -np.int64(rank[i, p] == D - k) & drop


@compiled
def number(
    keys: Longs,
    corners: Offsets,
    row: int,
    M: int,
    points: Longs,
    table: Ints,
    recent: Longs,
    axes: Count,
) -> int:
    """Look up the numbers of a block's corners, giving new ones to points not met before.

    Args:
        keys: (d + 1, BLOCK).
        corners: (pixels, d + 1), written.
        row: floats that a point takes.
        M: points so far.
        points: their keys, in order; with room for more, as the table.
        table: the hash table.
        recent: (RECENT, 2) likewise, of points met lately: no search, one per slot.

    Returns:
        The new M.
    """
    for p in range(len(corners)):
        for k in range(len(axes)):
            key = keys[k, p]
            # The highest 11 bits: 0 .. RECENT - 1.
            slot = (np.uint64(key) * GOLDEN) >> np.uint64(53)
            if recent[slot, 0] != key or recent[slot, 1] == 0:  # 0 is a key like others
                found = find(table, points, key)
                if table[found] == 0:
                    points[M] = key
                    M += 1
                    table[found] = M
                recent[slot, 0] = key
                recent[slot, 1] = table[found]
            corners[p, k] = np.uint32(recent[slot, 1] * row)
    return M


@compiled
def enter(points: Longs, table: Ints) -> None:
    """Make a table hold these points and nothing else, numbered from 1."""
    table[:] = 0
    for m in range(len(points)):
        table[find(table, points, points[m])] = m + 1


@compiled
def embed(
    positions: Floats,
    colors: Floats,
    order: Ints,
    sxy: np.float32,
    srgb: np.float32,
    scale: Floats,
    strides: Longs,
    row: int,
    axes: Count,
    corners: Offsets,
    weights: Floats,
    points: Longs,
    table: Ints,
) -> tuple[Longs, Ints]:
    """Embed pixels in the lattice and number the points around them.

    A lattice point is known by the sum of coordinate times stride over its first d coordinates;
    `permutohedral.key_strides` chooses strides for which this tells all points apart.

    Args:
        positions: (2, N), x and y in the order of the rows written.
        colors: (N, channels) in the image's order; none for a lattice of positions alone.
        order: (N,) the pixels' numbers in the image.
        sxy: deviation of positions.
        srgb: deviation of colors.
        scale: (d,) diagonal of the elevation matrix.
        strides: (d + 1,), the last one 0.
        row: floats that a point will take: its number times this is its offset.
        axes: a tuple as long as d + 1, see `_vectors`.
        corners: (rows, d + 1), written: the offsets of the points around each pixel; rows is N
            rounded up to whole blocks, and what is added is 0.
        weights: (rows, d + 1), written: the barycentric weights likewise.
        points: (room,) memory for the points' keys, room a power of two.
        table: (4 room,) memory for the hash table, of which no more is used than needed; for
            more points than there is room for, other memory is taken.

    Returns:
        The keys of the M points and the hash table, for `connect`. Points count from 1 in the
        order in which pixels first touch them.

    Raises:
        MemoryError: more points than 32 bits can address.
    """
    N = len(order)
    D = len(axes)
    weights[N:] = 0
    corners[N:] = 0
    elevated = np.zeros((D, BLOCK), np.float32)
    rem0 = np.zeros((D, BLOCK), np.float32)
    rank = np.zeros((D, BLOCK), np.int32)
    keys = np.zeros((D, BLOCK), np.int64)
    M = 0
    room = min(FEW, len(points))
    slots = table[: 4 * room]
    enter(points[:M], slots)
    recent = np.zeros((RECENT, 2), np.int64)

    for start in range(0, N, BLOCK):
        stop = min(start + BLOCK, N)
        if room < M + BLOCK * D:
            # A slot depends on the size of the table: all points so far are entered again.
            while room < M + BLOCK * D:
                room *= 4
            if room > len(points):
                longer = np.empty(room, np.int64)
                longer[:M] = points[:M]
                points = longer
                table = np.empty(4 * room, np.int32)
            slots = table[: 4 * room]
            enter(points[:M], slots)
        place(positions[:, start:stop], colors, order[start:stop], sxy, srgb, scale, elevated)
        enclose(elevated, rem0, rank, axes)
        weigh(elevated, rem0, rank, strides, weights[start:stop], keys, axes)
        M = number(keys, corners[start:stop], row, M, points, slots, recent, axes)
    if (M + 1) * row >= 2**32:
        raise MemoryError("the image has too many lattice points for the dense CRF: tile it")
    return points[:M], slots


@compiled
def connect(points: Longs, table: Ints, strides: Longs, row: int, neighbors: Offsets) -> None:
    """Write the offsets of the points before and after each point along each axis.

    neighbors: (d + 1, M + 1, 2); 0 stands for every point that is not there.
    """
    D = len(strides)
    neighbors[:] = 0
    keys = np.zeros(BLOCK, np.int64)
    held = np.zeros(BLOCK, np.int64)
    for axis in range(D):
        # A step along an axis is one up in every coordinate and d + 1 down in this one.
        ahead = strides.sum() - D * strides[axis]
        for start in range(0, len(points), BLOCK):
            here = points[start : start + BLOCK]
            # First only read: what depends on each answer, and half of them are a surprise, would
            # make every look-up wait for the one before.
            for p in range(len(here)):
                keys[p] = here[p] + ahead
                held[p] = table[home(table, keys[p])]
            for p in range(len(here)):
                other = held[p]
                if other != 0 and points[other - 1] != keys[p]:
                    other = np.int64(table[find(table, points, keys[p])])
                m = start + p + 1
                neighbors[axis, m, 1] = np.uint32(other * row)
                neighbors[axis, other, 0] = np.uint32(m * row)
        # What points without a neighbor have written.
        neighbors[axis, 0, 0] = 0
