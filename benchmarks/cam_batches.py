"""CAM inference with several images of one size in a batch, against one with its mirror image.

    python benchmarks/cam_batches.py

MobileNetV2 as own_images runs it (normalization folded, bf16 where the processor multiplies it),
with random weights, at each scale of the recipe; the batches take turns, after a run of each that
is not counted. The pipeline does not batch images: an image's bytes would depend, by rounding, on
which others it came with, and so on how many processes share the work.
"""

import argparse
import statistics
from functools import partial

import torch
from cam_inference import alternate
from machine import machine_line

from affinitynet.hardware import Hardware, inference
from affinitynet.memory import kept_memory
from affinitynet.models.backbone import build_backbone
from affinitynet.models.classifier import Classifier
from affinitynet.run_folder.recipe import Recipe

CLASSES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", default="375x500", help="height x width")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.5, 1.0, 1.5])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    height, width = (int(side) for side in arguments.image_size.split("x"))
    recipe = Recipe.load("own_images", data="photos", out="run")
    backbone = recipe.backbone.model_copy(update={"weights": "none"})
    network = Classifier(build_backbone(backbone, recipe.classifier.output_stride), CLASSES)
    hardware = Hardware(arguments.device, recipe.cams.precision, fold=True)

    print(f"{machine_line(hardware.place())}\n{arguments.image_size}, {arguments.rounds} rounds")
    print("milliseconds an image; of the processor's, against one image\n")
    heads = [f"{count} image{'s' * (count > 1)} | ratio" for count in arguments.images]
    print(f"| scale | {' | '.join(heads)} |\n|---|{'---|---|' * len(heads)}")
    with kept_memory(), inference(network, hardware) as device:
        for scale in arguments.scales:
            size = round(scale * height), round(scale * width)
            batches = {
                str(count): torch.randn(2 * count, 3, *size, device=device).contiguous(
                    memory_format=torch.channels_last
                )
                for count in arguments.images
            }
            variants = {name: partial(network.cams, batch) for name, batch in batches.items()}
            alternate(variants, 1)
            times = alternate(variants, arguments.rounds)
            cells = []
            for name, rows in times.items():
                wall, spent = (statistics.median(c) / int(name) for c in zip(*rows, strict=True))
                one = statistics.median(row[1] for row in times[str(arguments.images[0])])
                ratio = spent * arguments.images[0] / one
                cells.append(f"{1000 * wall:.0f} | {ratio:.2f}")
            print(f"| {scale:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
