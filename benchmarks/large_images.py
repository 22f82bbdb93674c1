"""Large images through every per-image stage, in parts and as a whole, one CPU thread.

    python benchmarks/large_images.py                  1024² to 4096², in blocks of 1024
    python benchmarks/large_images.py --whole          and without blocks: labels alike; 4 GB
    python benchmarks/large_images.py --stages cams affinities segmenter --sides 4096
    python benchmarks/large_images.py --sides 10000 --stages affinities --weights FILE

Generated images, 2 maps, affinities on a grid of stride 8. Confident areas are `confident_labels`;
propagation is walk, enlarging, dense CRF and largest score, as the stages call them. Networks stand
on MobileNetV2 and see the image once, at its own size; the segmenter is DeepLab-v1's head. Memory
is what a call takes at its height beyond its arguments.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from dense_crf import generated, maps
from machine import machine_line
from measure import one_thread, peak_memory, seconds
from random_walk import scene
from torch import Tensor

from affinitynet.models.affinity_net import build_affinity_net, image_affinity
from affinitynet.models.classifier import build_classifier
from affinitynet.models.segmenter import build_segmentation_net, segment
from affinitynet.ops import (
    confident_labels,
    dense_crf,
    enlarge_scores,
    label_scores,
    walk_scores,
)
from affinitynet.ops.blocks import in_blocks
from affinitynet.run_folder.settings import (
    AffinitySettings,
    BackboneSettings,
    ClassifierSettings,
    SegmenterSettings,
)
from affinitynet.stages.compute_cams import multi_scale_cams, scale_maps

WIDTH = 80
LARGEST = 2048  # side of a generated image
STAGES = ("confident", "propagation", "cams", "affinities", "segmenter")


def confident(image: Tensor, cams: Tensor, block: int) -> Tensor:
    found = in_blocks(confident_labels, image, cams, block=block, bilateral_sxy=WIDTH)
    return found.to(torch.uint8)


def propagated(image: Tensor, cams: Tensor, affinity: Tensor, block: int) -> Tensor:
    scores = walk_scores(cams, affinity, alpha=16, beta=8, steps=256, radius=5, stride=8)
    spread = enlarge_scores(scores, 8, (image.shape[0], image.shape[1]))
    refined = in_blocks(dense_crf, image, spread, block=block, bilateral_sxy=WIDTH)
    return label_scores(refined).to(torch.uint8)


def networks(name: str, weights: str) -> dict[str, Callable[[Tensor, int], Tensor]]:
    """Give the networks' stages: each takes an image (H, W, 3) and the side of its tiles."""
    backbone = BackboneSettings(name=name, weights=weights)
    torch.manual_seed(0)
    classifier = build_classifier(backbone, ClassifierSettings(), ("a", "b")).eval()
    affinity = build_affinity_net(backbone, AffinitySettings(output_stride=16)).eval()
    largefov = SegmenterSettings(architecture="largefov")
    segmenter = build_segmentation_net(largefov, backbone, 3).eval()
    normalization: Any = classifier.backbone.normalization

    @torch.inference_mode()
    def cams(image: Tensor, tile: int) -> Tensor:
        pixels = image.permute(2, 0, 1)
        tags = (0, 1)
        summed = multi_scale_cams(
            classifier.cams, normalization, pixels, tags, (1.0,), flip=False, tile=tile
        )
        return scale_maps(summed, tags, {})

    @torch.inference_mode()
    def affinities(image: Tensor, tile: int) -> Tensor:
        return image_affinity(affinity, image, torch.device("cpu"), tile)

    @torch.inference_mode()
    def predicted(image: Tensor, tile: int) -> Tensor:
        return segment(segmenter, image.permute(2, 0, 1), (1.0,), False, tile)

    return {"cams": cams, "affinities": affinities, "segmenter": predicted}


def pictured(side: int) -> Tensor:
    """Give a generated image (side, side, 3); a large one is a smaller one, mirrored over and over.

    Else making it would take more memory than what is measured.
    """
    image = torch.from_numpy(generated(min(side, LARGEST), min(side, LARGEST), 0))
    while image.shape[0] < side:
        image = torch.cat([image, image.flip(0)])
        image = torch.cat([image, image.flip(1)], 1)
    return image[:side, :side].contiguous()


def measure(function: Callable[[], Tensor]) -> tuple[float, int, Tensor]:
    """Answer seconds, bytes at the peak and the labels of one call."""
    times: list[float] = []
    labels: list[Tensor] = []

    def call() -> None:
        times.append(seconds(lambda: labels.append(function())))

    memory = peak_memory(call)
    return times[0], memory, labels[0]


def alike(found: Tensor, whole: Tensor) -> str:
    """Say how many labels are those of the whole, or how far maps are from them."""
    if found.is_floating_point():
        return f"within {(found.float() - whole.float()).abs().max():.1e}"
    return f"{100 * (found == whole).double().mean():.3f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--whole", action="store_true", help="also without blocks and tiles")
    parser.add_argument("--stages", nargs="+", default=STAGES[:2], choices=STAGES)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--weights", default="none", help="of the networks (default: random)")
    arguments = parser.parse_args()
    one_thread()
    print(machine_line())
    print(
        "| image | stage | parts | seconds | ns a pixel | peak memory | as the whole |\n"
        "|---|---|---|---|---|---|---|"
    )
    taken: dict[tuple[str, str], list[tuple[int, float]]] = {}
    with_networks = {*arguments.stages} & {*STAGES[2:]}
    nets = networks(arguments.backbone, arguments.weights) if with_networks else {}
    for side in arguments.sides:
        image = pictured(side)
        stages: dict[str, Callable[[int], Tensor]] = {
            name: partial(net, image) for name, net in nets.items()
        }
        if {*arguments.stages} & {*STAGES[:2]}:
            cams = maps(2, side, side)
            affinity = scene(math.ceil(side / 8), math.ceil(side / 8), 1)[1]
            stages["confident"] = partial(confident, image, cams)
            stages["propagation"] = partial(propagated, image, cams, affinity)
        for stage in arguments.stages:
            whole = None
            for block in (0, arguments.block) if arguments.whole else (arguments.block,):
                spent, memory, found = measure(partial(stages[stage], block))
                same = "" if whole is None else alike(found, whole)
                whole = found if block == 0 else None
                name = f"{block}²" if block else "none"
                taken.setdefault((stage, name), []).append((side**2, spent))
                print(
                    f"| {side}² | {stage} | {name} | {spent:.2f} | {1e9 * spent / side**2:.0f} "
                    f"| {memory / 1e6:.0f} MB | {same} |",
                    flush=True,
                )
                del found  # the next call's memory is its own
    for (stage, name), points in taken.items():
        if len(points) > 1:
            pixels, times = np.log(np.array(points)).T
            exponent = np.polyfit(pixels, times, 1)[0]
            print(f"\n{stage}, blocks {name}: time grows as pixels^{exponent:.2f}")


if __name__ == "__main__":
    main()
