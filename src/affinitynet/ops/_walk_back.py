"""The random walk's derivatives on one CPU thread: the Chebyshev recurrence, run backward.

With s_k = T_k(T) M and the adjoints a_k = c_k g + 2 T' a_{k+1} - a_{k+2}, an edge W_ij = W_ji gets

    sum_k 2 (b_i - b_j) (s_j - s_i) - 2 b_i f_i - 2 b_j f_j

over all steps from s = s_{k-1} to s_k, with b = D^-1 a_k, f = (T - I) s, and 1 for 2 where k = 1.
T' = D T D^-1, so that b follows the recurrence of s. Differences stand in place of products
throughout, as in the walk itself, so that the rounding error follows them and not the values.
"""

import numpy as np

from affinitynet.ops._numba import fused
from affinitynet.ops._walk_kernels import Floats, Integers, flow, lay_out

# Pixels whose derivatives for all displacements stay in the first-level cache.
_BLOCK = 128


@fused
def _follow(
    weights: Floats, shifts: Integers, rate: Floats, states: Floats, flows: Floats, lead: int
) -> None:
    """Fill states (steps, line) with s_k from s_0, and flows (steps, size) with (T - I) s_k."""
    size = len(rate)
    change = np.zeros(size, rate.dtype)
    for k in range(len(states)):
        now = flows[k]
        flow(weights, shifts, states[k], lead, 0, now)
        for i in range(size):
            now[i] *= rate[i]
        if k + 1 < len(states):
            factor = 2 if k else 1
            here, there = states[k, lead : lead + size], states[k + 1, lead : lead + size]
            for i in range(size):
                change[i] += factor * now[i]
                there[i] = here[i] + change[i]


@fused
def _return(
    weights: Floats,
    shifts: Integers,
    rate: Floats,
    source: Floats,
    coefficients: Floats,
    adjoints: Floats,
    lead: int,
) -> None:
    """Fill adjoints (steps + 1, line) with b_k from the last to b_0, from D^-1 g."""
    size = len(rate)
    change = np.zeros(size, rate.dtype)
    last = len(coefficients) - 1
    sums = np.zeros(size, rate.dtype)
    for k in range(last, -1, -1):
        there = adjoints[k, lead : lead + size]
        if k < last:
            here = adjoints[k + 1, lead : lead + size]
            flow(weights, shifts, adjoints[k + 1], lead, 0, sums)
            factor = 2 if k else 1
            # b_0 begins with T b_1 - b_2 where the others have 2 T b_{k+1} - b_{k+2}.
            kept = 1 if k else 0
            for i in range(size):
                change[i] += factor * rate[i] * sums[i] + coefficients[k] * source[i]
                there[i] = kept * here[i] + change[i]
        else:
            for i in range(size):
                change[i] = coefficients[k] * source[i]
                there[i] = change[i]


@fused
def _meet(states: Floats, adjoints: Floats, shifts: Integers, lead: int, edges: Floats) -> None:
    """Add sum_k (b_i - b_j) (s_j - s_i) to edges (P, size); an even number of rows k."""
    size = edges.shape[1]
    for start in range(0, size, _BLOCK):
        begin, end = lead + start, lead + min(start + _BLOCK, size)
        for k in range(0, len(states), 2):
            s, s2 = states[k, begin:end], states[k + 1, begin:end]
            b, b2 = adjoints[k, begin:end], adjoints[k + 1, begin:end]
            for p in range(len(shifts)):
                first, stop = begin + shifts[p], end + shifts[p]
                t, t2 = states[k, first:stop], states[k + 1, first:stop]
                c, c2 = adjoints[k, first:stop], adjoints[k + 1, first:stop]
                total = edges[p, start : start + end - begin]
                for i in range(end - begin):
                    total[i] += (b[i] - c[i]) * (t[i] - s[i]) + (b2[i] - c2[i]) * (t2[i] - s2[i])


@fused
def walk_back(
    maps: Floats,
    pairs: Floats,
    offsets: Integers,
    coefficients: Floats,
    gradient: Floats,
    map_gradient: Floats,
    pair_gradient: Floats,
) -> None:
    """Write the derivatives of one sample from that of its result, `gradient` (K, h, w).

    Args:
        maps: (K, h, w).
        pairs: (P, h, w), entries of pairs that leave the grid not read.
        offsets: (P, 2).
        coefficients: c_0 .. c_n of the polynomial.
        gradient: (K, h, w).
        map_gradient: (K, h, w), written.
        pair_gradient: (P, h, w), written where a pair lies in the grid.
    """
    K, height, width = maps.shape
    weights, shifts, rate, stride, lead = lay_out(pairs, offsets)
    size, steps = len(rate), len(coefficients) - 1
    # One map after the other: what it goes through in all steps is kept, and fits a cache for long.
    rows = (steps + 1) // 2 * 2  # see _meet; what is added stays 0
    states = np.zeros((rows, lead + size + lead), maps.dtype)
    adjoints = np.zeros((rows + 1, lead + size + lead), maps.dtype)
    flows = np.zeros((steps, size), maps.dtype)
    source = np.zeros(size, maps.dtype)
    edges = np.zeros((len(offsets), size), maps.dtype)
    nodes = np.zeros(lead + size + lead, maps.dtype)
    for k in range(K):
        for y in range(height):
            row = y * stride
            if steps:
                states[0, lead + row : lead + row + width] = maps[k, y]
            source[row : row + width] = gradient[k, y] * rate[row : row + width]
        _follow(weights, shifts, rate, states[:steps], flows, lead)
        _return(weights, shifts, rate, source, coefficients, adjoints, lead)
        for y in range(height):
            row = y * stride
            line = adjoints[0, lead + row : lead + row + width]
            map_gradient[k, y] = line / rate[row : row + width]
        if steps:
            adjoints[1] *= 0.5  # the only step with 1 for 2
            _meet(states, adjoints[1:], shifts, lead, edges)
            for step in range(steps):
                line, now = adjoints[step + 1, lead : lead + size], flows[step]
                node = nodes[lead : lead + size]
                for i in range(size):
                    node[i] += line[i] * now[i]
    for p in range(len(offsets)):
        dy, dx = offsets[p]
        for y in range(height - dy):
            for x in range(max(0, -dx), min(width, width - dx)):
                i = y * stride + x
                both = nodes[lead + i] + nodes[lead + i + shifts[p]]
                pair_gradient[p, y, x] = 2 * (edges[p, i] - both)
