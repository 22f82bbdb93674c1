"""The dense CRF's mean field on a GPU: eight launches an iteration, and no atomic additions.

Both lattices are one here: the points of the second are numbered after those of the first, a
pixel has the corners of both, and the axes that only one of them has change nothing in the other.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from affinitynet.ops._mean_field import Settings, kernel_features
from affinitynet.ops._triton import launch
from affinitynet.ops.permutohedral import Lattice, build_lattice, slice_gain

# Of a program that splats: points, pixels of each that are summed side by side, and channels; then
# the numbers of one that blurs, and of one that slices.
POINTS, PIXELS, MOST_CHANNELS = 4, 8, 8
BLURRED, SLICED = 256, 256


class Lattices(NamedTuple):
    """What splat, blur and slice need of K corners of each of N pixels, and M points."""

    corners: Tensor
    """(K, N) int32: the points around each pixel, counted from 1."""
    weights: Tensor
    """(K, N) float32: the share of each corner, to splat and to slice with."""
    neighbors: Tensor
    """(axes, M + 1, 2) int32: the points before and after along each axis, 0 for none."""
    order: Tensor
    """(K N) int32: the places in corners, sorted by point."""
    shares: Tensor
    """(K N) float32: the weights in that order."""
    starts: Tensor
    """(M + 2) int32: where in it a point's places begin, and at last where all end."""


def mean_field(image: Tensor, unary: Tensor, settings: Settings) -> Tensor:
    """Run the mean field as that of `_mean_field.py` does, with the same lattices.

    Args:
        image: (H, W, channels) float32, on the GPU; so is the result.
        unary: (A, L, H * W) energies of A label sets, contiguous.
        settings: those of `dense_crf`.

    Returns:
        Q, (A, L, H * W).
    """
    A, L, N = unary.shape
    kernels = [(build_lattice(f), compat) for f, compat in kernel_features(image, settings)]
    lattices = _normalized(_joined([lattice for lattice, _ in kernels]), kernels)
    q = unary.new_empty(N, A * L)  # the labels of a pixel side by side, for what gathers them
    _label(q, q, lattices, unary, messages=0)
    for _ in range(settings.iterations):
        _label(q, _filter(q, lattices), lattices, unary, messages=len(lattices.corners))
    return q.T.reshape(A, L, N)


def _joined(parts: list[Lattice]) -> Lattices:
    axes, first = max(len(part.neighbors) for part in parts), 0
    corners, neighbors = [], []
    for part in parts:
        corners.append(part.corners.T + first)
        around = part.neighbors[:, 1:]
        around = torch.where(around > 0, around + first, 0)
        # An axis without neighbors leaves all values as they are.
        neighbors.append(pad(around, (0, 0, 0, 0, 0, axes - len(around))))
        first += around.shape[1]
    corner = torch.cat(corners).int()
    weights = torch.cat([part.weights.T for part in parts])
    points, order = corner.flatten().sort(stable=True)  # sums in the same order every time
    starts = torch.searchsorted(points, torch.arange(first + 2).to(points))
    return Lattices(
        corner,
        weights,
        pad(torch.cat(neighbors, 1), (0, 0, 1, 0)).int(),
        order.int(),
        weights.flatten()[order],
        starts.int(),
    )


def _normalized(lattices: Lattices, kernels: list[tuple[Lattice, float]]) -> Lattices:
    """Let the weights hold all that both kernels are multiplied with, half on each side.

    compat n K n with n = 1 / sqrt(K 1): a corner's weight times n sqrt(compat), when it splats and
    when it slices.
    """
    corners, weights = lattices.corners, lattices.weights
    ones = _filter(torch.ones_like(weights[0])[:, None], lattices)
    around = weights * ones[corners, 0]
    parts = torch.split(around, [len(lattice.neighbors) for lattice, _ in kernels])
    factors = []
    for part, (_, compat) in zip(parts, kernels, strict=True):
        gain = slice_gain(len(part))
        norm = (gain * part.sum(0) + 1e-20).rsqrt()  # finite, as in the reference
        factors.append((math.sqrt(gain * compat) * norm).expand_as(part))
    weights = weights * torch.cat(factors)
    return lattices._replace(weights=weights, shares=weights.flatten()[lattices.order])


