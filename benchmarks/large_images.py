"""Large images through confident areas and propagation, in blocks and as a whole, one CPU thread.

    python benchmarks/large_images.py                  1024² to 4096², in blocks of 1024
    python benchmarks/large_images.py --whole          and without blocks: labels alike; 4 GB

Generated images, 2 maps, affinities on a grid of stride 8. Confident areas are `confident_labels`;
propagation is walk, enlarging, dense CRF and largest score, as the stages call them. Memory is what
a call takes at its height beyond its arguments.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from dense_crf import generated, maps
from machine import machine_line
from measure import one_thread, peak_memory, seconds
from random_walk import scene
from torch import Tensor

from affinitynet.ops import (
    confident_labels,
    dense_crf,
    enlarge_scores,
    label_scores,
    walk_scores,
)
from affinitynet.ops.blocks import in_blocks

WIDTH = 80


def confident(image: Tensor, cams: Tensor, block: int) -> Tensor:
    return in_blocks(confident_labels, image, cams, block=block, bilateral_sxy=WIDTH)


def propagated(image: Tensor, cams: Tensor, affinity: Tensor, block: int) -> Tensor:
    scores = walk_scores(cams, affinity, alpha=16, beta=8, steps=256, radius=5, stride=8)
    spread = enlarge_scores(scores, 8, (image.shape[0], image.shape[1]))
    return label_scores(in_blocks(dense_crf, image, spread, block=block, bilateral_sxy=WIDTH))


def measure(function: Callable[[], Tensor]) -> tuple[float, int, Tensor]:
    """Answer seconds, bytes at the peak and the labels of one call."""
    times: list[float] = []
    labels: list[Tensor] = []

    def call() -> None:
        times.append(seconds(lambda: labels.append(function().to(torch.uint8))))

    memory = peak_memory(call)
    return times[0], memory, labels[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--whole", action="store_true", help="also without blocks")
    arguments = parser.parse_args()
    one_thread()
    print(machine_line())
    print(
        "| image | stage | blocks | seconds | ns a pixel | peak memory | labels of the whole |\n"
        "|---|---|---|---|---|---|---|"
    )
    taken: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for side in arguments.sides:
        image, cams = torch.from_numpy(generated(side, side, 0)), maps(2, side, side)
        affinity = scene(math.ceil(side / 8), math.ceil(side / 8), 1)[1]
        stages = {
            "confident areas": partial(confident, image, cams),
            "propagation": partial(propagated, image, cams, affinity),
        }
        for stage, run in stages.items():
            whole = None
            for block in (0, arguments.block) if arguments.whole else (arguments.block,):
                spent, memory, labels = measure(partial(run, block=block))
                same = "" if whole is None else f"{100 * (labels == whole).double().mean():.3f} %"
                whole = labels if block == 0 else None
                name = f"{block}²" if block else "none"
                taken.setdefault((stage, name), []).append((side**2, spent))
                print(
                    f"| {side}² | {stage} | {name} | {spent:.2f} | {1e9 * spent / side**2:.0f} "
                    f"| {memory / 1e6:.0f} MB | {same} |",
                    flush=True,
                )
    for (stage, name), points in taken.items():
        if len(points) > 1:
            pixels, times = np.log(np.array(points)).T
            exponent = np.polyfit(pixels, times, 1)[0]
            print(f"\n{stage}, blocks {name}: time grows as pixels^{exponent:.2f}")


if __name__ == "__main__":
    main()
