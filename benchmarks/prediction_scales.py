"""What the segmentation network's scales and mirrored images are worth, and what they cost.

    python benchmarks/prediction_scales.py RUN --every 5
    python benchmarks/prediction_scales.py RUN --every 5 --final

RUN is a finished run with ground truth; it is only read. Without tags, on the images of val; with
`--final` as the stage `relabel` makes the final masks of the training images. Ground truth chooses
nothing here, but whoever chooses scales by this table has let it.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from machine import machine_line
from numpy.typing import NDArray
from torch import Tensor

from affinitynet.data import Sample, load_image, load_truth
from affinitynet.data.labels import read_labels, to_labels
from affinitynet.data.scoring import Confusion, count_pairs, intersection_over_union
from affinitynet.memory import kept_memory
from affinitynet.models.segmenter import Segmenter, segment
from affinitynet.ops import label_scores
from affinitynet.ops.final_scores import restrict, with_evidence
from affinitynet.pipeline import Run
from affinitynet.run_folder.artifacts import PSEUDO, SEGMENTER
from affinitynet.walking import refined

SCALES = (0.5, 0.75, 1.0, 1.25)
CHOICES = (
    (0.5, 0.75, 1.0),
    (0.5, 1.0),
    (0.75, 1.0),
    (0.75, 1.0, 1.25),
    (0.5,),
    (0.75,),
    (1.0,),
)
Maker = Callable[[Sample, Tensor, Tensor], NDArray[Any]]


class Part(NamedTuple):
    """Probabilities of one image at one scale, and seconds."""

    scores: Tensor
    seconds: float


def parts_of(segmenter: Segmenter, image: Tensor) -> dict[tuple[float, bool], Part]:
    """Predict an image (H, W, 3) at each scale, with the mirrored image and without."""
    found = {}
    for scale in SCALES:
        for flip in (False, True):
            began = time.perf_counter()
            scores = segment(segmenter.net, image.permute(2, 0, 1), (scale,), flip)
            found[scale, flip] = Part(scores, time.perf_counter() - began)
    return found


def predicted(sample: Sample, image: Tensor, scores: Tensor) -> NDArray[Any]:
    """Make a mask without tags."""
    return scores.argmax(0).numpy()


def final(run: Run, sample: Sample, image: Tensor, scores: Tensor) -> NDArray[Any]:
    """Make a mask as the stage `relabel` does: of the tags, with the pseudo mask, by the CRF."""
    taught_by = read_labels(run.recipe.out / PSEUDO.folder / f"{sample.id}.png").astype(np.int64)
    tagged = restrict(scores, sample.tags)
    odds = run.recipe.relabel.odds
    tagged = with_evidence(tagged, torch.from_numpy(taught_by), sample.tags, odds)
    local = label_scores(refined(image, tagged, run.recipe.relabel)).numpy().astype(np.uint8)
    return to_labels(local, np.array(sample.tags, np.int64), run.manifest.ignore_index)


def measure(run: Run, samples: Sequence[Sample], make: Maker) -> None:
    """Print a row for each choice."""
    segmenter = Segmenter.load(run.recipe.out / SEGMENTER.folder)
    labels = len(run.manifest.classes) + 1
    counts: dict[tuple[tuple[float, ...], bool], Confusion] = {}
    seconds: dict[tuple[tuple[float, ...], bool], float] = {}
    with torch.inference_mode(), kept_memory():
        for sample in samples:
            image = torch.from_numpy(load_image(sample.image, sample.reading))
            truth = np.asarray(load_truth(run.manifest, sample))
            known = truth != run.manifest.ignore_index
            parts = parts_of(segmenter, image)
            for scales in CHOICES:
                for flip in (True, False):
                    chosen = [parts[scale, flip] for scale in scales]
                    scores = torch.stack([part.scores for part in chosen]).mean(0)
                    mask = make(sample, image, scores)
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
    parser.add_argument("--every", type=int, default=1, help="take every so many images")
    parser.add_argument("--final", action="store_true", help="final masks of training images")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    dataset = run.recipe.dataset
    split = (dataset.figures or dataset.train) if arguments.final else "val"
    samples = run.manifest.split(split)[:: arguments.every]
    print(f"{machine_line()}\n{len(samples)} images of {split}\n")
    measure(run, samples, partial(final, run) if arguments.final else predicted)


if __name__ == "__main__":
    main()
