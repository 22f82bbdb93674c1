"""The dense CRF on the CPU: lattices and mean field of one image, on the compiled kernels."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from affinitynet.ops import _crf_kernels, _lattice_kernels
from affinitynet.ops._crf_kernels import Kernel
from affinitynet.ops._mean_field import Settings
from affinitynet.ops._memory import Memory, New, fresh
from affinitynet.ops._numba import call
from affinitynet.ops._vectors import Count, count
from affinitynet.ops.permutohedral import elevation_scale, key_strides

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Offsets = NDArray[np.uint32]

TILE = 16  # pixels; the lattice points of one tile stay in the first-level cache
WIDTHS = (2, 4, 8)  # channels side by side; each is compiled once, however many labels there are
ROOM = 1 << 18  # lattice points for which memory is kept; there may be more
KEPT = 1 << 18  # pixels up to which memory and the lattice of positions are kept for the next image

_memory = Memory()


class Layout(NamedTuple):
    """What depends on the image's size alone, and on its place in a larger one."""

    order: Ints
    positions: Floats
    near: Kernel


def mean_field(image: Tensor, unary: Tensor, settings: Settings) -> Tensor:
    """Run the mean field for label sets (A, L, H * W) on an image (H, W, channels) float32.

    The unary energies, contiguous, are overwritten by the result.

    Raises:
        CannotCompileError: a kernel does not compile; the unary energies are then as they were.
    """
    H, W, _ = image.shape
    channels = unary.shape[0] * (unary.shape[1] - 1)  # the last label follows from the others
    lanes = count(next((width for width in WIDTHS if channels <= width), WIDTHS[-1]))
    row = max(1, -(-channels // len(lanes))) * len(lanes)  # floats of a lattice point
    _memory.clear()
    layout, new = (_layout, _memory.new) if H * W <= KEPT else (_layout.__wrapped__, fresh)
    order, positions, near = layout(
        H, W, settings.origin, settings.gaussian_sxy, settings.gaussian_compat, row, lanes
    )
    far = _kernel(
        order,
        positions,
        image.contiguous().numpy().reshape(H * W, -1),
        settings.bilateral_sxy,
        settings.bilateral_srgb,
        settings.bilateral_compat,
        row,
        lanes,
        new,
    )
    # Three rows of floats a lattice point and a float a pixel and channel: see the kernel.
    points = far.neighbors.shape[1] + near.neighbors.shape[1]
    memory = new((3 * points * row + len(far.corners) * channels,), np.float32)
    kernel, energies = _crf_kernels.mean_field, unary.numpy()
    call(kernel, energies, order, settings.iterations, far, near, row, lanes, memory)
    return unary


@lru_cache(maxsize=16)
def _layout(
    H: int, W: int, origin: tuple[int, int], sxy: float, compat: float, row: int, lanes: Count
) -> Layout:
    grid = np.arange(H * W, dtype=np.int32).reshape(H, W)
    corners = [(y, x) for y in range(0, H, TILE) for x in range(0, W, TILE)]
    order = np.concatenate([grid[y : y + TILE, x : x + TILE].ravel() for y, x in corners])
    positions = np.stack([order % W + origin[1], order // W + origin[0]]).astype(np.float32)
    none = np.empty((H * W, 0), np.float32)
    near = _kernel(order, positions, none, sxy, 1, compat, row, lanes, fresh)
    return Layout(order, positions, near)


def _kernel(
    order: Ints,
    positions: Floats,
    colors: Floats,
    sxy: float,
    srgb: float,
    compat: float,
    row: int,
    lanes: Count,
    new: New,
) -> Kernel:
    channels = colors.shape[1]
    low, high = (colors.min(), colors.max()) if channels else (0, 0)
    deviations = np.array([sxy] * 2 + [srgb] * channels)
    # The features' bounds, in deviations: from them follow the lattice points' keys.
    strides = key_strides(
        np.array([*positions.min(1)] + [low] * channels) / deviations,
        np.array([*positions.max(1)] + [high] * channels) / deviations,
    )
    axes = count(3 + channels)
    rows = -(-len(order) // _crf_kernels.BLOCK) * _crf_kernels.BLOCK
    corners = new((rows, len(axes)), np.uint32)
    weights = new((rows, len(axes)), np.float32)
    points, table = call(
        _lattice_kernels.embed,
        positions,
        colors,
        order,
        np.float32(sxy),
        np.float32(srgb),
        elevation_scale(2 + channels),
        strides,
        row,
        axes,
        corners,
        weights,
        new((ROOM,), np.int64),
        new((4 * ROOM,), np.int32),
    )
    neighbors = new((len(axes), len(points) + 1, 2), np.uint32)
    call(_lattice_kernels.connect, points, table, strides, row, neighbors)
    kernel = Kernel(corners, weights, neighbors, axes)
    memory = new((2, neighbors.shape[1] * row), np.float32)
    call(_crf_kernels.normalize, kernel, row, float(compat), lanes, memory)
    return kernel
