"""Semantic affinities of nearby pixels, their labels and their loss."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from affinitynet.ops._affinity_kernels import CHANNELS, sum_distances, sum_pulls
from affinitynet.ops._arguments import check_values
from affinitynet.ops._operators import Differentiable, call_once, is_traced, over_batches


class PairTargets(NamedTuple):
    """Which pairs teach what; each (B, P, h, w) bool, a pair is True in one of them at most."""

    background: Tensor
    foreground: Tensor
    negative: Tensor


class AffinityLoss(NamedTuple):
    """The loss and its three parts, each a scalar; the parts are not weighted."""

    total: Tensor
    background: Tensor
    foreground: Tensor
    negative: Tensor


def displacements(radius: float = 5) -> list[tuple[int, int]]:
    """Return the (dy, dx) of `neighbor_offsets` as plain numbers."""
    if not 1 <= radius < math.inf:
        raise ValueError(f"radius must be at least 1 and finite, not {radius}")
    reach = math.ceil(radius) - 1  # the longest whole step under the radius
    return [
        (dy, dx)
        for dy in range(reach + 1)
        for dx in range(-reach, reach + 1)
        if (dy > 0 or dx > 0) and dy * dy + dx * dx < radius * radius
    ]


def neighbor_offsets(radius: float = 5) -> Tensor:
    """List the displacements from a pixel to half of its neighbors.

    The half disc dy > 0, or dy = 0 and dx > 0, with dy² + dx² < radius² (strictly), ordered by
    dy, then dx. Every unordered pair of neighbors is one pixel and one displacement.

    Args:
        radius: at least 1; 5 gives 34 displacements, 1 gives none.

    Returns:
        (P, 2) int64 on the CPU, each row (dy, dx).

    Raises:
        ValueError: a radius under 1.

    Source: Ahn & Kwak, CVPR 2018, section 3.3; the order is the public code's.
    """
    return torch.tensor(displacements(radius), dtype=torch.int64).reshape(-1, 2)


def overlap(size: int, step: int) -> tuple[slice, slice]:
    """Return the two slices of an axis that hold the first and the second pixel of each pair."""
    length = max(size - abs(step), 0)
    return slice(max(-step, 0), max(-step, 0) + length), slice(max(step, 0), max(step, 0) + length)


@torch.library.custom_op(
    "affinitynet::pair_distance",
    mutates_args=(),
    schema="(Tensor features, float radius) -> Tensor",
)
def _pair_distance(features: Tensor, radius: float) -> Tensor:
    """Sum |f_i - f_j| over the channels: (B, D, h, w) -> (B, P, h, w)."""
    function = distance_numba if _is_compiled(features) else distance_torch
    return function(features, displacements(radius))


@_pair_distance.register_fake
def _(features: Tensor, radius: float) -> Tensor:
    batch, _, height, width = features.shape
    offsets = displacements(radius)
    row = width + _gap(width, offsets) if _is_compiled(features) else width
    return features.new_empty(batch, len(offsets), height, row)[..., :width]


@torch.library.custom_op(
    "affinitynet::pair_distance_backward",
    mutates_args=(),
    schema="(Tensor features, Tensor grad, float radius) -> Tensor",
)
def _pair_distance_backward(features: Tensor, grad: Tensor, radius: float) -> Tensor:
    compiled = _is_compiled(features)
    function = distance_backward_numba if compiled else distance_backward_torch
    return function(features, grad, displacements(radius))


@_pair_distance_backward.register_fake
def _(features: Tensor, grad: Tensor, radius: float) -> Tensor:
    if not _is_compiled(features):
        return torch.empty_like(features)
    batch, channels, height, width = features.shape
    row = width + _gap(width, displacements(radius))
    return features.new_empty(batch, channels, height, row)[..., :width]


_pair_distance.register_vmap(over_batches(_pair_distance))
_pair_distance_backward.register_vmap(over_batches(_pair_distance_backward))


class _PairDistance(Differentiable):
    """Sum of |f_i - f_j| over the channels, keeping the features alone for the backward pass."""

    @staticmethod
    def forward(features: Tensor, radius: float) -> Tensor:
        distance: Tensor = _pair_distance(features, radius)
        return distance

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        features, ctx.radius = inputs
        ctx.save_for_backward(features)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        return call_once(_pair_distance_backward, features, grad, ctx.radius), None


def _is_compiled(features: Tensor) -> bool:
    # The kernels know float32 alone; float64 is for derivatives checked by differences.
    return features.device.type == "cpu" and features.dtype == torch.float32


def distance_torch(features: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """Sum |f_i - f_j| in plain torch, displacement by displacement; 0 outside the grid."""
    batch, _, height, width = features.shape
    distance = features.new_zeros(batch, len(offsets), height, width)
    # One displacement at a time: all differences together would be (B, P, D, h, w).
    for index, (dy, dx) in enumerate(offsets):
        (y1, y2), (x1, x2) = overlap(height, dy), overlap(width, dx)
        difference = features[..., y1, x1] - features[..., y2, x2]
        distance[:, index, y1, x1] = difference.abs_().sum(1)
    return distance


def distance_backward_torch(
    features: Tensor, grad: Tensor, offsets: Sequence[tuple[int, int]]
) -> Tensor:
    """Calculate the gradient of `distance_torch` in the features."""
    height, width = features.shape[-2:]
    result = torch.zeros_like(features)
    for index, (dy, dx) in enumerate(offsets):
        (y1, y2), (x1, x2) = overlap(height, dy), overlap(width, dx)
        pull = (features[..., y1, x1] - features[..., y2, x2]).sign_()
        pull *= grad[:, index, None, y1, x1]
        result[..., y1, x1] += pull
        result[..., y2, x2] -= pull
    return result


def _lines(
    features: Tensor, offsets: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.float32], NDArray[np.int64], int, int]:
    """Lay the planes out for the kernels: lines (B, D, n), shifts, places in front, row length."""
    batch, channels, _, width = features.shape
    # A displacement goes back by up to `reach` rows and `reach` places more: hence one row more
    # than the reach above and below. Channels of zeros make up a multiple of what the kernel takes
    # in one pass, and add nothing to a distance.
    reach, gap = _reach(offsets), _gap(width, offsets)
    more = -channels % CHANNELS
    framed = pad(features, (0, gap, reach + 1, reach + 1, 0, more)).contiguous()
    stride = width + gap
    shifts = np.array([dy * stride + dx for dy, dx in offsets], np.int64)
    lines = framed.reshape(batch, channels + more, -1).numpy()
    return lines, shifts, (reach + 1) * stride, stride


def _reach(offsets: Sequence[tuple[int, int]]) -> int:
    return max((abs(step) for offset in offsets for step in offset), default=0)


def _gap(width: int, offsets: Sequence[tuple[int, int]]) -> int:
    """Return the places between two rows of a line, which begin at multiples of the vectors."""
    reach = _reach(offsets)
    return reach + -(width + reach) % 8


def distance_numba(features: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """Sum |f_i - f_j| in a compiled kernel; not to be read outside the grid."""
    batch, _, height, width = features.shape
    lines, shifts, lead, stride = _lines(features.detach(), offsets)
    distance = torch.empty(batch, len(offsets), height, stride)
    for planes, result in zip(lines, distance.flatten(2).numpy(), strict=True):
        sum_distances(planes, shifts, lead, result)
    return distance[..., :width]


def distance_backward_numba(
    features: Tensor, grad: Tensor, offsets: Sequence[tuple[int, int]]
) -> Tensor:
    """Calculate the gradient of `distance_numba` in the features; it is 0 outside the grid."""
    batch, channels, height, width = features.shape
    lines, shifts, lead, stride = _lines(features, offsets)
    # The kernel meets each pair from its second pixel too and reads the pull `shift` places
    # before it: in front of the grid that must be 0.
    framed = pad(grad, (0, stride - width, lead // stride, 0)).contiguous()
    pulls = framed.flatten(2).numpy()
    gradient = torch.empty(batch, channels, height, stride)
    for planes, pull, result in zip(lines, pulls, gradient.flatten(2).numpy(), strict=True):
        sum_pulls(planes, shifts, lead, pull, result)
    return gradient[..., :width]


def outside(features: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """Mark the pairs (P, h, w) whose second pixel is not on the grid of (..., h, w)."""
    height, width = features.shape[-2:]
    steps = torch.tensor(offsets, dtype=torch.int64, device=features.device).reshape(-1, 2, 1)
    rows = torch.arange(height, device=features.device) + steps[:, 0]
    columns = torch.arange(width, device=features.device) + steps[:, 1]
    beside = (columns < 0) | (columns >= width)
    return (rows >= height)[:, :, None] | beside[:, None, :]


def pairwise_affinity(features: Tensor, radius: float = 5, reduction: str = "mean") -> Tensor:
    """Predict how likely each pixel and each of its neighbors belong to the same class.

    W_ij = exp(-mean_d |f_i - f_j|) with i = (y, x) and j = (y + dy, x + dx); with
    `reduction="sum"` exp(-||f_i - f_j||_1), the paper's own form (the public code divides the
    norm by the number of channels). 0 where j falls outside the grid.

    Differentiable once; beside the features and the result it keeps nothing for the backward
    pass, least of all the (B, P, D, h, w) differences.

    Args:
        features: (B, D, h, w) floating point, any h and w from 1. Half precision is
            converted to float32, and so is the result.
        radius: as in `neighbor_offsets`.
        reduction: "mean" or "sum" over the D channels.

    Returns:
        (B, P, h, w) in [0, 1], float32 or float64.

    Raises:
        ValueError: features of another shape, not floating point or not finite (those that are
            being trained are not checked), an unknown reduction, a radius under 1.

    Source: Ahn & Kwak, CVPR 2018, equation 3.
    """
    if features.ndim != 4:
        raise ValueError(f"features are (B, D, h, w), not {tuple(features.shape)}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is 'mean' or 'sum', not {reduction!r}")
    if not features.requires_grad:  # a training notices by its loss, without waiting for the GPU
        check_values(features, "features")
    return affinity_of(features, radius, reduction)


def affinity_of(features: Tensor, radius: float, reduction: str) -> Tensor:
    """Predict affinities, values unchecked: the caller can name the image and the stage."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    scale = features.shape[1] if reduction == "mean" else 1
    distance: Tensor = _PairDistance.apply(features, float(radius))
    # Whatever a kernel leaves there, and the 0 of plain torch, would leave exp as an affinity.
    beyond = outside(features, displacements(radius))
    return torch.exp(distance / -scale).masked_fill(beyond, 0)


