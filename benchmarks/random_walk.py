"""The random walk against the dense formulation of the original, one CPU thread on each side.

    python benchmarks/random_walk.py                   47x63 grid: a 375x500 image at stride 8
    python benchmarks/random_walk.py --stride 4 --peer-repeats 1     94x125; minutes per peer run

Both get the same maps and affinities and answer the same question on the full in-grid graph:
t = 256 steps, beta 8, radius 5. Features are smoothed noise, so that affinities run from nearly
0 to nearly 1 as on photographs. Errors are against our float64 path, which the tests hold to a
dense float64 power to 1e-10.
"""

import argparse
import statistics

import torch
from dense_walk import dense_walk
from measure import alternate, in_words, one_thread, peak_memory, seconds

from affinitynet.ops import pairwise_affinity, random_walk


def scene(height: int, width: int, maps: int, radius: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Make (1, K, h, w) maps and (1, P, h, w) affinities with regions and edges."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 16, height // 8 + 2, width // 8 + 2, generator=generator)
    features = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return torch.rand(1, maps, height, width, generator=generator), pairwise_affinity(
        features, radius
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=375, help="of the image")
    parser.add_argument("--width", type=int, default=500, help="of the image")
    parser.add_argument("--stride", type=int, default=8, help="image pixels per grid pixel")
    parser.add_argument("--maps", type=int, nargs="+", default=[1, 2, 3, 4], help="K")
    parser.add_argument("--repeats", type=int, default=21, help="our runs for each K")
    parser.add_argument("--peer-repeats", type=int, default=3, help="the peer's; its K is the last")
    arguments = parser.parse_args()
    one_thread()

    height, width = (
        -(-arguments.height // arguments.stride),
        -(-arguments.width // arguments.stride),
    )
    scenes = {count: scene(height, width, count) for count in arguments.maps}
    first = seconds(lambda: random_walk(*scenes[arguments.maps[0]]))
    ours = {f"K = {k}": (lambda case=case: random_walk(*case)) for k, case in scenes.items()}
    maps, affinity = scenes[arguments.maps[-1]]
    peer = {"dense": lambda: dense_walk(maps[0], affinity[0])}
    repeats = dict.fromkeys(ours, arguments.repeats) | {"dense": arguments.peer_repeats}
    times = alternate(ours | peer, repeats)

    dense = statistics.median(times["dense"])
    exact = random_walk(maps.double(), affinity.double())
    largest = float(exact.max())
    print(f"grid {height}x{width}, {torch.get_num_threads()} thread, t = 256")
    print(f"first call, compilation or its cache included: {first:.2f} s\n")
    print("| | median (range) | dense / ours |\n|---|---|---|")
    print(f"| dense, {arguments.peer_repeats} runs | {in_words(times['dense'])} | |")
    for name in ours:
        ratio = dense / statistics.median(times[name])
        print(
            f"| ours, {name}, {arguments.repeats} runs | {in_words(times[name])} | {ratio:,.0f} |"
        )
    error = float((random_walk(maps, affinity) - exact).abs().max()) / largest
    print(f"\nlargest error of ours, relative to the largest value: {error:.1e}")
    matrix = 4 * (height * width) ** 2
    memory = peak_memory(ours[f"K = {arguments.maps[-1]}"])
    print(f"peak memory of ours, K = {arguments.maps[-1]}: {memory / 1e6:.1f} MB; ", end="")
    print(f"one dense matrix: {matrix / 1e6:.0f} MB, the squaring holds two: ", end="")
    print(f"{50 * memory / matrix:.2f} %")


if __name__ == "__main__":
    main()
