"""Affinities out of a map of class boundaries: what a boundary parts does not belong together."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from affinitynet.ops._arguments import check_values
from affinitynet.ops._boundary_kernels import add_at_places, largest_on_lines, places_on_lines
from affinitynet.ops._operators import Differentiable, call_once, over_batches
from affinitynet.ops.affinity import displacements, outside

Cell = tuple[int, int]


def line_cells(dy: int, dx: int) -> list[Cell]:
    """List the cells (y, x) on the line from (0, 0) to (dy, dx), from the one end to the other.

    A cell is on it if it lies in the box that both ends span and its center is nearer to the line
    than 1: a line is up to two cells thick, so that no diagonal boundary has a hole to slip
    through. Both ends belong to it.

    Source: Ahn et al., CVPR 2019 (IRN), and their public code.
    """
    rows = range(min(0, dy), max(0, dy) + 1)
    columns = range(min(0, dx), max(0, dx) + 1)
    length = dy * dy + dx * dx
    # The cross product is the distance to the line times its length.
    cells = [(y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 < length]
    return sorted(cells or [(0, 0)], key=lambda cell: abs(cell[0]) + abs(cell[1]))


def boundary_affinity(boundary: Tensor, radius: float = 5) -> Tensor:
    """Predict from class boundaries whether each pixel and its neighbors belong together.

    a_ij = 1 - max_k B_k over the cells k of `line_cells` between i = (y, x) and
    j = (y + dy, x + dx), both ends counted in; 0 where j falls outside the grid. The gradient goes
    through the largest entry, of equal ones through the first on the way from i to j.

    Args:
        boundary: (B, h, w) floating point in [0, 1], any h and w from 1. Half precision is
            converted to float32, and so is the result.
        radius: as in `neighbor_offsets`.

    Returns:
        (B, P, h, w) in [0, 1], float32 or float64, pairs ordered as in `neighbor_offsets`.

    Raises:
        ValueError: a boundary of another shape, not floating point or not in [0, 1] (one that is
            being trained is not checked), a radius under 1.

    Source: Ahn et al., CVPR 2019 (IRN), equation 3.
    """
    if boundary.ndim != 3:
        raise ValueError(f"boundary is (B, h, w), not {tuple(boundary.shape)}")
    if not boundary.requires_grad:  # a training notices by its loss, without waiting for the GPU
        check_values(boundary, "boundary", 0, 1)
    boundary = boundary.to(torch.promote_types(boundary.dtype, torch.float32))
    learns = torch.is_grad_enabled() and boundary.requires_grad
    largest: Tensor
    largest, _ = _LargestOnLine.apply(boundary, float(radius), learns)
    return (1 - largest).masked_fill(outside(boundary, displacements(radius)), 0)


@torch.library.custom_op(
    "affinitynet::largest_on_line",
    mutates_args=(),
    schema="(Tensor boundary, float radius, bool with_places) -> (Tensor, Tensor)",
)
def _largest_on_line(boundary: Tensor, radius: float, with_places: bool) -> tuple[Tensor, Tensor]:
    """Find the largest boundary on the line of each pair, and where: (B, h, w) -> (B, P, h, w)."""
    find = largest_numba if _is_compiled(boundary) else largest_torch
    return find(boundary, displacements(radius), with_places)


@_largest_on_line.register_fake
def _(boundary: Tensor, radius: float, with_places: bool) -> tuple[Tensor, Tensor]:
    batch, height, width = boundary.shape
    offsets = displacements(radius)
    compiled = _is_compiled(boundary)
    row = _frame(width, offsets)[0] if compiled else width
    largest = boundary.new_empty(batch, len(offsets), height, row)
    shape = largest.shape if with_places else (0,)
    places = largest.new_empty(shape, dtype=torch.int32 if compiled else torch.uint8)
    return largest[..., :width], places


@torch.library.custom_op(
    "affinitynet::largest_on_line_backward",
    mutates_args=(),
    schema="(Tensor places, Tensor grad, float radius) -> Tensor",
)
def _largest_on_line_backward(places: Tensor, grad: Tensor, radius: float) -> Tensor:
    # int32 are places along a line of the kernel, uint8 those of plain torch in a path.
    compiled = places.dtype == torch.int32
    function = largest_backward_numba if compiled else largest_backward_torch
    found: Tensor = function(places, grad, displacements(radius)).contiguous()
    return found


@_largest_on_line_backward.register_fake
def _(places: Tensor, grad: Tensor, radius: float) -> Tensor:
    batch, _, height, width = grad.shape
    return grad.new_empty(batch, height, width)


_largest_on_line.register_vmap(over_batches(_largest_on_line))
_largest_on_line_backward.register_vmap(over_batches(_largest_on_line_backward))


class _LargestOnLine(Differentiable):
    """The largest boundary on the line of each pair, and where it lies where that is asked for."""

    @staticmethod
    def forward(boundary: Tensor, radius: float, with_places: bool) -> tuple[Tensor, Tensor]:
        largest, places = _largest_on_line(boundary, radius, with_places)
        return largest, places

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.radius = inputs[1]
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return call_once(_largest_on_line_backward, places, grad, ctx.radius), None, None


def _is_compiled(boundary: Tensor) -> bool:
    # The kernels know float32 alone; float64 is for derivatives checked by differences.
    return boundary.device.type == "cpu" and boundary.dtype == torch.float32


def _reach(offsets: Sequence[Cell]) -> int:
    return max((abs(step) for offset in offsets for step in offset), default=0)


@lru_cache(maxsize=8)
def _window_cells(offsets: tuple[Cell, ...]) -> list[list[int]]:
    """List for the c-th cell of every path its place in the box (reach + 1, 2 reach + 1).

    Shorter paths go on with their first cell, the pixel itself, which changes no maximum.
    """
    reach = _reach(offsets)
    paths = [line_cells(*offset) for offset in offsets]
    longest = max(map(len, paths), default=0)
    return [
        [y * (2 * reach + 1) + reach + x for y, x in (p[c] if c < len(p) else p[0] for p in paths)]
        for c in range(longest)
    ]


def largest_torch(
    boundary: Tensor, offsets: Sequence[Cell], with_places: bool
) -> tuple[Tensor, Tensor]:
    """Find the largest value on each line, and which cell of its path holds it, in plain torch."""
    height, width = boundary.shape[-2:]
    reach = _reach(offsets)
    framed = pad(boundary, (reach, reach, 0, reach))
    windows = framed.unfold(1, height, 1).unfold(2, width, 1).flatten(1, 2)
    shape = (len(boundary), len(offsets), height, width)
    largest = boundary.new_zeros(shape)
    places = torch.zeros(shape if with_places else 0, dtype=torch.uint8, device=boundary.device)
    for number, cells in enumerate(_window_cells(tuple(offsets))):
        there = windows[:, cells]
        if number == 0:
            largest = there
            continue
        if with_places:
            places.masked_fill_(there > largest, number)
        largest = torch.maximum(largest, there)
    return largest, places


def largest_backward_torch(places: Tensor, grad: Tensor, offsets: Sequence[Cell]) -> Tensor:
    """Calculate the gradient of `largest_torch` in the boundary."""
    batch, pairs, height, width = grad.shape
    reach = _reach(offsets)
    side = 2 * reach + 1
    windows = grad.new_zeros(batch, (reach + 1) * side, height * width)
    for number, cells in enumerate(_window_cells(tuple(offsets))):
        pulls = (grad * (places == number)).flatten(2)
        # As a product, because adding by index is done in another order every time on a GPU.
        chosen = grad.new_zeros(len(windows[0]), pairs)
        chosen[cells, range(pairs)] = 1
        windows += chosen @ pulls
    framed = grad.new_zeros(batch, height + reach, width + 2 * reach)
    for index, one in enumerate(windows.view(batch, -1, height, width).unbind(1)):
        y, x = divmod(index, side)
        framed[:, y : y + height, x : x + width] += one
    return framed[:, :height, reach : reach + width]


def _frame(width: int, offsets: Sequence[Cell]) -> tuple[int, int]:
    """Return how far apart the rows of a line stand, and the places before and behind the grid."""
    # A path goes ahead by up to `reach` rows and `reach` places: hence one row more. Rows begin at
    # multiples of the vector length.
    reach = _reach(offsets)
    stride = -(-(width + reach) // 8) * 8
    return stride, (reach + 1) * stride


def _paths(stride: int, offsets: Sequence[Cell]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Write each path as shifts along a line: those of all paths, and where each one starts."""
    shifts: list[int] = []
    starts = [0]
    for offset in offsets:
        # The kernel begins with the pixel itself, and takes two cells a pass.
        own = [y * stride + x for y, x in line_cells(*offset)[1:]]
        shifts += own + own[-1:] * (len(own) % 2)
        starts.append(len(shifts))
    return np.array(shifts, np.int64), np.array(starts, np.int64)