def affinity_targets(labels: Tensor, radius: float = 5, ignore_index: int = 255) -> PairTargets:
    """Turn a map of confident labels into labels of pixel pairs.

    A pair is positive where both pixels have the same label (background pairs and foreground
    pairs are kept apart, they are balanced in the loss), negative where the labels differ, and
    in none of the masks where either is neutral or falls outside the grid.

    Args:
        labels: (B, h, w) integers: 0 background, from 1 the classes, `ignore_index` neutral.
        radius: as in `neighbor_offsets`.
        ignore_index: the neutral label.

    Returns:
        PairTargets(background, foreground, negative), each (B, P, h, w) bool, pairs ordered as
        in `neighbor_offsets`.

    Raises:
        ValueError: labels of another shape, negative or no integers, a radius under 1.

    Source: Ahn & Kwak, CVPR 2018, section 3.3.
    """
    if labels.ndim != 3:
        raise ValueError(f"labels are (B, h, w), not {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels are integers, not {labels.dtype}")
    if labels.numel() and not is_traced(labels) and labels.min() < 0:
        raise ValueError(f"labels are at least 0, not {int(labels.min())}")
    offsets = displacements(radius)
    reach = math.ceil(radius) - 1
    height, width = labels.shape[-2:]
    first = labels.to(torch.int32)[:, None]  # uint8 could not hold every ignore_index
    # The frame around the grid is neutral, which rules out the pairs that leave it.
    framed = pad(first, (reach, reach, 0, reach), value=ignore_index)
    second = torch.cat(
        [framed[..., dy : dy + height, reach + dx : reach + dx + width] for dy, dx in offsets]
        or [first[:, :0]],  # radius 1 has no pair, and cat takes no empty list
        dim=1,
    )
    known = (first != ignore_index) & (second != ignore_index)
    same = known & (first == second)
    is_background = first == 0
    return PairTargets(same & is_background, same & ~is_background, known & (first != second))