def _filter(values: Tensor, lattices: Lattices) -> Tensor:
    """Splat values (N, C) and blur them along each axis: (M + 1, C), none at point 0."""
    count, rows = values.shape[1], len(lattices.starts) - 1
    points, blurred = (values.new_empty(rows, count) for _ in range(2))
    channels = min(triton.next_power_of_2(count), MOST_CHANNELS)
    grid = (triton.cdiv(rows, POINTS), triton.cdiv(count, channels))
    launch(
        *(_splat, grid, values, *lattices[3:], points, rows, len(values), count),
        CHANNELS=channels,
        POINTS=POINTS,
        PIXELS=PIXELS,
        num_warps=1,
    )
    blocks, neighbors = (triton.cdiv(points.numel(), BLURRED),), lattices.neighbors
    for axis in range(len(neighbors)):
        launch(*(_blur, blocks, points, neighbors, blurred, axis, rows, count), BLOCK=BLURRED)
        points, blurred = blurred, points
    return points


def _label(q: Tensor, points: Tensor, lattices: Lattices, unary: Tensor, messages: int) -> None:
    """Write softmax(-U + the messages of the first corners) into q (N, A L)."""
    A, L, N = unary.shape
    labels = triton.next_power_of_2(L)
    pixels = max(SLICED // labels, 1)
    launch(
        *(_slice, (triton.cdiv(N, pixels), A), q, points, lattices.corners, lattices.weights),
        *(unary, messages, N, L),
        LABELS=labels,
        PIXELS=pixels,
    )


@triton.jit(do_not_specialize=["rows", "size", "count"])  # type: ignore[untyped-decorator]
def _splat(
    values: tl.tensor,
    order: tl.tensor,
    shares: tl.tensor,
    starts: tl.tensor,
    points: tl.tensor,
    rows: tl.tensor,
    size: tl.tensor,
    count: tl.tensor,
    CHANNELS: tl.constexpr,
    POINTS: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    """Sum up what the pixels around a point give it."""
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)[:, None, None]
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, None, :]
    inside = point < rows
    start = tl.load(starts + point, mask=inside, other=0)
    end = tl.load(starts + point + 1, mask=inside, other=0)
    total = tl.zeros((POINTS, PIXELS, CHANNELS), tl.float32)
    for done in range(0, tl.max(end - start), PIXELS):
        at = start + done + tl.arange(0, PIXELS)[None, :, None]
        pixel = tl.load(order + at, mask=at < end, other=0) % size
        share = tl.load(shares + at, mask=at < end, other=0.0)
        asked = (at < end) & (channel < count)
        total += share * tl.load(values + pixel * count + channel, mask=asked, other=0.0)
    summed = tl.sum(total, axis=1)[:, None, :]
    asked = inside & (channel < count)
    tl.store(points + point * count + channel, summed, mask=asked)


@triton.jit(do_not_specialize=["axis", "rows", "count"])  # type: ignore[untyped-decorator]
def _blur(
    points: tl.tensor,
    neighbors: tl.tensor,
    blurred: tl.tensor,
    axis: tl.tensor,
    rows: tl.tensor,
    count: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Add to each point half of its two neighbors along an axis."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, row, channel = at < rows * count, at // count, at % count
    pair = neighbors + 2 * (axis * rows + row)
    before = tl.load(pair, mask=inside, other=0) * count + channel
    after = tl.load(pair + 1, mask=inside, other=0) * count + channel
    around = tl.load(points + before, mask=inside) + tl.load(points + after, mask=inside)
    tl.store(blurred + at, tl.load(points + at, mask=inside) + 0.5 * around, mask=inside)


@triton.jit(do_not_specialize=["messages", "size", "labels"])  # type: ignore[untyped-decorator]
def _slice(
    q: tl.tensor,
    points: tl.tensor,
    corners: tl.tensor,
    weights: tl.tensor,
    unary: tl.tensor,
    messages: tl.tensor,
    size: tl.tensor,
    labels: tl.tensor,
    LABELS: tl.constexpr,
    PIXELS: tl.constexpr,
) -> None:
    """Gather the messages of a pixel's corners and make probabilities of them, for a label set."""
    label_set, count = tl.program_id(1), tl.num_programs(1) * labels
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None]
    label = tl.arange(0, LABELS)[None, :]
    inside, here = pixel < size, (pixel < size) & (label < labels)
    channel = label_set * labels + label
    energy = tl.load(unary + channel * size + pixel, mask=here, other=0.0)
    score = tl.where(label < labels, -energy, -float("inf"))
    for corner in range(messages):
        point = tl.load(corners + corner * size + pixel, mask=inside, other=0)
        weight = tl.load(weights + corner * size + pixel, mask=inside, other=0.0)
        score += weight * tl.load(points + point * count + channel, mask=here, other=0.0)
    power = tl.exp(score - tl.max(score, axis=1)[:, None])
    tl.store(q + pixel * count + channel, power / tl.sum(power, axis=1)[:, None], mask=here)
