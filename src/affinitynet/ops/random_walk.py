"""The random walk that spreads class scores along affinities."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affinitynet.ops._arguments import check_count, check_exponent, check_values
from affinitynet.ops._operators import Differentiable, call_once, is_traced, over_batches
from affinitynet.ops._walk_back import walk_back
from affinitynet.ops._walk_choice import walk_cuda
from affinitynet.ops._walk_kernels import walk
from affinitynet.ops._walk_tensors import walk_torch
from affinitynet.ops.affinity import displacements, outside

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
    pairs = affinity**beta
    if maps.is_cpu and (recorded or not double):
        return walk_numba(maps, pairs, offsets, coefficients)
    if maps.is_cuda and not recorded and not (is_traced(maps) or is_traced(affinity)):
        return walk_cuda(maps, pairs, offsets, coefficients)
    return walk_torch(maps, pairs, offsets, coefficients)


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
    maps: Tensor, pairs: Tensor, offsets: Sequence[tuple[int, int]], coefficients: Sequence[float]
) -> Tensor:
    """Walk in compiled kernels on the CPU, one thread, without the GIL; differentiable."""
    flat = [step for offset in offsets for step in offset]
    return cast(Tensor, _Kernels.apply(maps, pairs, flat, list(coefficients)))


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
