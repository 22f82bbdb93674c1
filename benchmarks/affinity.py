"""Affinities of pixel pairs against the original's gathering, one CPU thread on each side.

    python benchmarks/affinity.py          448 channels, 34 displacements, 47x63 grid

The original gathers both ends of each pair, subtracts, and averages over the channels; it leaves
out the pairs that begin near the border (14 % of them), so that ours does more work here. The
results are compared on the pairs that both have. The backward pass is that of the sum of all
affinities times fixed random numbers.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from dense_walk import gathered_affinity, pair_indices
from measure import alternate, in_words, one_thread, peak_memory, seconds

from affinitynet.ops import pairwise_affinity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=47, help="of the grid")
    parser.add_argument("--width", type=int, default=63, help="of the grid")
    parser.add_argument("--channels", type=int, default=448)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--peer-repeats", type=int, default=7)
    arguments = parser.parse_args()
    one_thread()

    generator = torch.Generator().manual_seed(0)
    height, width = arguments.height, arguments.width
    features = torch.randn(1, arguments.channels, height, width, generator=generator)
    first, second = pair_indices(height, width)
    peer = gathered_affinity(features, first, second)
    ours = pairwise_affinity(features)
    same = ours[0, :, : height - 4, 4 : width - 4].flatten(1)
    print(f"grid {height}x{width}, {arguments.channels} channels, {len(second)} displacements")
    print(f"largest difference on the common pairs: {float((same - peer[0]).abs().max()):.1e}")

    leaf = features.clone().requires_grad_()
    weights = {"ours": torch.rand_like(ours), "gather": torch.rand_like(peer)}
    forward: dict[str, Callable[[], torch.Tensor]] = {
        "ours": lambda: pairwise_affinity(leaf),
        "gather": lambda: gathered_affinity(leaf, first, second),
    }

    def both_ways(name: str) -> None:
        leaf.grad = None
        (forward[name]() * weights[name]).sum().backward()

    compiling = seconds(lambda: both_ways("ours"))
    repeats = {"ours": arguments.repeats, "gather": arguments.peer_repeats}
    print(f"first backward call, compilation or its cache included: {compiling:.2f} s\n")
    print("| | ours | gather | gather / ours |\n|---|---|---|---|")
    with torch.no_grad():
        times = alternate(forward, repeats)
        memory = [peak_memory(forward[name]) / 1e6 for name in forward]
    report("forward", times, memory)
    training = {"ours": lambda: both_ways("ours"), "gather": lambda: both_ways("gather")}
    times = alternate(training, repeats)
    report("forward + backward", times, [peak_memory(training[name]) / 1e6 for name in training])


def report(name: str, times: dict[str, list[float]], memory: list[float]) -> None:
    ratio = statistics.median(times["gather"]) / statistics.median(times["ours"])
    print(f"| {name} | {in_words(times['ours'])} | {in_words(times['gather'])} | {ratio:.1f} |")
    print(f"| its peak memory | {memory[0]:.0f} MB | {memory[1]:.0f} MB | |")


if __name__ == "__main__":
    main()
