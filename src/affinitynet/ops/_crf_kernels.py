"""CPU kernels of the mean field: splat, blur, slice and softmax of all label sets together.

Pixels come in blocks of BLOCK, in an order that keeps neighbors in the image together; channels
(labels less the last, of all label sets) in groups that share a vector register. `lanes` and
`axes` are tuples as long as a group and as the lattice has axes, see `_vectors`.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from affinitynet.ops._numba import compiled
from affinitynet.ops._vectors import (
    Count,
    any_over,
    broadcast,
    count,
    element,
    larger,
    load,
    nearest,
    power_of_two,
    store,
    transpose,
)

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Offsets = NDArray[np.uint32]

BLOCK = 512  # pixels a pass: many share the cost of its calls, and it fits the nearest caches
EIGHT = count(8)  # pixels side by side in the softmax


class Kernel(NamedTuple):
    """One of the CRF's two Gaussians over an image: its lattice, the weights normalized.

    corners: (pixels, d + 1) offsets of the lattice points around each pixel; the pixels are
        rounded up to whole blocks.
    weights: (pixels, d + 1), 0 for what was rounded up.
    neighbors: (d + 1, M + 1, 2) offsets of the points before and after along each axis.
    axes: a tuple as long as d + 1.
    """

    corners: Offsets
    weights: Floats
    neighbors: Offsets
    axes: Count


@compiled
def exponential(x: Any) -> Any:
    """Give e^x to a relative 3e-7, lane by lane; below e^-87 it stays there, up to e^88.

    e^x = 2^n e^r with |r| <= ln(2) / 2, where seven terms of the power series are enough.
    """
    x = larger(x, broadcast(np.float32(-87), EIGHT))
    # 1 / ln 2; then ln 2 in two parts, the first so short that n times it is exact.
    n = nearest(x * np.float32(1.44269504))
    r = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
    series = r * np.float32(1 / 720) + np.float32(1 / 120)
    series = series * r + np.float32(1 / 24)
    series = series * r + np.float32(1 / 6)
    series = series * r + np.float32(1 / 2)
    series = series * r + np.float32(1)
    series = series * r + np.float32(1)
    return series * power_of_two(n)


@compiled
def spread(values: Floats, pixel: Any, kernel: Kernel, p: int, shift: int, lanes: Count) -> None:
    """Add a pixel's channels, `shift` and those beside it, to the lattice points around it."""
    for k in range(len(kernel.axes)):
        at = p * len(kernel.axes) + k
        point = np.int64(element(kernel.corners, at)) + shift
        store(values, point, load(values, point, lanes) + element(kernel.weights, at) * pixel)


@compiled
def gather(values: Floats, pixel: Any, kernel: Kernel, p: int, shift: int, lanes: Count) -> Any:
    """Give a pixel's channels with those of the lattice points around it added."""
    for k in range(len(kernel.axes)):
        at = p * len(kernel.axes) + k
        point = np.int64(element(kernel.corners, at)) + shift
        pixel = pixel + element(kernel.weights, at) * load(values, point, lanes)
    return pixel


@compiled
def splat(
    far_values: Floats,
    near_values: Floats,
    block: Floats,
    start: int,
    far: Kernel,
    near: Kernel,
    lanes: Count,
) -> None:
    """Add a block (groups, BLOCK, lanes), the pixels from start on, to both lattices."""
    n = len(lanes)
    for g in range(len(block)):
        for i in range(BLOCK):
            pixel = load(block, (g * BLOCK + i) * n, lanes)
            spread(far_values, pixel, far, start + i, g * n, lanes)
            spread(near_values, pixel, near, start + i, g * n, lanes)


@compiled
def slice_both(
    block: Floats,
    far_values: Floats,
    near_values: Floats,
    start: int,
    far: Kernel,
    near: Kernel,
    lanes: Count,
) -> None:
    """Write what both lattices hold for the pixels from start on to a block."""
    n = len(lanes)
    for g in range(len(block)):
        for i in range(BLOCK):
            pixel = broadcast(np.float32(0), lanes)
            pixel = gather(far_values, pixel, far, start + i, g * n, lanes)
            pixel = gather(near_values, pixel, near, start + i, g * n, lanes)
            store(block, (g * BLOCK + i) * n, pixel)


