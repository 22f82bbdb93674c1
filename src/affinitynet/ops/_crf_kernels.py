"""CPU kernels of the mean field: splat, blur, slice and softmax of all label sets together.

Pixels come in blocks of BLOCK, in an order that keeps neighbours in the image together; channels
(labels less the last, of all label sets) in groups that share a vector register. `lanes` and
`axes` are tuples as long as a group and as the lattice has axes, see `_vectors`.
"""

import numpy as np
from numpy.typing import NDArray

from affinitynet.ops._numba import compiled
from affinitynet.ops._vectors import (
    Count,
    broadcast,
    float_of_bits,
    load,
    multiply_add,
    store,
    transpose,
)

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Offsets = NDArray[np.uint32]

BLOCK = 512  # pixels a pass: many share the cost of its calls, and it fits the first-level cache


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
def splat(
    values: Floats, block: Floats, corners: Offsets, weights: Floats, axes: Count, lanes: Count
) -> None:
    """Add a block (groups, BLOCK, lanes) to its corners in values, rows of groups * lanes."""
    for g in range(len(block)):
        for p in range(BLOCK):
            pixel = load(block, (g * BLOCK + p) * len(lanes), lanes)
            for k in range(len(axes)):
                point = np.int64(corners[p, k]) + g * len(lanes)
                weight = broadcast(weights[p, k], lanes)
                store(values, point, multiply_add(weight, pixel, load(values, point, lanes)))


@compiled
def slice_add(
    block: Floats, values: Floats, corners: Offsets, weights: Floats, axes: Count, lanes: Count
) -> None:
    """Add the weighted corners of a block's pixels to block (groups, BLOCK, lanes)."""
    for g in range(len(block)):
        for p in range(BLOCK):
            pixel = load(block, (g * BLOCK + p) * len(lanes), lanes)
            for k in range(len(axes)):
                point = np.int64(corners[p, k]) + g * len(lanes)
                weight = broadcast(weights[p, k], lanes)
                pixel = multiply_add(weight, load(values, point, lanes), pixel)
            store(block, (g * BLOCK + p) * len(lanes), pixel)


@compiled
def blur(
    values: Floats, spare: Floats, neighbours: Offsets, row: int, used: int, lanes: Count
) -> Floats:
    """Blur with (1/2, 1, 1/2) along each axis of the lattice; answer one of the two buffers.

    values, spare: M + 1 rows, of which the first `used` floats are blurred; row 0 is zero and
    left so. neighbours: (d + 1, M + 1, 2) offsets.
    """
    half = broadcast(np.float32(0.5), lanes)
    for axis in range(len(neighbours)):
        for m in range(1, neighbours.shape[1]):
            before = np.int64(neighbours[axis, m, 0])
            after = np.int64(neighbours[axis, m, 1])
            for c in range(0, used, len(lanes)):
                here = load(values, m * row + c, lanes)
                here = multiply_add(half, load(values, before + c, lanes), here)
                here = multiply_add(half, load(values, after + c, lanes), here)
                store(spare, m * row + c, here)
        values, spare = spare, values
    return values


@compiled
def normalize(
    corners: Offsets,
    weights: Floats,
    neighbours: Offsets,
    row: int,
    compat: float,
    axes: Count,
    lanes: Count,
) -> None:
    """Scale the weights in place so that slice(blur(splat(q))) is the whole message to a label.

    message = compat n filter(n q) with n = 1 / sqrt(filter(1)): both n and the root of the rest
    go into the weights.
    """
    gain = 1 / (1 + 2.0 ** (1 - len(axes)))
    values = np.zeros(neighbours.shape[1] * row, np.float32)
    block = np.ones((1, BLOCK, len(lanes)), np.float32)
    for start in range(0, len(corners), BLOCK):
        stop = start + BLOCK
        splat(values, block, corners[start:stop], weights[start:stop], axes, lanes)
    values = blur(values, np.zeros_like(values), neighbours, row, len(lanes), lanes)
    for start in range(0, len(corners), BLOCK):
        stop = start + BLOCK
        block[:] = 0
        slice_add(block, values, corners[start:stop], weights[start:stop], axes, lanes)
        for p in range(BLOCK):
            total = gain * block[0, p, 0]  # filter(1)
            factor = np.float32(np.sqrt(compat * gain / (total + 1e-20)))
            for k in range(len(axes)):
                weights[start + p, k] *= factor


@compiled
def turn(block: Floats, turned: Floats, lanes: Count) -> None:
    """Lay a block (groups, BLOCK, lanes) out channel by channel: turned (groups * lanes, BLOCK)."""
    n = len(lanes)
    for g in range(len(block)):
        for p in range(0, BLOCK, n):
            transpose(block, (g * BLOCK + p) * n, n, turned, g * n * BLOCK + p, BLOCK, lanes)


@compiled
def turn_back(turned: Floats, block: Floats, lanes: Count) -> None:
    """Undo `turn`."""
    n = len(lanes)
    for g in range(len(block)):
        for p in range(0, BLOCK, n):
            transpose(turned, g * n * BLOCK + p, BLOCK, block, (g * BLOCK + p) * n, n, lanes)


