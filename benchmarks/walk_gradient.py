"""The random walk with gradients against dense autograd, one CPU thread on each side.

    python benchmarks/walk_gradient.py

Forward and backward pass in maps and affinities. Dense autograd has the N x N matrix T; it takes
the faster of two ways: T^t by squaring, or t products of T with the maps.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from dense_walk import all_pairs
from machine import machine_line
from measure import alternate, in_words, one_thread
from torch import Tensor

from affinitynet.ops import neighbor_offsets, pairwise_affinity, random_walk

CASES = ((4, 21, 28, 64), (4, 3, 28, 64), (4, 21, 20, 64), (4, 21, 14, 64), (4, 3, 14, 64))


def positions(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """List all pairs of a grid: first and second pixel, and the number of the affinity."""
    numbers = torch.arange(len(neighbor_offsets()) * side**2).reshape(-1, side, side)
    return all_pairs(numbers)


def dense(
    maps: Tensor, affinity: Tensor, steps: int, places: tuple[Tensor, Tensor, Tensor], square: bool
) -> Tensor:
    """Walk with T as a full matrix of each sample."""
    first, second, numbers = places
    pairs = affinity.flatten(1)[:, numbers] ** 8
    count = maps.shape[2] * maps.shape[3]
    matrix = torch.eye(count).repeat(len(maps), 1, 1)
    matrix[:, first, second] = pairs
    matrix[:, second, first] = pairs
    matrix = matrix / matrix.sum(2, keepdim=True)
    columns = maps.flatten(2).transpose(1, 2)
    if square:
        columns = torch.linalg.matrix_power(matrix, steps) @ columns
    else:
        for _ in range(steps):
            columns = matrix @ columns
    return columns.transpose(1, 2).reshape(maps.shape)


def derive(walk: Callable[[], Tensor], leaves: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Run forward and backward."""
    return torch.autograd.grad(walk().sum(), leaves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    one_thread()
    print(machine_line())
    print("| | ours | dense, squared | dense, steps | best dense / ours |\n|---|---|---|---|---|")
    generator = torch.Generator().manual_seed(0)
    for batch, count, side, steps in CASES:
        maps = torch.rand(batch, count, side, side, generator=generator).requires_grad_()
        features = 0.3 * torch.rand(batch, 3, side, side, generator=generator)
        affinity = pairwise_affinity(features).requires_grad_()
        places = positions(side)
        walks = {
            "ours": partial(random_walk, maps, affinity, steps=steps),
            "squared": partial(dense, maps, affinity, steps, places, True),
            "steps": partial(dense, maps, affinity, steps, places, False),
        }
        runs = {name: partial(derive, walk, (maps, affinity)) for name, walk in walks.items()}
        runs["ours"]()  # compiles
        times = alternate(runs, dict.fromkeys(runs, arguments.repeats))
        best = min(min(times["squared"]), min(times["steps"]))
        cells = " | ".join(in_words(spent) for spent in times.values())
        case = f"B {batch}, K {count}, {side} x {side}, t = {steps}"
        print(f"| {case} | {cells} | {best / min(times['ours']):.1f} |", flush=True)


if __name__ == "__main__":
    main()