@compiled
def blur(
    values: Floats, spare: Floats, neighbors: Offsets, row: int, used: int, lanes: Count
) -> Floats:
    """Blur with (1/2, 1, 1/2) along each axis of the lattice; return one of the two buffers.

    values, spare: M + 1 rows, of which the first `used` floats are blurred; row 0 is zero and
    left so. neighbors: (d + 1, M + 1, 2) offsets.
    """
    half = np.float32(0.5)
    for axis in range(len(neighbors)):
        # Row 0 stands for every missing neighbor.
        for m in range(1, neighbors.shape[1]):
            before = np.int64(neighbors[axis, m, 0])
            after = np.int64(neighbors[axis, m, 1])
            for c in range(0, used, len(lanes)):
                here = load(values, m * row + c, lanes)
                here = here + half * load(values, before + c, lanes)
                here = here + half * load(values, after + c, lanes)
                store(spare, m * row + c, here)
        # Not in place: a point's neighbors are needed as they were before this axis.
        values, spare = spare, values
    return values


@compiled
def normalize(kernel: Kernel, row: int, compat: float, lanes: Count, memory: Floats) -> None:
    """Scale the weights in place so that slice(blur(splat(q))) is the whole message to a label.

    message = compat n filter(n q) with n = 1 / sqrt(filter(1)): both n and the root of the rest
    go into the weights. memory: (2, (M + 1) row) floats to work in.
    """
    gain = 1 / (1 + 2.0 ** (1 - len(kernel.axes)))
    memory[:] = 0
    values, spare = memory
    total = np.empty(len(lanes), np.float32)
    one = broadcast(np.float32(1), lanes)
    nothing = broadcast(np.float32(0), lanes)
    for p in range(len(kernel.corners)):
        spread(values, one, kernel, p, 0, lanes)
    values = blur(values, spare, kernel.neighbors, row, len(lanes), lanes)
    for p in range(len(kernel.corners)):
        store(total, 0, gather(values, nothing, kernel, p, 0, lanes))
        factor = np.float32(np.sqrt(compat * gain / (gain * total[0] + 1e-20)))
        for k in range(len(kernel.axes)):
            kernel.weights[p, k] *= factor


@compiled
def turn(block: Floats, turned: Floats, lanes: Count) -> None:
    """Lay a block (groups, BLOCK, lanes) out as turned (BLOCK / 8, channels, 8)."""
    n = len(lanes)
    row = len(block) * n
    for g in range(len(block)):
        for p in range(0, BLOCK, n):
            at = p // 8 * 8 * row + g * n * 8 + p % 8
            transpose(block, (g * BLOCK + p) * n, n, turned, at, 8, lanes)


@compiled
def turn_back(turned: Floats, block: Floats, lanes: Count) -> None:
    """Undo `turn`."""
    n = len(lanes)
    row = len(block) * n
    for g in range(len(block)):
        for p in range(0, BLOCK, n):
            at = p // 8 * 8 * row + g * n * 8 + p % 8
            transpose(turned, at, 8, block, (g * BLOCK + p) * n, n, lanes)


@compiled
def update(messages: Floats, excess: Floats, b: int, center: np.float32, last: Floats) -> None:
    """Turn the messages to a block's pixels into Q - center, for every label set.

    Messages are those of Q - 1 / L: the softmax does not see what is added to all labels, and
    these sum to zero over the labels, so the last one follows from the others. With
    y_l = (U_last - U_l) + (message_l - message_last), Q_l = e^y_l / (1 + sum e^y).

    Args:
        messages: (BLOCK / 8, channels, 8), the first A (L - 1) channels to all labels but the
            last of each set; these become Q - center.
        excess: (blocks, BLOCK / 8, A, L - 1, 8), U_last - U_l.
        b: number of the block.
        center: 1 / L for the next iteration, 0 for the result.
        last: (BLOCK / 8, A, 8), Q of the last label, written.
    """
    _, eights, A, labels, _ = excess.shape
    row = messages.shape[1]
    nothing = broadcast(np.float32(0), EIGHT)
    # float32 ends at e^88: the rest is room for the sum over the labels.
    limit = broadcast(np.float32(80), EIGHT)
    for i in range(eights):
        for a in range(A):
            begin = (i * row + a * labels) * 8
            end = begin + labels * 8
            # A message's own excess lies this far ahead of it: no part of excess is handed over,
            # since addresses count from an array's beginning.
            ahead = ((b * eights + i) * A + a) * labels * 8 - begin
            total = nothing
            for at in range(begin, end, 8):
                total = total + load(messages, at, EIGHT)
            top = nothing
            for at in range(begin, end, 8):
                # total is -message_last: the messages sum to zero.
                y = load(messages, at, EIGHT) + (total + load(excess, ahead + at, EIGHT))
                store(messages, at, y)
                top = larger(y, top)
            total = nothing + np.float32(1)
            if any_over(top, limit):  # e^y could overflow: measure from the largest instead
                for at in range(begin, end, 8):
                    store(messages, at, load(messages, at, EIGHT) - top)
                total = exponential(nothing - top)
            other = total
            for at in range(begin, end, 8):
                power = exponential(load(messages, at, EIGHT))
                store(messages, at, power)
                total = total + power
            share = np.float32(1) / total
            store(last, (i * A + a) * 8, share * other)
            for at in range(begin, end, 8):
                store(messages, at, load(messages, at, EIGHT) * share - center)


