"""What the segmentation network's scales and mirrored images are worth, and what they cost.

    python benchmarks/prediction_scales.py RUN --every 5

RUN is a finished run whose val images have ground truth; it is only read. No tags are given. Ground
truth chooses nothing here, but whoever chooses scales by this table has let it.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from machine import machine_line
from torch import Tensor

from affinitynet.data import Sample, load_image, load_truth
from affinitynet.data.scoring import Confusion, count_pairs, intersection_over_union
from affinitynet.memory import kept_memory
from affinitynet.models.segmenter import Segmenter, segment
from affinitynet.pipeline import Run
from affinitynet.run_folder.artifacts import SEGMENTER

SCALES = (0.5, 0.75, 1.0)
CHOICES = ((0.5, 0.75, 1.0), (0.5, 1.0), (0.75, 1.0), (0.5, 0.75), (0.5,), (0.75,), (1.0,))


class Part(NamedTuple):
    """Probabilities of one image at one scale, and seconds."""

    scores: Tensor
    seconds: float


def parts_of(segmenter: Segmenter, sample: Sample) -> dict[tuple[float, bool], Part]:
    """Predict at each scale, with the mirrored image and without."""
    image = torch.from_numpy(load_image(sample.image, sample.reading)).permute(2, 0, 1)
    found = {}
    for scale in SCALES:
        for flip in (False, True):
            began = time.perf_counter()
            scores = segment(segmenter.net, image, (scale,), flip)
            found[scale, flip] = Part(scores, time.perf_counter() - began)
    return found


def measure(run: Run, samples: Sequence[Sample]) -> None:
    """Print a row for each choice."""
    segmenter = Segmenter.load(run.recipe.out / SEGMENTER.folder)
    labels = len(run.manifest.classes) + 1
    counts: dict[tuple[tuple[float, ...], bool], Confusion] = {}
    seconds: dict[tuple[tuple[float, ...], bool], float] = {}
    with torch.inference_mode(), kept_memory():
        for sample in samples:
            truth = np.asarray(load_truth(run.manifest, sample))
            known = truth != run.manifest.ignore_index
            parts = parts_of(segmenter, sample)
            for scales in CHOICES:
                for flip in (True, False):
                    chosen = [parts[scale, flip] for scale in scales]
                    mask = torch.stack([part.scores for part in chosen]).sum(0).argmax(0).numpy()
                    pairs = count_pairs(truth[known], mask[known], (labels, labels))
                    key = scales, flip
                    counts[key] = counts[key] + pairs if key in counts else pairs
                    seconds[key] = seconds.get(key, 0) + sum(part.seconds for part in chosen)
    print("| scales | mirrored too | mIoU | seconds an image |\n|---|---|---|---|")
    for (scales, flip), found in counts.items():
        iou = 100 * float(intersection_over_union(found)["miou"])
        said = ", ".join(f"{scale:g}" for scale in scales)
        mirrored = "yes" if flip else "no"
        print(f"| {said} | {mirrored} | {iou:.1f} | {seconds[scales, flip] / len(samples):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--every", type=int, default=1, help="take every so many images of val")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    samples = run.manifest.split("val")[:: arguments.every]
    print(f"{machine_line()}\n{len(samples)} images of val\n")
    measure(run, samples)


if __name__ == "__main__":
    main()
