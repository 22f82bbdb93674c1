"""The random walk that spreads class scores along affinities."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from affinitynet.ops._arguments import check_count, check_exponent, check_values
from affinitynet.ops._operators import Differentiable, call_once, over_batches
from affinitynet.ops._walk_back import walk_back
from affinitynet.ops._walk_kernels import walk
from affinitynet.ops.affinity import displacements, outside, overlap

MOST_STEPS = 10**9
_MOST_STEPS_SINGLE = 10_000  # rounding makes an error of 1e-5 there, of 5e-5 at ten times as many
# Largest sum of dropped coefficients: the error relative to the largest value, in the main.
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def random_walk(
    maps: Tensor, affinity: Tensor, *, beta: float = 8, steps: int = 256, radius: float = 5
) -> Tensor:
    """Let class maps walk over the graph of affinities.

    M* = T^steps M with T = D^-1 W, W_ij = affinity_ij^beta between neighbors (all those inside
    the grid), W_ii = 1, D_ii = sum_j W_ij: every step replaces a value by the weighted average
    of its neighborhood. A constant map stays, and so does a pixel without neighbors.

    T is never built and never squared. Its eigenvalues are real and in [-1, 1], since it is
    similar to the symmetric D^-1/2 W D^-1/2, and there x^t is a short sum of Chebyshev
    polynomials: about 4.4 sqrt(t) products of T with the maps replace t of them. Differentiable
    once in both arguments.

    Args:
        maps: (B, K, h, w), any K; floating point.
        affinity: (B, P, h, w) in [0, 1] for the P displacements of `neighbor_offsets(radius)`.
            Entries of pairs that leave the grid are not read.
        beta: exponent above 0; the larger, the more weak edges stop the walk.
        steps: t, from 0 to 1e9.
        radius: that of the affinities.

    Returns:
        (B, K, h, w), float64 where an argument is float64, else float32. In float32 the error
        is under 5e-5 of the largest value: over 10,000 steps, where rounding would add up to more,
        the walk is calculated in float64.

    Raises:
        ValueError: shapes that do not fit each other or the radius; maps that are not finite,
            affinities outside of [0, 1], or either not floating point; beta, or steps, out of range
            or not whole; over 10,000 steps on a device without float64.

    Source: Ahn & Kwak, CVPR 2018, section 3.4; the polynomial is our own way to T^t.
    """
    check_count(steps, "steps", MOST_STEPS)
    dtype = check_walk(maps, affinity, beta, radius)
    coefficients = power_coefficients(int(steps), tolerance_of(dtype))
    inner = dtype if steps <= _MOST_STEPS_SINGLE else torch.float64
    if inner == torch.float64 and maps.device.type == "mps":
        raise ValueError(
            f"over {_MOST_STEPS_SINGLE:,} steps, not {steps:,}, take float64, which MPS lacks: "
            "move maps and affinity to the CPU"
        )
    maps, affinity = maps.to(inner), affinity.to(inner)
    return walk_by(maps, affinity, radius, beta, coefficients, double=dtype == torch.float64).to(
        dtype
    )


def check_walk(maps: Tensor, affinity: Tensor, beta: float, radius: float) -> torch.dtype:
    """Refuse what no walk can take, and return the type of its result.

    Raises:
        ValueError: as `random_walk`, for all but the steps.
    """
    offsets = displacements(radius)
    if maps.ndim != 4 or affinity.shape != (len(maps), len(offsets), *maps.shape[2:]):
        raise ValueError(
            f"maps {tuple(maps.shape)} and affinity {tuple(affinity.shape)} do not fit: radius "
            f"{radius} takes maps (B, K, h, w) and affinities (B, {len(offsets)}, h, w)"
        )
    check_exponent(beta, "beta")
    check_values(maps, "maps")
    # Not read, so pairs that leave the grid may hold anything.
    check_values(affinity.detach().masked_fill(outside(affinity, offsets), 0), "affinity", 0, 1)
    return torch.promote_types(torch.promote_types(maps.dtype, affinity.dtype), torch.float32)


def tolerance_of(dtype: torch.dtype) -> float:
    """Return the largest sum of coefficients to leave out of a polynomial."""
    return _TOLERANCE[dtype]


def walk_by(
    maps: Tensor,
    affinity: Tensor,
    radius: float,
    beta: float,
    coefficients: Sequence[float],
    *,
    double: bool = False,
) -> Tensor:
    """Calculate sum_k c_k T_k(T) maps; `double` keeps float64 from the kernel."""
    offsets = displacements(radius)
    recorded = torch.is_grad_enabled() and (maps.requires_grad or affinity.requires_grad)
    if maps.is_cpu and (recorded or not double):
        return walk_numba(maps, affinity, offsets, beta, coefficients)
    return walk_torch(maps, affinity, offsets, beta, coefficients)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def power_coefficients(power: int, tolerance: float) -> tuple[float, ...]:
    """Expand x^power in Chebyshev polynomials, as far as the tolerance asks.

    x^t = sum_k c_k T_k(x) with c_k = 2^(1-t) binom(t, (t-k)/2) for k of t's parity, else 0, and
    c_0 halved. c_k is the chance that t fair coins differ by k, so the coefficients sum to one
    and the dropped tail bounds the error on [-1, 1]. The kept ones are scaled to sum to one
    again: then a constant map stays exactly as it is.
    """
    return _power_coefficients(power, tolerance)


# All images of a run ask for the same ones.
@lru_cache(maxsize=16)
def _power_coefficients(power: int, tolerance: float) -> tuple[float, ...]:
    # Each from the one before; only their proportions matter, since they are scaled at the end.
    chances = [0.0, 1.0] if power % 2 else [0.5]
    for ahead in range(power % 2, power - 1, 2):
        ratio = (power - ahead) / (power + ahead + 2) * (2 if ahead == 0 else 1)
        chances += [0.0, chances[ahead] * ratio]
        if chances[-1] < 1e-20:
            # Far below any tolerance; without it a billion steps would make half a billion terms.
            break
    total = math.fsum(chances)
    degree, tail = len(chances) - 1, 0.0
    while degree > 0 and tail + chances[degree] / total <= tolerance:
        tail += chances[degree] / total
        degree -= 1
    total = math.fsum(chances[: degree + 1])
    return tuple(chance / total for chance in chances[: degree + 1])


def walk_numba(
    maps: Tensor,
    affinity: Tensor,
    offsets: Sequence[tuple[int, int]],
    beta: float,
    coefficients: Sequence[float],
) -> Tensor:
    """Walk in compiled kernels on the CPU, one thread, without the GIL; differentiable."""
    flat = [step for offset in offsets for step in offset]
    return cast(Tensor, _Kernels.apply(maps, affinity**beta, flat, list(coefficients)))


@torch.library.custom_op(
    "affinitynet::walk",
    mutates_args=(),
    schema="(Tensor maps, Tensor pairs, int[] offsets, float[] coefficients) -> Tensor",
)
def _walk(
    maps: Tensor, pairs: Tensor, offsets: Sequence[int], coefficients: Sequence[float]
) -> Tensor:
    """Calculate sum_k c_k T_k(T) M in the kernels; offsets: dy, dx, dy, dx and so on."""
    steps, terms = _constants(offsets, coefficients, maps)
    result = torch.empty_like(maps, memory_format=torch.contiguous_format)
    for sample, graph, output in zip(*_arrays(maps, pairs, result), strict=True):
        walk(sample, graph, steps, terms, output)
    return result


@_walk.register_fake
def _(maps: Tensor, pairs: Tensor, offsets: Sequence[int], coefficients: Sequence[float]) -> Tensor:
    return torch.empty_like(maps, memory_format=torch.contiguous_format)


@torch.library.custom_op(
    "affinitynet::walk_backward",
    mutates_args=(),
    schema="(Tensor maps, Tensor pairs, Tensor grad"
    ", int[] offsets, float[] coefficients) -> (Tensor, Tensor)",
)
def _walk_backward(
    maps: Tensor,
    pairs: Tensor,
    grad: Tensor,
    offsets: Sequence[int],
    coefficients: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Calculate the derivatives of `_walk` in the maps and the pairs' weights."""
    constants = _constants(offsets, coefficients, maps)
    found = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (maps, pairs)]
    for sample, graph, *others in zip(*_arrays(maps, pairs, grad, *found), strict=True):
        walk_back(sample, graph, *constants, *others)
    return found[0], found[1]


