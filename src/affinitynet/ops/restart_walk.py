"""The walk that may begin again at any step: no number of steps to choose."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from affinitynet.ops.affinity import displacements, overlap
from affinitynet.ops.random_walk import check_walk, tolerance_of, walk_by

LEAST = 1e-6  # 8,000 products
_DOUBLE_UNDER = 1e-4  # where rounding in float32 would be over 1e-5


def restart_walk(
    maps: Tensor,
    affinity: Tensor,
    *,
    beta: float = 8,
    restart: float = 0.01,
    radius: float = 5,
) -> Tensor:
    """Let class maps spread until what spreads and what begins again are in balance.

    M* = r (I - (1 - r) S)^-1 M with S = D^-1/2 W D^-1/2, W as in `random_walk` and r the restart:
    the sum over all numbers of steps t, each weighed by the chance r (1 - r)^t that so many are
    made. A pixel without neighbors keeps its value; a constant map does not quite stay, as S is
    symmetric and pixels of many strong edges count more.

    The inverse is a sum of Chebyshev polynomials of S, as the power of `random_walk` is: about
    8 / sqrt(r) products with the maps. Differentiable once in both arguments.

    Args:
        maps: (B, K, h, w), any K; floating point.
        affinity: (B, P, h, w) in [0, 1] for the P displacements of `neighbor_offsets(radius)`.
            Entries of pairs that leave the grid are not read.
        beta: exponent above 0.
        restart: r, from 1e-6 to 1; 1 leaves the maps as they are.
        radius: that of the affinities.

    Returns:
        (B, K, h, w), float64 where an argument is float64, else float32; the error is under 5e-5
        of the largest value.

    Raises:
        ValueError: as `random_walk`; a restart out of range.

    Source: Zhou et al., NeurIPS 2003 (learning with local and global consistency).
    """
    if not LEAST <= restart <= 1:
        raise ValueError(f"restart must be from {LEAST} to 1, not {restart}")
    dtype = check_walk(maps, affinity, beta, radius)
    inner = dtype if restart >= _DOUBLE_UNDER else torch.float64
    maps, affinity = maps.to(inner), affinity.to(inner)
    coefficients = restart_coefficients(float(restart), tolerance_of(dtype))
    # S = D^1/2 T D^-1/2: a polynomial of S is that of T between two scalings.
    root = _degree(affinity**beta, radius).sqrt()[:, None]
    walked = walk_by(
        maps / root, affinity, radius, beta, coefficients, double=dtype == torch.float64
    )
    return (walked * root).to(dtype)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def restart_coefficients(restart: float, tolerance: float) -> tuple[float, ...]:
    """Expand r / (1 - (1 - r) x) in Chebyshev polynomials, as far as the tolerance asks.

    With a = 1 - r and q = (1 - sqrt(1 - a²)) / a it is r / sqrt(1 - a²) (1 + 2 sum_k q^k T_k(x)).
    Scaled to sum to one, the value at x = 1, as in `power_coefficients`.
    """
    return _restart_coefficients(restart, tolerance)


@lru_cache(maxsize=16)
def _restart_coefficients(restart: float, tolerance: float) -> tuple[float, ...]:
    stay = 1 - restart
    root = math.sqrt(1 - stay * stay)
    ratio = (1 - root) / stay if stay else 0.0
    terms = [1.0]
    # What is left out sums to 2 q^(k + 1) / (1 - q), times the factor in front.
    while 2 * restart / root * ratio ** len(terms) / (1 - ratio) > tolerance:
        terms.append(2 * ratio ** len(terms))
    total = math.fsum(terms)
    return tuple(term / total for term in terms)


def _degree(weights: Tensor, radius: float) -> Tensor:
    """Sum the weights of each pixel's edges, its own among them: (B, P, h, w) -> (B, h, w)."""
    height, width = weights.shape[-2:]
    degree = (
        torch.ones_like(weights[:, 0])
        if weights.shape[1]
        else weights.new_ones((len(weights), height, width))
    )
    for index, (dy, dx) in enumerate(displacements(radius)):
        (y1, y2), (x1, x2) = overlap(height, dy), overlap(width, dx)
        edges = weights[:, index, y1, x1]
        for rows, columns in ((y1, x1), (y2, x2)):
            added = torch.zeros_like(degree)
            added[:, rows, columns] = edges
            degree = degree + added
    return degree
