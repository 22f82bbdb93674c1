"""The walk in whole-tensor operations: for any device, and the twin of the kernels."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from affinitynet.ops.affinity import overlap


def walk_torch(
    maps: Tensor, pairs: Tensor, offsets: Sequence[tuple[int, int]], coefficients: Sequence[float]
) -> Tensor:
    """Walk in plain torch: on any device, differentiable, and the twin of the CPU kernels."""
    return cast(Tensor, _Polynomial.apply(maps, _graph(pairs, offsets), coefficients))


def _graph(pairs: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """Lay out pair weights as a stencil of all neighbors, the pixel itself in the middle.

    (B, P, h, w) -> (B, 2 r + 1, 2 r + 1, h, w) with r the farthest displacement: entry (r + dy,
    r + dx) at (y, x) is the weight of the edge to (y + dy, x + dx).
    """
    batch, _, height, width = pairs.shape
    reach = max((abs(step) for offset in offsets for step in offset), default=0)
    weights = pairs.new_zeros(batch, 2 * reach + 1, 2 * reach + 1, height, width)
    weights[:, reach, reach] = 1
    for index, (dy, dx) in enumerate(offsets):
        (y1, y2), (x1, x2) = overlap(height, dy), overlap(width, dx)
        edges = pairs[:, index, y1, x1]
        weights[:, reach + dy, reach + dx, y1, x1] = edges
        weights[:, reach - dy, reach - dx, y2, x2] = edges
    return weights


def _windows(values: Tensor, side: int) -> Tensor:
    """View the neighbors' values: (B, h, w) -> (B, side, side, h, w), zero outside."""
    height, width = values.shape[-2:]
    framed = pad(values, (side // 2,) * 4)
    return framed.unfold(1, height, 1).unfold(2, width, 1)


def _flow(weights: Tensor, degree: Tensor, maps: Tensor) -> Tensor:
    """Calculate (T - I) maps, what one step would change.

    As a sum of differences, so that the rounding error follows the change and not the value:
    with T M in its place the error of T^t grows in proportion to t.
    """
    result = torch.empty_like(maps)
    # One map at a time: the differences of all together would be K times the graph.
    for index in range(maps.shape[1]):
        one = maps[:, index]
        differences = _windows(one, weights.shape[1]) - one[:, None, None]
        result[:, index] = differences.mul_(weights).sum((1, 2)) / degree
    return result


def _chebyshev(weights: Tensor, degree: Tensor, maps: Tensor, highest: int) -> Iterator[Tensor]:
    """Yield T_k(T) maps for k from 0 to the highest.

    T_{k+1} = 2 T T_k - T_{k-1}, summed up from its differences:
    T_{k+1} - T_k = (T_k - T_{k-1}) + 2 (T - I) T_k.
    """
    state, change = maps, torch.zeros_like(maps)
    yield state
    for k in range(highest):
        change = change + (2 if k else 1) * _flow(weights, degree, state)
        state = state + change
        yield state


class _Polynomial(torch.autograd.Function):
    """sum_k c_k T_k(T) M with its derivatives in M and W, without a record of every product."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weights: Tensor, coefficients: Sequence[float]) -> Tensor:
        ctx.save_for_backward(maps, weights)
        ctx.coefficients = coefficients
        result = torch.zeros_like(maps)
        states = _chebyshev(weights, weights.sum((1, 2)), maps, len(coefficients) - 1)
        for coefficient, state in zip(coefficients, states, strict=True):
            if coefficient:  # every second one is 0
                result.add_(state, alpha=coefficient)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        maps, weights = ctx.saved_tensors
        coefficients: Sequence[float] = ctx.coefficients
        degree = weights.sum((1, 2))
        highest, side = len(coefficients) - 1, weights.shape[1]
        # Calculated again: kept from the forward pass they would hold memory until now.
        states = list(_chebyshev(weights, degree, maps, highest))
        # a_k, the adjoint of state k, follows a_k = c_k g + 2 T' a_{k+1} - a_{k+2}, with T once
        # instead of twice on the way from state 0 to 1. T' = D T D^-1, so D^-1 a_k is kept.
        source = grad / degree[:, None]
        later, latest = torch.zeros_like(grad), torch.zeros_like(grad)
        grad_weights = torch.zeros_like(weights)
        for k in range(highest, -1, -1):
            adjoint = coefficients[k] * source
            if k < highest:
                stepped = latest + _flow(weights, degree, latest)
                adjoint += (2 if k > 0 else 1) * stepped - later
            later, latest = latest, adjoint
            if k > 0:
                state = states[k - 1]
                stepped = state + _flow(weights, degree, state)
                for one, before, after in zip(
                    adjoint.unbind(1), state.unbind(1), stepped.unbind(1), strict=True
                ):
                    # d (T M)_i / d W_ij = (M_j - (T M)_i) / D_i
                    grad_weights.addcmul_(
                        one[:, None, None],
                        _windows(before, side) - after[:, None, None],
                        value=2 if k > 1 else 1,
                    )
        return latest * degree[:, None], grad_weights, None
