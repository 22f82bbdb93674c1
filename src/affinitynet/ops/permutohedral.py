"""The permutohedral lattice: a Gaussian filter over any features, linear in the pixels.

Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", 2010.
Here in whole-tensor operations, for any device; `_lattice_kernels.py` is the CPU's faster twin.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad


class Lattice(NamedTuple):
    """Pixels in a lattice: what splat, blur and slice need."""

    corners: Tensor
    """(N, d + 1) int64: the lattice points around each pixel, counted from 1."""
    weights: Tensor
    """(N, d + 1) float32: their barycentric weights."""
    neighbors: Tensor
    """(d + 1, M + 1, 2) int64: the points before and after along each axis, 0 for none."""


def build_lattice(features: Tensor) -> Lattice:
    """Embed features in the lattice, number its points and find their neighbors.

    Args:
        features: (N, d) float32, scaled so that the filter's standard deviation is one.
    """
    N, d = features.shape
    D = d + 1
    scaled = features * torch.from_numpy(elevation_scale(d)).to(features)
    # y = E f (page 5), summed in the order of the reference so that ties fall the same way.
    elevated = features.new_empty(N, D)
    running = features.new_zeros(N)
    for j in range(d, 0, -1):
        elevated[:, j] = running - j * scaled[:, j - 1]
        running = running + scaled[:, j - 1]
    elevated[:, 0] = running
    # The nearest point of remainder 0; the order of the residuals tells the simplex around it.
    nearest = (elevated * (1 / D)).round()
    # Stable: of equal residuals the first coordinate ranks first, as in the reference.
    order = (elevated - nearest * D).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(D).to(order).expand(N, D))
    rank += nearest.sum(1, keepdim=True).long()
    # Coordinates that were rounded off the plane of sum zero go back to it.
    shift = (rank < 0).long() - (rank >= D).long()
    rank += D * shift
    nearest += shift
    ranked = torch.empty_like(elevated).scatter_(1, rank, (elevated - nearest * D) * (1 / D))
    weights = torch.empty_like(elevated)
    weights[:, 0] = ranked[:, d] + (1 - ranked[:, 0])  # the d + 1 weights of a pixel sum to one
    weights[:, 1:] = ranked[:, :d].flip(1) - ranked[:, 1:].flip(1)

    bounds = [bound.double().cpu().numpy() for bound in features.aminmax(dim=0)]
    strides = torch.from_numpy(key_strides(*bounds)).to(features.device)
    step = strides.sum()
    # Corner k: k up in every coordinate, but d + 1 down in the k of highest rank.
    lowered = torch.empty_like(order).scatter_(1, rank, strides.expand(N, D)).flip(1).cumsum(1)
    keys = (nearest.long() * D * strides).sum(1, keepdim=True).repeat(1, D)
    keys[:, 1:] += step * torch.arange(1, D).to(step) - D * lowered[:, :d]
    points, corners = keys.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    # A step along an axis is one up in every coordinate and d + 1 down in this one.
    steps = torch.stack([D * strides - step, step - D * strides], 1)
    beside = points[:, None] + steps[:, None]  # (D, M, 2): before and after
    # A key after the last has no place; the comparison finds that it is another one.
    place = torch.searchsorted(points, beside).clamp_(max=len(points) - 1)
    neighbors = pad(torch.where(points[place] == beside, place + 1, 0), (0, 0, 1, 0))
    return Lattice(corners + 1, weights, neighbors)


def filter_lattice(lattice: Lattice, values: Tensor) -> Tensor:
    """Filter values at the pixels: splat, blur with (1/2, 1, 1/2) per axis, slice.

    Args:
        lattice: of N pixels.
        values: (N, C).

    Returns:
        (N, C): about sum_j exp(-|f_i - f_j|^2 / 2) values_j, up to a constant factor.
    """
    corners, weights, neighbors = lattice
    D = len(neighbors)
    points = values.new_zeros(neighbors.shape[1], values.shape[1])
    for k in range(D):
        points.index_add_(0, corners[:, k], weights[:, k, None] * values)
    for axis in neighbors:
        points = points + 0.5 * (points[axis[:, 0]] + points[axis[:, 1]])
    gain = slice_gain(D)
    sliced = torch.zeros_like(values)
    for k in range(D):
        sliced += (weights[:, k, None] * gain) * points[corners[:, k]]
    return sliced


def slice_gain(D: int) -> float:
    """Give what the reference multiplies sliced values with, in a lattice of D axes."""
    return 1 / (1 + 2.0 ** (1 - D))


def elevation_scale(d: int) -> NDArray[np.float32]:
    """Give the diagonal of the elevation matrix E, for a blur of standard deviation one."""
    deviation = np.float32(math.sqrt(2 / 3) * (d + 1))
    steps = [float(deviation) / math.sqrt((i + 1) * (i + 2)) for i in range(d)]
    return np.array(steps, np.float32)


def key_strides(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.int64]:
    """Choose integers that turn lattice points into keys: sum of coordinate times stride.

    Where the points' range allows, that is a number in mixed radix, and exact. Where it does
    not (many channels, tiny deviations), the strides are odd 64-bit numbers and two of M points
    share a key with a chance of M² / 2^65, 3e-8 for a million.

    Args:
        low, high: (d,) bounds of the features.

    Returns:
        (d + 1,), the last 0: a point's last coordinate follows from the others.

    Raises:
        ValueError: features that are not finite, or so far from 0 that float32 cannot place them.
    """
    d = len(low)
    scale = elevation_scale(d).astype(np.float64)
    low, high = low * scale, high * scale
    cells = []
    # Coordinate i of E f is the sum of f_j from j = i on, less i f_(i-1).
    for i in range(d):
        top = high[i:].sum() - (i * low[i - 1] if i else 0)
        bottom = low[i:].sum() - (i * high[i - 1] if i else 0)
        # From there on float32 has less than 6 bits left for where in its cell a pixel lies.
        if not max(abs(top), abs(bottom)) < 2**18:
            raise ValueError(
                "the dense CRF's features must be finite and below about 50,000 deviations: "
                "check the image for NaN, or scale it, or raise bilateral_srgb or a sxy"
            )
        cells.append(math.ceil(top - bottom) + 6 * (d + 1))
    strides = [math.prod(cells[:i]) for i in range(d)]
    # Below, a sum of products fits into 63 bits and its sign. The odd number is a multiplier that
    # Steele and Vigna (2021) found to spread well.
    if math.prod(cells) >= 2**62:
        strides = [pow(0xD1342543DE82EF95, i + 1, 2**64) for i in range(d)]
    # numpy's int64 wraps around: the same 64 bits, read with a sign.
    signed = [(stride + 2**63) % 2**64 - 2**63 for stride in strides]
    return np.array([*signed, 0], np.int64)