@_walk_backward.register_fake
def _(
    maps: Tensor,
    pairs: Tensor,
    grad: Tensor,
    offsets: Sequence[int],
    coefficients: Sequence[float],
) -> tuple[Tensor, Tensor]:
    one, other = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (maps, pairs))
    return one, other


_walk.register_vmap(over_batches(_walk))
_walk_backward.register_vmap(over_batches(_walk_backward))


class _Kernels(Differentiable):
    """sum_k c_k T_k(T) M and its derivatives in M and the pairs' weights, in the kernels."""

    @staticmethod
    def forward(
        maps: Tensor, pairs: Tensor, offsets: Sequence[int], coefficients: Sequence[float]
    ) -> Tensor:
        walked: Tensor = _walk(maps, pairs, offsets, coefficients)
        return walked

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        maps, pairs, ctx.offsets, ctx.coefficients = inputs
        ctx.save_for_backward(maps, pairs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        maps, pairs = ctx.saved_tensors
        found = call_once(_walk_backward, maps, pairs, grad, ctx.offsets, ctx.coefficients)
        return found[0], found[1], None, None


def _constants(
    offsets: Sequence[int], coefficients: Sequence[float], like: Tensor
) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    terms = torch.tensor(coefficients, dtype=like.dtype).numpy()
    return np.array(offsets, np.int64).reshape(-1, 2), terms


def _arrays(*tensors: Tensor) -> Iterator[NDArray[np.floating]]:
    """View tensors as the kernels take them: contiguous, without a record."""
    return (tensor.detach().contiguous().numpy() for tensor in tensors)


def walk_torch(
    maps: Tensor,
    affinity: Tensor,
    offsets: Sequence[tuple[int, int]],
    beta: float,
    coefficients: Sequence[float],
) -> Tensor:
    """Walk in plain torch: on any device, differentiable, and the twin of the CPU kernels."""
    return cast(
        Tensor,
        _Polynomial.apply(maps, _graph(affinity**beta, offsets), coefficients),
    )


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
