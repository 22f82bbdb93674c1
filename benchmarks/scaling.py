"""How the time and the memory of the random walk grow: with pixels, maps and radius.

    python benchmarks/scaling.py --out docs/figures/scaling.svg          (about 15 minutes)

Square images of 256² to 4096² pixels at stride 8, so grids of 32² to 512², with K = 3 maps at
radius 5; then K and the radius are varied on one grid. The dense original runs beside it as
long as its memory and the patience allow. Prints a markdown table, with the exponent b of the
fit time ~ pixels^b, and draws the plot.
"""

import argparse
import math
import statistics
from pathlib import Path

import numpy as np
from dense_walk import dense_walk
from measure import one_thread, peak_memory, seconds
from random_walk import scene

from affinitynet.ops import random_walk


def measure(side: int, maps: int, radius: int, repeats: int) -> tuple[float, int]:
    """Answer the median time and the peak memory of our walk on a square grid."""
    case = scene(side, side, maps, radius)
    times = [seconds(lambda: random_walk(*case, radius=radius)) for _ in range(repeats + 1)]
    return statistics.median(times[1:]), peak_memory(lambda: random_walk(*case, radius=radius))


def measure_dense(side: int, maps: int) -> tuple[float, int]:
    """Answer time and peak memory of the dense walk, one run."""
    case_maps, affinity = scene(side, side, maps)
    times = []
    memory = peak_memory(
        lambda: times.append(seconds(lambda: dense_walk(case_maps[0], affinity[0])))
    )
    return times[0], memory


def exponent(sizes: list[int], values: list[float]) -> float:
    """Fit values ~ sizes^b and answer b."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--stride", type=int, default=8, help="image pixels per grid pixel")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dense-up-to", type=int, default=1024, help="longest image side for it")
    parser.add_argument("--maps", type=int, nargs="+", default=[1, 2, 4, 8, 16, 21])
    parser.add_argument("--radii", type=int, nargs="+", default=[2, 3, 5, 7, 10])
    parser.add_argument("--out", type=Path, required=True, help="the plot, .svg or .png")
    arguments = parser.parse_args()
    one_thread()

    pixels = [side * side for side in arguments.sides]
    grids = [math.ceil(side / arguments.stride) for side in arguments.sides]
    ours = [measure(grid, 3, 5, arguments.repeats) for grid in grids]
    dense_sides = [side for side in arguments.sides if side <= arguments.dense_up_to]
    dense = [measure_dense(math.ceil(side / arguments.stride), 3) for side in dense_sides]

    print("| image | grid | ours | memory | dense | memory |\n|---|---|---|---|---|---|")
    for index, (side, grid) in enumerate(zip(arguments.sides, grids, strict=True)):
        time_, memory = ours[index]
        row = f"| {side}² | {grid}² | {1e3 * time_:.3g} ms | {memory / 1e6:.3g} MB "
        if index < len(dense):
            row += f"| {dense[index][0]:.3g} s | {dense[index][1] / 1e6:.3g} MB |"
        else:
            row += f"| not run | {8 * grid**4 / 1e9:,.0f} GB needed |"
        print(row)
    b = exponent(pixels, [time_ for time_, _ in ours])
    b_memory = exponent(pixels, [memory for _, memory in ours])
    print(f"\ntime ~ pixels^{b:.2f}, memory ~ pixels^{b_memory:.2f}")
    if len(dense) > 1:
        b_dense = exponent(pixels[: len(dense)], [time_ for time_, _ in dense])
        print(f"dense: time ~ pixels^{b_dense:.2f}")

    middle = grids[len(grids) // 2]
    by_maps = [measure(middle, maps, 5, arguments.repeats)[0] for maps in arguments.maps]
    by_radius = [measure(middle, 3, radius, arguments.repeats)[0] for radius in arguments.radii]
    pairs = [scene(1, 1, 1, radius)[1].shape[1] for radius in arguments.radii]
    print(f"\n| maps K, {middle}² grid, radius 5 | time | a map |\n|---|---|---|")
    for maps, time_ in zip(arguments.maps, by_maps, strict=True):
        print(f"| {maps} | {1e3 * time_:.3g} ms | {1e3 * time_ / maps:.3g} ms |")
    print(f"\n| radius, {middle}² grid, K = 3 | pairs a pixel | time | a pair |\n|---|---|---|---|")
    for radius, count, time_ in zip(arguments.radii, pairs, by_radius, strict=True):
        print(f"| {radius} | {count} | {1e3 * time_:.3g} ms | {1e3 * time_ / count:.3g} ms |")

    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, item, unit in ((axes[0], 0, "seconds"), (axes[1], 1, "bytes")):
        axis.loglog(pixels, [row[item] for row in ours], "o-", label="AffinityNet")
        if dense:
            axis.loglog(pixels[: len(dense)], [row[item] for row in dense], "s--", label="dense")
        axis.set(xlabel="image pixels", ylabel=unit)
        axis.legend()
    axes[0].set_title(f"time of one image, 3 maps (exponent {b:.2f})", fontsize=10)
    axes[1].set_title("peak memory", fontsize=10)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out)


if __name__ == "__main__":
    main()