def cropped_pairs(pairs: Tensor, radius: float = 5) -> Tensor:
    """Drop the pairs that the original code leaves out at the borders.

    The public code takes the first pixel of a pair from rows 0..h-radius and columns
    radius-1..w-radius only, so that all displacements stay inside the grid; 10 corner pixels
    are then without any neighbor. For comparison with it: apply this to affinities before
    `random_walk`, or to each mask of `affinity_targets`.

    Args:
        pairs: (..., h, w), affinities or a mask of pairs.
        radius: as in `neighbor_offsets`.

    Returns:
        (..., h, w): the same with zeros (False) for the pairs left out.

    Source: github.com/jiwoon-ahn/psa.
    """
    reach = math.ceil(radius) - 1
    height, width = pairs.shape[-2:]
    result = torch.zeros_like(pairs)
    # Both slices are empty where the grid is too small.
    rows, columns = slice(0, max(height - reach, 0)), slice(reach, max(width - reach, reach))
    result[..., rows, columns] = pairs[..., rows, columns]
    return result


def affinity_loss(affinity: Tensor, targets: PairTargets) -> AffinityLoss:
    """Cross-entropy of pair affinities, the three kinds of pairs balanced.

    L = L_bg / 4 + L_fg / 4 + L_neg / 2, where each part is the mean over its pairs in the whole
    batch of -log(W + 1e-5) for positive pairs and of -log(1 + 1e-5 - W) for negative ones, the
    counts increased by 1e-5: a part without pairs is 0. This is a quarter of the paper's
    L_bg + L_fg + 2 L_neg.

    Args:
        affinity: (B, P, h, w) from `pairwise_affinity`.
        targets: from `affinity_targets`.

    Returns:
        AffinityLoss(total, background, foreground, negative), scalars.

    Raises:
        ValueError: affinities and targets of different shapes, targets that are not bool,
            affinities outside of [0, 1] (those that are being trained are not checked).

    Source: Ahn & Kwak, CVPR 2018, equations 4 to 6; the small constants are the public code's.
    """
    if any(mask.dtype != torch.bool for mask in targets):
        raise ValueError(f"targets are bool, not {', '.join(str(m.dtype) for m in targets)}")
    if not affinity.requires_grad:
        check_values(affinity, "affinity", 0, 1)
    if any(affinity.shape != mask.shape for mask in targets):
        raise ValueError(
            f"affinity {tuple(affinity.shape)} and targets {tuple(targets.background.shape)} must "
            "match: make both with one radius and one grid"
        )

    def mean_over(mask: Tensor, values: Tensor) -> Tensor:
        # The 1e-5 keeps values finite where the mask is False: 0 times infinity would be NaN.
        # values[mask] in its place would make the CPU wait for the GPU to count.
        return (mask * values).sum() / (mask.sum() + 1e-5)

    attract = -torch.log(affinity + 1e-5)
    repel = -torch.log(1 + 1e-5 - affinity)
    background = mean_over(targets.background, attract)
    foreground = mean_over(targets.foreground, attract)
    negative = mean_over(targets.negative, repel)
    total = background / 4 + foreground / 4 + negative / 2
    return AffinityLoss(total, background, foreground, negative)
