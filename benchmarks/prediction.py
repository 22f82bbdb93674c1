"""Predictions of own_images' networks with normalization folded into convolutions, and without.

    python benchmarks/prediction.py
    python benchmarks/prediction.py --threads 1 --operators

MobileNetV2's CAMs and the predictions of DeepLabV3+ on it, with random weights, at each scale with
the mirrored image; the two take turns, after a run of each that is not counted. `--operators` lists
what the folded network spends its time on. With one thread torch convolves 1x1 by other code, which
takes longer; on a busy machine look at the processor time.
"""

import argparse
import statistics
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from cam_inference import alternate
from machine import machine_line
from torch import Tensor
from torch.profiler import profile

from affinitynet.folded import folded
from affinitynet.memory import kept_memory
from affinitynet.models.backbone import build_backbone
from affinitynet.models.classifier import Classifier
from affinitynet.models.segmenter import build_segmentation_net, segment
from affinitynet.run_folder.recipe import Recipe
from affinitynet.stages.compute_cams import multi_scale_cams

LABELS, TAGS = 5, [0, 1]
Prediction = tuple[Any, Callable[[Any], Tensor]]


def predictions(recipe: Recipe, image: Tensor, scales: list[float]) -> dict[str, Prediction]:
    """Return networks, each with a function that predicts the image by it."""
    backbone = recipe.backbone.model_copy(update={"weights": "none"})
    classifier = Classifier(build_backbone(backbone, recipe.classifier.output_stride), LABELS - 1)

    def cams(network: Any) -> Tensor:
        normalization = network.backbone.normalization
        return multi_scale_cams(network.cams, normalization, image, TAGS, scales, True)

    return {
        "CAMs": (classifier, cams),
        "segmenter": (
            build_segmentation_net(recipe.segmenter, backbone, LABELS),
            lambda network: segment(network, image, scales, True),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", default="384x768", help="height x width")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.5, 0.75, 1.0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch; default: all cores")
    parser.add_argument("--operators", action="store_true", help="list what the time goes to")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    height, width = (int(side) for side in arguments.image_size.split("x"))
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    recipe = Recipe.load("own_images", data="photos", out="run")

    print(f"{machine_line()}\n{arguments.image_size}, {arguments.rounds} rounds\n")
    print("| | as it is | folded | ratio | of processor times |\n|---|---|---|---|---|")
    for name, (network, predict) in predictions(recipe, image, arguments.scales).items():
        network.to(memory_format=torch.channels_last).eval()
        fast_network = deepcopy(network)
        variants = {
            "as it is": partial(predict, network),
            "folded": partial(predict, fast_network),
        }
        with folded(fast_network), torch.inference_mode(), kept_memory():
            alternate(variants, 1)
            times = alternate(variants, arguments.rounds)
            if arguments.operators:
                with profile() as profiler:
                    predict(fast_network)
        (plain, spent), (fast, spent_fast) = (
            [statistics.median(column) for column in zip(*times[variant], strict=True)]
            for variant in variants
        )
        print(
            f"| {name} | {plain:.3g} s | {fast:.3g} s | {fast / plain:.2f} | "
            f"{spent_fast / spent:.2f} |",
            flush=True,
        )
        if arguments.operators:
            rows = profiler.key_averages()
            print(rows.table(sort_by="self_cpu_time_total", row_limit=12))


if __name__ == "__main__":
    main()