@compiled
def subtract_last(unary: Floats, order: Ints, excess: Floats) -> None:
    """Fill a block's excess (BLOCK / 8, A, L - 1, 8) with U_last - U_l; unary (A, L, N).

    Where the image ends within the block, the rest becomes 0: what is splatted from there with
    weight 0 must be a number.
    """
    A, L, _ = unary.shape
    if len(order) < BLOCK:
        excess[:] = 0
    for a in range(A):
        for label in range(L - 1):
            for p in range(len(order)):
                n = np.uint32(order[p])
                excess[p // 8, a, label, p % 8] = unary[a, L - 1, n] - unary[a, label, n]


@compiled
def finish(q: Floats, last: Floats, order: Ints, result: Floats) -> None:
    """Write a block's Q, (BLOCK / 8, channels, 8), to its pixels of result (A, L, N)."""
    A, L, _ = result.shape
    for a in range(A):
        for p in range(len(order)):
            result[a, L - 1, np.uint32(order[p])] = last[p // 8, a, p % 8]
        for label in range(L - 1):
            for p in range(len(order)):
                result[a, label, np.uint32(order[p])] = q[p // 8, a * (L - 1) + label, p % 8]


@compiled
def mean_field(
    unary: Floats,
    order: Ints,
    iterations: int,
    far: Kernel,
    near: Kernel,
    row: int,
    lanes: Count,
    memory: Floats,
) -> None:
    """Run the mean field for all label sets of one image.

    Args:
        unary: (A, L, N) energies of A label sets, overwritten by the result Q.
        order: (N,) numbers of the pixels in the order of the lattices' rows.
        iterations: from 0.
        far: the bilateral lattice, its weights from `normalize`.
        near: the Gaussian lattice likewise.
        row: floats of a lattice point: A (L - 1) rounded up to whole groups, as in the lattices.
        lanes: as long as a group of channels.
        memory: to work in: 3 rows of floats for each point of both lattices, and a float for
            each pixel and channel.
    """
    A, L, _ = unary.shape
    blocks = len(far.corners) // BLOCK
    size = far.neighbors.shape[1] * row
    near_size = near.neighbors.shape[1] * row
    # First, since its size is whole cache lines.
    excess = memory[: blocks * A * (L - 1) * BLOCK].reshape(blocks, BLOCK // 8, A, L - 1, 8)
    memory = memory[blocks * A * (L - 1) * BLOCK :]
    # Row 0 of each buffer has to be zero, and splatting adds.
    memory[: 3 * (size + near_size)] = 0
    values, spare, splatted = memory[: 3 * size].reshape(3, size)
    memory = memory[3 * size :]
    near_values, near_spare, near_splatted = memory[: 3 * near_size].reshape(3, near_size)
    mixed = np.zeros((row // len(lanes), BLOCK, len(lanes)), np.float32)
    turned = np.zeros((BLOCK // 8, row, 8), np.float32)
    last = np.zeros((BLOCK // 8, A, 8), np.float32)

    for iteration in range(iterations + 1):
        center = np.float32(0 if iteration == iterations else 1 / L)
        for b in range(blocks):
            start = b * BLOCK
            if iteration == 0:
                subtract_last(unary, order[start : start + BLOCK], excess[b])
                turned[:] = 0  # no messages yet.
            else:
                slice_both(mixed, values, near_values, start, far, near, lanes)
                turn(mixed, turned, lanes)
            update(turned, excess, b, center, last)
            if iteration == iterations:
                finish(turned, last, order[start : start + BLOCK], unary)
            else:
                turn_back(turned, mixed, lanes)
                splat(splatted, near_splatted, mixed, start, far, near, lanes)
        if iteration < iterations:
            # Three buffers take turns: splatted into, blurred into, sliced from.
            blurred = blur(splatted, spare, far.neighbors, row, row, lanes)
            # After an odd number of axes it was `spare` that came back.
            if len(far.axes) % 2 == 1:
                spare, splatted = splatted, spare
            values, splatted = blurred, values
            splatted[:] = 0
            blurred = blur(near_splatted, near_spare, near.neighbors, row, row, lanes)
            if len(near.axes) % 2 == 1:
                near_spare, near_splatted = near_splatted, near_spare
            near_values, near_splatted = blurred, near_values
            near_splatted[:] = 0
