"""The peer: affinity and random walk in the dense formulation of the original code.

Written from the published description, for the benchmarks to run against: both ends of every
pair are gathered from the feature map; the transition matrix is N x N and squared log2(t)
times. Only the border differs where a caller asks for it: the original leaves out the pairs
that begin near the border, and `all_pairs` puts them back for a comparison of like with like.
"""

import torch
from torch import Tensor

from affinitynet.ops import neighbor_offsets


def pair_indices(height: int, width: int, radius: int = 5) -> tuple[Tensor, Tensor]:
    """Answer the flat indices of the first pixels (n,) and of the second ones (P, n)."""
    reach = radius - 1
    grid = torch.arange(height * width).reshape(height, width)
    first = grid[: height - reach, reach : width - reach]
    second = [
        grid[dy : dy + first.shape[0], reach + dx : reach + dx + first.shape[1]].reshape(-1)
        for dy, dx in neighbor_offsets(radius).tolist()
    ]
    return first.reshape(-1), torch.stack(second)


def gathered_affinity(features: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """exp(-mean_d |f_i - f_j|) with both ends gathered: (B, D, h, w) -> (B, P, n)."""
    flat = features.flatten(2)
    start = torch.index_select(flat, 2, first).unsqueeze(2)
    end = torch.index_select(flat, 2, second.reshape(-1))
    end = end.reshape(*end.shape[:2], *second.shape)
    return torch.exp(-torch.mean(torch.abs(end - start), 1))


def all_pairs(affinity: Tensor, radius: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Turn (P, h, w) affinities into a list of in-grid pairs: first, second, affinity."""
    height, width = affinity.shape[1:]
    grid = torch.arange(height * width).reshape(height, width)
    parts = []
    for p, (dy, dx) in enumerate(neighbor_offsets(radius).tolist()):
        left, right = max(-dx, 0), width - max(dx, 0)
        if dy < height and left < right:
            box = (slice(0, height - dy), slice(left, right))
            moved = grid[dy:, left + dx : right + dx]
            parts.append((grid[box].flatten(), moved.flatten(), affinity[p][box].flatten()))
    if not parts:
        empty = grid.flatten()[:0]
        return empty, empty, affinity.flatten()[:0]
    first, second, values = (torch.cat(column) for column in zip(*parts, strict=True))
    return first, second, values


def dense_transition(first: Tensor, second: Tensor, affinity: Tensor, size: int) -> Tensor:
    """Fill W, raise it to the power beta = 8 and divide by the column sums: (N, N)."""
    matrix = torch.eye(size, dtype=affinity.dtype)
    matrix[first, second] = affinity
    matrix[second, first] = affinity
    matrix = torch.pow(matrix, 8)
    return matrix / torch.sum(matrix, dim=0, keepdim=True)


def dense_walk(maps: Tensor, affinity: Tensor, doublings: int = 8, radius: int = 5) -> Tensor:
    """M T^(2^doublings) by squaring T: (K, h, w), (P, h, w) -> (K, h, w)."""
    matrix = dense_transition(*all_pairs(affinity, radius), maps[0].numel())
    for _ in range(doublings):
        matrix = torch.matmul(matrix, matrix)
    return torch.matmul(maps.flatten(1), matrix).reshape(maps.shape)