def largest_numba(
    boundary: Tensor, offsets: Sequence[Cell], with_places: bool
) -> tuple[Tensor, Tensor]:
    """Find the largest value on each line, and where along the line it lies, in a kernel."""
    batch, height, width = boundary.shape
    stride, lead = _frame(width, offsets)
    shifts, starts = _paths(stride, offsets)
    rows = lead // stride
    lines = pad(boundary.detach(), (0, stride - width, rows, rows)).flatten(1).numpy()
    shape = (batch, len(offsets), height, stride)
    largest = torch.empty(shape)
    places = torch.empty(shape if with_places else 0, dtype=torch.int32)
    for index, (line, result) in enumerate(zip(lines, largest.flatten(2).numpy(), strict=True)):
        if with_places:
            found = places[index].flatten(1).numpy()
            places_on_lines(line, shifts, starts, lead, result, found)
        else:
            largest_on_lines(line, shifts, starts, lead, result)
    return largest[..., :width], places


def largest_backward_numba(places: Tensor, grad: Tensor, offsets: Sequence[Cell]) -> Tensor:
    """Calculate the gradient of `largest_numba` in the boundary; it is 0 outside the grid."""
    batch, _, height, width = grad.shape
    stride, lead = _frame(width, offsets)
    pulls = pad(grad, (0, stride - width)).flatten(2).contiguous().numpy()
    gradient = torch.zeros(batch, lead + height * stride + lead)
    for pull, place, line in zip(pulls, places.flatten(2).numpy(), gradient.numpy(), strict=True):
        add_at_places(pull, place, lead, line)
    return gradient[:, lead : lead + height * stride].view(batch, height, stride)[..., :width]
