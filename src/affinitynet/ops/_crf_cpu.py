"""The dense CRF on the CPU: lattices and mean field of one image, on the compiled kernels."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affinitynet.ops import _crf_kernels, _lattice_kernels
from affinitynet.ops._mean_field import Settings
from affinitynet.ops.permutohedral import elevation_scale, key_strides

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

TILE = 16  # pixels; the lattice points of one tile stay in the first-level cache
KEPT = 1 << 20  # pixels up to which the lattice of positions is kept for the next image


class Kernel(NamedTuple):
    """One of the CRF's two Gaussians over an image, its weights normalised."""

    corners: Ints
    weights: Floats
    neighbours: Ints


class Layout(NamedTuple):
    """What depends on the image's size alone."""

    order: Ints
    positions: Floats
    near: Kernel


def mean_field(image: Tensor, unary: Tensor, settings: Settings) -> Tensor:
    """Run the mean field for label sets (A, L, H * W) on an image (H, W, channels) float32."""
    H, W, channels = image.shape
    layout = _layout if H * W <= KEPT else _layout.__wrapped__
    order, positions, near = layout(H, W, settings.gaussian_sxy, settings.gaussian_compat)
    far = _kernel(
        order,
        positions,
        image.contiguous().numpy().reshape(H * W, channels),
        settings.bilateral_sxy,
        settings.bilateral_srgb,
        settings.bilateral_compat,
    )
    q = _crf_kernels.mean_field(unary.contiguous().numpy(), order, settings.iterations, *far, *near)
    return torch.from_numpy(q)


@lru_cache(maxsize=8)
def _layout(H: int, W: int, sxy: float, compat: float) -> Layout:
    grid = np.arange(H * W, dtype=np.int32).reshape(H, W)
    corners = [(y, x) for y in range(0, H, TILE) for x in range(0, W, TILE)]
    order = np.concatenate([grid[y : y + TILE, x : x + TILE].ravel() for y, x in corners])
    positions = np.stack([order % W, order // W]).astype(np.float32)
    none = np.empty((H * W, 0), np.float32)
    return Layout(order, positions, _kernel(order, positions, none, sxy, 1, compat))


def _kernel(
    order: Ints, positions: Floats, colours: Floats, sxy: float, srgb: float, compat: float
) -> Kernel:
    channels = colours.shape[1]
    low, high = (colours.min(), colours.max()) if channels else (0, 0)
    strides = key_strides(
        np.array([0, 0] + [low] * channels) / ([sxy] * 2 + [srgb] * channels),
        np.array([*positions.max(1)] + [high] * channels) / ([sxy] * 2 + [srgb] * channels),
    )
    scale = elevation_scale(2 + channels)
    corners, weights, neighbours = _lattice_kernels.build(
        positions, colours, order, np.float32(sxy), np.float32(srgb), scale, strides
    )
    _crf_kernels.normalize(corners, weights, neighbours, float(compat))
    return Kernel(corners, weights, neighbours)
