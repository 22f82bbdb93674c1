"""CPU kernels of the mean field: splat, blur, slice and softmax of all label sets together."""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from affinitynet.ops._numba import compiled, compiled_fast

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

LANES = 4  # channels that travel together in one vector register
BLOCK = 64  # pixels that go through slice, softmax and splat together, in the first-level cache


@intrinsic
def _float_of_bits(typingctx, bits):  # type: ignore[no-untyped-def]
    """Read the bits of an int32 as a float32."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@compiled
def exponential(x: float) -> float:
    """Give e^x for x <= 0 within 2e-7 of it, and at least e^-87; unlike libm's, in vectors.

    e^x = 2^n e^r with |r| <= ln(2) / 2, where seven terms of the power series are enough.
    """
    x = max(x, np.float32(-87))
    n = np.rint(x * np.float32(1.44269504))
    r = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
    series = np.float32(1 / 720)
    series = series * r + np.float32(1 / 120)
    series = series * r + np.float32(1 / 24)
    series = series * r + np.float32(1 / 6)
    series = series * r + np.float32(1 / 2)
    series = series * r + np.float32(1)
    series = series * r + np.float32(1)
    return series * _float_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))


@compiled
def blur(values: Floats, spare: Floats, neighbours: Ints) -> Floats:
    """Blur with (1/2, 1, 1/2) along each axis of the lattice; answer one of the two buffers.

    values, spare: (M + 1, groups, LANES), row 0 zero and left so; neighbours: (d + 1, M + 1, 2).
    """
    half = np.float32(0.5)
    groups = values.shape[1]
    for axis in range(len(neighbours)):
        for m in range(1, len(values)):
            before = neighbours[axis, m, 0]
            after = neighbours[axis, m, 1]
            for g in range(groups):
                for c in range(LANES):
                    spare[m, g, c] = values[m, g, c] + half * (
                        values[before, g, c] + values[after, g, c]
                    )
        values, spare = spare, values
    return values


@compiled_fast
def filter_ones(corners: Ints, weights: Floats, neighbours: Ints) -> Floats:
    """Splat ones, blur, slice: (N,) sums of the kernel, without the constant 1 / (1 + 2^-d)."""
    N, D = corners.shape
    values = np.zeros((neighbours.shape[1], 1, LANES), np.float32)
    for n in range(N):
        for k in range(D):
            values[corners[n, k], 0, 0] += weights[n, k]
    values[0] = 0
    values = blur(values, np.zeros_like(values), neighbours)
    sums = np.empty(N, np.float32)
    for n in range(N):
        total = np.float32(0)
        for k in range(D):
            total += weights[n, k] * values[corners[n, k], 0, 0]
        sums[n] = total
    return sums


@compiled
def normalize(corners: Ints, weights: Floats, neighbours: Ints, compat: float) -> Floats:
    """Scale the weights in place so that slice(blur(splat(q))) is the whole message to q's label.

    message = compat n filter(n q) with n = 1 / sqrt(filter(1)): both n and the root of the rest
    go into the weights. Returns (N,), the sum of the messages to all labels.
    """
    N, D = corners.shape
    alpha = np.float32(1 / (1 + 2.0 ** (1 - D)))
    sums = filter_ones(corners, weights, neighbours)
    for n in range(N):
        factor = np.float32(np.sqrt(compat * alpha / (alpha * sums[n] + np.float32(1e-20))))
        for k in range(D):
            weights[n, k] *= factor
    return filter_ones(corners, weights, neighbours)


@compiled_fast
def slice_block(
    out: Floats, values: Floats, corners: Ints, weights: Floats, start: int, size: int
) -> None:
    """Add the weighted corners of `size` pixels to out (groups, BLOCK, LANES)."""
    D = corners.shape[1]
    for g in range(values.shape[1]):
        for p in range(size):
            a = out[g, p, 0]
            b = out[g, p, 1]
            c = out[g, p, 2]
            d = out[g, p, 3]
            for k in range(D):
                w = weights[start + p, k]
                m = corners[start + p, k]
                a += w * values[m, g, 0]
                b += w * values[m, g, 1]
                c += w * values[m, g, 2]
                d += w * values[m, g, 3]
            out[g, p, 0] = a
            out[g, p, 1] = b
            out[g, p, 2] = c
            out[g, p, 3] = d


@compiled_fast
def splat_block(
    values: Floats, q: Floats, corners: Ints, weights: Floats, start: int, size: int
) -> None:
    """Add `size` pixels of q (groups, BLOCK, LANES) to their corners."""
    D = corners.shape[1]
    for g in range(values.shape[1]):
        for p in range(size):
            a = q[g, p, 0]
            b = q[g, p, 1]
            c = q[g, p, 2]
            d = q[g, p, 3]
            for k in range(D):
                w = weights[start + p, k]
                m = corners[start + p, k]
                values[m, g, 0] += w * a
                values[m, g, 1] += w * b
                values[m, g, 2] += w * c
                values[m, g, 3] += w * d


@compiled
def softmax_block(messages: Floats, unary: Floats, total: Floats, q: Floats, size: int) -> None:
    """Turn one label set's messages into Q, for a block of pixels.

    The softmax is taken relative to the last label, whose message is the total less the others.

    Args:
        messages: (L - 1, BLOCK).
        unary: (L, BLOCK) energies.
        total: (BLOCK,) sum of all labels' messages.
        q: (L, BLOCK), written.
        size: pixels in use.
    """
    L = len(q)
    top = np.empty(BLOCK, np.float32)
    for p in range(BLOCK):
        top[p] = total[p]
    for label in range(L - 1):
        for p in range(BLOCK):
            top[p] -= messages[label, p]
    for p in range(BLOCK):
        q[L - 1, p] = top[p] - unary[L - 1, p]
        top[p] = q[L - 1, p]
    for label in range(L - 1):
        for p in range(BLOCK):
            q[label, p] = messages[label, p] - unary[label, p]
            top[p] = max(top[p], q[label, p])
    scale = np.zeros(BLOCK, np.float32)
    for label in range(L):
        for p in range(BLOCK):
            q[label, p] = exponential(q[label, p] - top[p])
            scale[p] += q[label, p]
    for p in range(BLOCK):
        scale[p] = np.float32(1) / scale[p]
    for label in range(L):
        for p in range(BLOCK):
            q[label, p] *= scale[p]


@compiled
def mean_field(
    unary: Floats,
    iterations: int,
    corners: Ints,
    weights: Floats,
    neighbours: Ints,
    near_corners: Ints,
    near_weights: Floats,
    near_neighbours: Ints,
    total: Floats,
) -> Floats:
    """Run the mean field for all label sets of one image.

    Args:
        unary: (A, L, N) energies of A label sets.
        iterations: from 0.
        corners, weights, neighbours: the bilateral lattice, its weights from `normalize`.
        near_corners, near_weights, near_neighbours: the Gaussian lattice likewise.
        total: (N,) sum of the messages to all labels, over both kernels.

    Returns:
        Q, (A, L, N).
    """
    A, L, N = unary.shape
    channels = A * (L - 1)
    groups = (channels + LANES - 1) // LANES
    shape = (neighbours.shape[1], groups, LANES)
    near_shape = (near_neighbours.shape[1], groups, LANES)
    values = np.zeros(shape, np.float32)
    spare = np.zeros(shape, np.float32)
    gathered = np.zeros(shape, np.float32)
    near_values = np.zeros(near_shape, np.float32)
    near_spare = np.zeros(near_shape, np.float32)
    near_gathered = np.zeros(near_shape, np.float32)

    result = np.empty((A, L, N), np.float32)
    mixed = np.zeros((groups, BLOCK, LANES), np.float32)
    messages = np.zeros((groups * LANES, BLOCK), np.float32)
    energies = np.zeros((L, BLOCK), np.float32)
    sums = np.zeros(BLOCK, np.float32)
    q = np.zeros((L, BLOCK), np.float32)

    for iteration in range(iterations + 1):
        last = iteration == iterations
        for start in range(0, N, BLOCK):
            size = min(BLOCK, N - start)
            if iteration > 0:
                mixed[:] = 0
                slice_block(mixed, values, corners, weights, start, size)
                slice_block(mixed, near_values, near_corners, near_weights, start, size)
                for g in range(groups):
                    for p in range(BLOCK):
                        for c in range(LANES):
                            messages[LANES * g + c, p] = mixed[g, p, c]
                for p in range(size):
                    sums[p] = total[start + p]
            for a in range(A):
                for label in range(L):
                    for p in range(size):
                        energies[label, p] = unary[a, label, start + p]
                first = a * (L - 1)
                softmax_block(messages[first : first + L - 1], energies, sums, q, size)
                if last:
                    for label in range(L):
                        for p in range(size):
                            result[a, label, start + p] = q[label, p]
                else:
                    for label in range(L - 1):
                        g = (first + label) // LANES
                        c = (first + label) % LANES
                        for p in range(size):
                            mixed[g, p, c] = q[label, p]
            if not last:
                splat_block(gathered, mixed, corners, weights, start, size)
                splat_block(near_gathered, mixed, near_corners, near_weights, start, size)
        if not last:
            blurred = blur(gathered, spare, neighbours)
            if len(neighbours) % 2 == 1:
                spare, gathered = gathered, spare
            gathered, values = values, blurred
            gathered[:] = 0
            blurred = blur(near_gathered, near_spare, near_neighbours)
            if len(near_neighbours) % 2 == 1:
                near_spare, near_gathered = near_gathered, near_spare
            near_gathered, near_values = near_values, blurred
            near_gathered[:] = 0
    return result
