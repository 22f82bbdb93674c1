"""CPU kernels of the mean field: splat, blur, slice and softmax of all label sets together.

Pixels come in blocks of BLOCK, in an order that keeps neighbours in the image together; channels
(labels less the last, of all label sets) in groups of LANES that share a vector register.
"""

import numpy as np
from numpy.typing import NDArray

from affinitynet.ops._lattice_kernels import BLOCK
from affinitynet.ops._numba import compiled
from affinitynet.ops._vectors import LANES, broadcast, float_of_bits, load, multiply_add, store

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]


@compiled
def exponential(x: np.float32) -> np.float32:
    """Give e^x within 3e-7 of it for -87 <= x <= 88; unlike libm's, many at a time.

    e^x = 2^n e^r with |r| <= ln(2) / 2, where seven terms of the power series are enough.
    """
    n = np.rint(x * np.float32(1.44269504))
    r = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
    series = np.float32(1 / 720)
    series = series * r + np.float32(1 / 120)
    series = series * r + np.float32(1 / 24)
    series = series * r + np.float32(1 / 6)
    series = series * r + np.float32(1 / 2)
    series = series * r + np.float32(1)
    series = series * r + np.float32(1)
    power = float_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))
    result: np.float32 = series * power
    return result


@compiled
def splat(values: Floats, block: Floats, corners: Ints, weights: Floats) -> None:
    """Add a block (groups, BLOCK, LANES) to its corners in values (M + 1, groups, LANES)."""
    groups = len(block)
    for g in range(groups):
        for p in range(BLOCK):
            pixel = load(block, (g * BLOCK + p) * LANES)
            for k in range(corners.shape[1]):
                point = (np.int64(corners[p, k]) * groups + g) * LANES
                weight = broadcast(weights[p, k])
                store(values, point, multiply_add(weight, pixel, load(values, point)))


@compiled
def blur(values: Floats, spare: Floats, neighbours: Ints) -> Floats:
    """Blur with (1/2, 1, 1/2) along each axis of the lattice; answer one of the two buffers.

    values, spare: (M + 1, groups, LANES), row 0 zero and left so; neighbours: (d + 1, M + 1, 2).
    """
    half = broadcast(np.float32(0.5))
    row = values.shape[1] * LANES
    for axis in range(len(neighbours)):
        for m in range(1, len(values)):
            before = np.int64(neighbours[axis, m, 0]) * row
            after = np.int64(neighbours[axis, m, 1]) * row
            for c in range(0, row, LANES):
                mixed = multiply_add(half, load(values, before + c), load(values, m * row + c))
                store(spare, m * row + c, multiply_add(half, load(values, after + c), mixed))
        values, spare = spare, values
    return values


@compiled
def slice_add(block: Floats, values: Floats, corners: Ints, weights: Floats) -> None:
    """Add the weighted corners of a block's pixels to block (groups, BLOCK, LANES)."""
    groups = len(block)
    for g in range(groups):
        for p in range(BLOCK):
            pixel = load(block, (g * BLOCK + p) * LANES)
            for k in range(corners.shape[1]):
                point = (np.int64(corners[p, k]) * groups + g) * LANES
                pixel = multiply_add(broadcast(weights[p, k]), load(values, point), pixel)
            store(block, (g * BLOCK + p) * LANES, pixel)


@compiled
def filter_ones(corners: Ints, weights: Floats, neighbours: Ints) -> Floats:
    """Splat ones, blur, slice: (rows,) sums of the kernel, less the constant 1 / (1 + 2^-d)."""
    values = np.zeros((neighbours.shape[1], 1, LANES), np.float32)
    block = np.ones((1, BLOCK, LANES), np.float32)
    for start in range(0, len(corners), BLOCK):
        stop = start + BLOCK
        splat(values, block, corners[start:stop], weights[start:stop])
    values = blur(values, np.zeros_like(values), neighbours)
    sums = np.empty(len(corners), np.float32)
    for start in range(0, len(corners), BLOCK):
        stop = start + BLOCK
        block[:] = 0
        slice_add(block, values, corners[start:stop], weights[start:stop])
        sums[start:stop] = block[0, :, 0]
    return sums


@compiled
def normalize(corners: Ints, weights: Floats, neighbours: Ints, compat: float) -> None:
    """Scale the weights in place so that slice(blur(splat(q))) is the whole message to a label.

    message = compat n filter(n q) with n = 1 / sqrt(filter(1)): both n and the root of the rest
    go into the weights.
    """
    rows, D = corners.shape
    gain = 1 / (1 + 2.0 ** (1 - D))
    sums = filter_ones(corners, weights, neighbours)
    for n in range(rows):
        factor = np.float32(np.sqrt(compat * gain / (gain * sums[n] + 1e-20)))
        for k in range(D):
            weights[n, k] *= factor


