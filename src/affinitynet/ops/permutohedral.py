"""The permutohedral lattice: a Gaussian filter over any features, linear in the pixels.

Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", 2010.
Here in whole-tensor operations, for any device; `_lattice_kernels.py` is the CPU's faster twin.
"""

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor


class Lattice(NamedTuple):
    """Pixels in a lattice: what splat, blur and slice need."""

    corners: Tensor
    """(N, d + 1) int32: the lattice points around each pixel, counted from 1."""
    weights: Tensor
    """(N, d + 1) float32: their barycentric weights."""
    neighbours: Tensor
    """(d + 1, M + 1, 2) int32: the points before and after along each axis, 0 for none."""


def elevation_scale(d: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Give the diagonal of the elevation matrix E, for a blur of standard deviation one."""
    deviation = np.float32(math.sqrt(2 / 3) * (d + 1))
    steps = [float(deviation) / math.sqrt((i + 1) * (i + 2)) for i in range(d)]
    return np.array(steps, np.float32)


def key_strides(features: Tensor) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Choose integers that turn lattice points into keys: sum of coordinate times stride.

    Where the points' range allows, that is a number in mixed radix, and exact. Where it does
    not (many channels, tiny deviations), the strides are odd 64-bit numbers and two of M points
    share a key with a chance of M² / 2^65, 3e-8 for a million.

    Returns (d + 1,), the last 0: the last coordinate follows from the others.
    """
    d = features.shape[1]
    cells = np.zeros(d + 1, np.int64)
    scale = elevation_scale(d).astype(np.float64)
    low = features.amin(0).double().cpu().numpy() * scale
    high = features.amax(0).double().cpu().numpy() * scale
    for i in range(d):
        rest = slice(i, None)
        top = high[rest].sum() - (i * low[i - 1] if i else 0)
        bottom = low[rest].sum() - (i * high[i - 1] if i else 0)
        cells[i] = int(min(top - bottom, 2.0**40)) + 6 * (d + 1)
    strides = [1]
    for cell in cells[:-1]:
        strides.append(strides[-1] * int(cell))
    if strides[-1] >= 2**62:
        strides = [pow(0xD1342543DE82EF95, i + 1, 2**64) for i in range(d + 1)]
    signed = [(s + 2**63) % 2**64 - 2**63 for s in strides[:d]]
    return np.array([*signed, 0], np.int64)