@compiled
def update(
    messages: Floats,
    excess: Floats,
    centre: np.float32,
    last: Floats,
    top: Floats,
    total: Floats,
) -> None:
    """Turn the messages to a block's pixels into Q - centre, for every label set.

    Messages are those of Q - 1 / L: the softmax does not see what is added to all labels, and
    these sum to zero over the labels, so the last one follows from the others. With
    y_l = (U_last - U_l) + (message_l - message_last), Q_l = e^y_l / (1 + sum e^y).

    Args:
        messages: (channels, BLOCK), the first A (L - 1) of them to all labels but the last of
            each set; these become Q - centre.
        excess: (A, L - 1, BLOCK), U_last - U_l.
        centre: 1 / L for the next iteration, 0 for the answer.
        last: (A, BLOCK), Q of the last label, written.
        top, total: (BLOCK,), overwritten.
    """
    A, labels, _ = excess.shape
    for a in range(A):
        y = messages[a * labels : (a + 1) * labels]
        total[:] = 0
        for label in range(labels):
            for p in range(BLOCK):
                total[p] += y[label, p]
        top[:] = 0
        for label in range(labels):
            for p in range(BLOCK):
                y[label, p] += total[p] + excess[a, label, p]
                top[p] = max(top[p], y[label, p])
        large = 0
        for p in range(BLOCK):
            large |= top[p] > np.float32(80)
        total[:] = 1
        if large != 0:  # only where e^y could overflow: measure from the largest instead
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
            for p in range(BLOCK):
                y[label, p] = y[label, p] * total[p] - centre


@compiled
def subtract_last(unary: Floats, order: Ints, excess: Floats) -> None:
    """Fill a block's excess (A, L - 1, BLOCK) with U_last - U_l; unary (A, L, N)."""
    A, L, _ = unary.shape
    for a in range(A):
        for label in range(L - 1):
            for p in range(len(order)):
                n = np.uint32(order[p])
                excess[a, label, p] = unary[a, L - 1, n] - unary[a, label, n]


@compiled
def finish(q: Floats, last: Floats, order: Ints, result: Floats) -> None:
    """Write a block's Q, (channels, BLOCK), to its pixels of result (A, L, N)."""
    A, L, _ = result.shape
    for a in range(A):
        for p in range(len(order)):
            result[a, L - 1, np.uint32(order[p])] = last[a, p]
        for label in range(L - 1):
            for p in range(len(order)):
                result[a, label, np.uint32(order[p])] = q[a * (L - 1) + label, p]


@compiled
def mean_field(
    unary: Floats,
    order: Ints,
    iterations: int,
    corners: Offsets,
    weights: Floats,
    neighbours: Offsets,
    axes: Count,
    near_corners: Offsets,
    near_weights: Floats,
    near_neighbours: Offsets,
    near_axes: Count,
    row: int,
    lanes: Count,
) -> Floats:
    """Run the mean field for all label sets of one image.

    Args:
        unary: (A, L, N) energies of A label sets.
        order: (N,) numbers of the pixels in the order of the lattices' rows.
        iterations: from 0.
        corners, weights, neighbours, axes: the bilateral lattice, its weights from `normalize`.
        near_corners, near_weights, near_neighbours, near_axes: the Gaussian lattice likewise.
        row: floats of a lattice point: A (L - 1) rounded up to whole groups, as in the lattices.
        lanes: as long as a group of channels.

    Returns:
        Q, (A, L, N).
    """
    A, L, N = unary.shape
    groups = row // len(lanes)
    blocks = len(corners) // BLOCK
    values = np.zeros(neighbours.shape[1] * row, np.float32)
    spare = np.zeros_like(values)
    splatted = np.zeros_like(values)
    near_values = np.zeros(near_neighbours.shape[1] * row, np.float32)
    near_spare = np.zeros_like(near_values)
    near_splatted = np.zeros_like(near_values)

    excess = np.zeros((blocks, A, L - 1, BLOCK), np.float32)
    result = np.empty((A, L, N), np.float32)
    mixed = np.zeros((groups, BLOCK, len(lanes)), np.float32)
    turned = np.zeros((row, BLOCK), np.float32)
    last = np.zeros((A, BLOCK), np.float32)
    top = np.zeros(BLOCK, np.float32)
    sums = np.zeros(BLOCK, np.float32)

    for iteration in range(iterations + 1):
        centre = np.float32(0 if iteration == iterations else 1 / L)
        for b in range(blocks):
            start = b * BLOCK
            stop = start + BLOCK
            far = corners[start:stop], weights[start:stop], axes, lanes
            near = near_corners[start:stop], near_weights[start:stop], near_axes, lanes
            if iteration == 0:
                subtract_last(unary, order[start:stop], excess[b])
                turned[:] = 0
            else:
                mixed[:] = 0
                slice_add(mixed, values, *far)
                slice_add(mixed, near_values, *near)
                turn(mixed, turned, lanes)
            update(turned, excess[b], centre, last, top, sums)
            if iteration == iterations:
                finish(turned, last, order[start:stop], result)
            else:
                turn_back(turned, mixed, lanes)
                splat(splatted, mixed, *far)
                splat(near_splatted, mixed, *near)
        if iteration < iterations:
            blurred = blur(splatted, spare, neighbours, row, row, lanes)
            if len(axes) % 2 == 1:
                spare, splatted = splatted, spare
            values, splatted = blurred, values
            splatted[:] = 0
            blurred = blur(near_splatted, near_spare, near_neighbours, row, row, lanes)
            if len(near_axes) % 2 == 1:
                near_spare, near_splatted = near_splatted, near_spare
            near_values, near_splatted = blurred, near_values
            near_splatted[:] = 0
    return result