@compiled
def update(
    mixed: Floats,
    excess: Floats,
    centre: np.float32,
    y: Floats,
    last: Floats,
    top: Floats,
    total: Floats,
) -> None:
    """Turn the messages in a block into Q - centre, for every label set.

    Messages are those of Q - 1 / L: the softmax does not see what is added to all labels, and
    these sum to zero over the labels, so the last one follows from the others. With
    y_l = (U_last - U_l) + (message_l - message_last), Q_l = e^y_l / (1 + sum e^y).

    Args:
        mixed: (groups, BLOCK, LANES) messages to all labels but the last; becomes Q - centre.
        excess: (A, L - 1, BLOCK), U_last - U_l.
        centre: 1 / L for the next iteration, 0 for the answer.
        y: (L - 1, BLOCK), overwritten.
        last: (A, BLOCK), Q of the last label, written.
        top, total: (BLOCK,), overwritten.
    """
    A, labels, _ = excess.shape
    for a in range(A):
        total[:] = 0
        for label in range(labels):
            g, lane = divmod(a * labels + label, LANES)
            for p in range(BLOCK):
                message = mixed[g, p, lane]
                total[p] += message
                y[label, p] = message + excess[a, label, p]
        large = 0
        for label in range(labels):
            for p in range(BLOCK):
                y[label, p] += total[p]
                large |= y[label, p] > np.float32(80)
        total[:] = 1
        if large != 0:  # only where e^y could overflow: measure from the largest instead
            top[:] = 0
            for label in range(labels):
                for p in range(BLOCK):
                    top[p] = max(top[p], y[label, p])
            for label in range(labels):
                for p in range(BLOCK):
                    y[label, p] -= top[p]
            for p in range(BLOCK):
                total[p] = exponential(max(-top[p], np.float32(-87)))
        for p in range(BLOCK):
            last[a, p] = total[p]
        for label in range(labels):
            for p in range(BLOCK):
                y[label, p] = exponential(max(y[label, p], np.float32(-87)))
                total[p] += y[label, p]
        for p in range(BLOCK):
            total[p] = np.float32(1) / total[p]
            last[a, p] *= total[p]
        for label in range(labels):
            g, lane = divmod(a * labels + label, LANES)
            for p in range(BLOCK):
                mixed[g, p, lane] = y[label, p] * total[p] - centre


@compiled
def subtract_last(unary: Floats, order: Ints, start: int, excess: Floats) -> None:
    """Fill a block's excess (A, L - 1, BLOCK) with U_last - U_l; unary (A, L, N)."""
    A, labels, _ = excess.shape
    for a in range(A):
        for label in range(labels):
            for p in range(min(BLOCK, len(order) - start)):
                n = order[start + p]
                excess[a, label, p] = unary[a, labels, n] - unary[a, label, n]


@compiled
def finish(mixed: Floats, last: Floats, order: Ints, start: int, result: Floats) -> None:
    """Write a block's Q to its pixels of result (A, L, N)."""
    A, L, N = result.shape
    for a in range(A):
        for label in range(L):
            g, lane = divmod(a * (L - 1) + label, LANES)
            for p in range(min(BLOCK, N - start)):
                value = mixed[g, p, lane] if label < L - 1 else last[a, p]
                result[a, label, order[start + p]] = value


@compiled
def mean_field(
    unary: Floats,
    order: Ints,
    iterations: int,
    corners: Ints,
    weights: Floats,
    neighbours: Ints,
    near_corners: Ints,
    near_weights: Floats,
    near_neighbours: Ints,
) -> Floats:
    """Run the mean field for all label sets of one image.

    Args:
        unary: (A, L, N) energies of A label sets.
        order: (N,) numbers of the pixels in the order of the lattices' rows.
        iterations: from 0.
        corners, weights, neighbours: the bilateral lattice, its weights from `normalize`.
        near_corners, near_weights, near_neighbours: the Gaussian lattice likewise.

    Returns:
        Q, (A, L, N).
    """
    A, L, N = unary.shape
    groups = max(1, (A * (L - 1) + LANES - 1) // LANES)
    blocks = len(corners) // BLOCK
    values = np.zeros((neighbours.shape[1], groups, LANES), np.float32)
    spare = np.zeros_like(values)
    splatted = np.zeros_like(values)
    near_values = np.zeros((near_neighbours.shape[1], groups, LANES), np.float32)
    near_spare = np.zeros_like(near_values)
    near_splatted = np.zeros_like(near_values)

    excess = np.zeros((blocks, A, L - 1, BLOCK), np.float32)
    result = np.empty((A, L, N), np.float32)
    mixed = np.zeros((groups, BLOCK, LANES), np.float32)
    y = np.zeros((L - 1, BLOCK), np.float32)
    last = np.zeros((A, BLOCK), np.float32)
    top = np.zeros(BLOCK, np.float32)
    sums = np.zeros(BLOCK, np.float32)

    for iteration in range(iterations + 1):
        for b in range(blocks):
            start = b * BLOCK
            stop = start + BLOCK
            mixed[:] = 0
            if iteration == 0:
                subtract_last(unary, order, start, excess[b])
            else:
                slice_add(mixed, values, corners[start:stop], weights[start:stop])
                slice_add(mixed, near_values, near_corners[start:stop], near_weights[start:stop])
            centre = np.float32(0 if iteration == iterations else 1 / L)
            update(mixed, excess[b], centre, y, last, top, sums)
            if iteration == iterations:
                finish(mixed, last, order, start, result)
            else:
                splat(splatted, mixed, corners[start:stop], weights[start:stop])
                splat(near_splatted, mixed, near_corners[start:stop], near_weights[start:stop])
        if iteration < iterations:
            blurred = blur(splatted, spare, neighbours)
            if len(neighbours) % 2 == 1:
                spare, splatted = splatted, spare
            values, splatted = blurred, values
            splatted[:] = 0
            blurred = blur(near_splatted, near_spare, near_neighbours)
            if len(near_neighbours) % 2 == 1:
                near_spare, near_splatted = near_splatted, near_spare
            near_values, near_splatted = blurred, near_values
            near_splatted[:] = 0
    return result
