"""Is bfloat16 harmless? CAMs and walk of a run's trained networks in float32 and in bf16.

    python benchmarks/bf16.py RUN --split train_precise --images 100

RUN is a run folder with `classifier/` and `affinity/`; it is only read. Both precisions make the
CAMs of the same images and let them walk over their own affinities. The mIoU of the CAMs is that at
the background score that ground truth shows to be best, of the walk without a dense CRF.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from machine import machine_line
from torch import Tensor

from affinitynet.data import Sample, load_image, load_truth
from affinitynet.data.labels import to_labels
from affinitynet.data.scoring import (
    Counts,
    count_pairs,
    intersection_over_union,
    score,
    sweep_counts,
)
from affinitynet.hardware import Hardware, inference
from affinitynet.models.affinity_net import image_affinity, load_affinity_net
from affinitynet.models.classifier import Classifier
from affinitynet.ops import enlarge_scores, label_scores
from affinitynet.pipeline import Run
from affinitynet.run_folder.artifacts import AFFINITY, CLASSIFIER
from affinitynet.stages.compute_cams import multi_scale_cams
from affinitynet.stages.context import Context
from affinitynet.walking import walked

THRESHOLDS = np.arange(0.1, 0.4, 0.01)


class Precision:
    """One precision's networks, the masks of its walk, and what its maps are worth."""

    def __init__(self, name: str, context: Context) -> None:
        """Load the networks anew."""
        self.name, self.context = name, context
        self.hardware = Hardware(context.recipe.device, name, context.recipe.workers)
        self.classifier = Classifier.load(context.folder(CLASSIFIER))
        self.affinity_net = load_affinity_net(context.folder(AFFINITY))
        self.cams: dict[str, Tensor] = {}
        self.masks: dict[str, np.ndarray] = {}
        self.seconds = {"CAMs": 0.0, "affinities": 0.0}

    def label(self, sample: Sample) -> None:
        """Compute one image's CAMs (K, H, W) and the mask (H, W) after the walk."""
        recipe, normalization = self.context.recipe, self.classifier.backbone.normalization
        image = torch.from_numpy(load_image(sample.image))
        began = time.perf_counter()
        with inference(self.classifier, self.hardware) as device:
            cams = multi_scale_cams(
                self.classifier.cams,
                normalization,
                image.permute(2, 0, 1).to(device),
                sample.tags,
                recipe.cams.scales,
                recipe.cams.flip,
            ).cpu()
        middle = time.perf_counter()
        with inference(self.affinity_net, self.hardware) as device:
            affinity = image_affinity(self.affinity_net, image, device).float()
        self.seconds["CAMs"] += middle - began
        self.seconds["affinities"] += time.perf_counter() - middle
        stride = self.affinity_net.stride
        walk, radius = self.context.walk, self.affinity_net.radius
        scores = walked(cams, affinity, walk, radius=radius, stride=stride)
        spread = enlarge_scores(scores, stride, (image.shape[0], image.shape[1]))
        local = label_scores(spread).numpy()
        tags = np.array(sample.tags, np.int64)
        self.cams[sample.id] = cams
        self.masks[sample.id] = to_labels(local, tags, self.context.manifest.ignore_index)

    def figures(self, samples: Sequence[Sample]) -> tuple[float, float]:
        """Answer the mIoU in percent of the CAMs and of the walk."""
        manifest = self.context.manifest

        def cams_of(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
            return np.array(sample.tags, np.int64), self.cams[sample.id].numpy()

        counts = sweep_counts(manifest, samples, cams_of, THRESHOLDS)
        cam = max(score(Counts(*vectors))["miou"] for vectors in zip(*counts, strict=True))
        side = len(manifest.classes) + 1
        confusion = np.zeros((side, side), np.int64)
        for sample in samples:
            truth = load_truth(manifest, sample)
            valid = truth != manifest.ignore_index
            mask = self.masks[sample.id][valid]
            confusion += count_pairs(truth[valid], mask, confusion.shape)
        return 100 * cam, 100 * intersection_over_union(confusion)["miou"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder with classifier/ and affinity/")
    parser.add_argument("--split", help="with ground truth; default: the recipe's figures")
    parser.add_argument("--images", type=int, default=100, help="spread over the split")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    split = arguments.split or run.recipe.dataset.figures or run.recipe.dataset.train
    samples = [s for s in run.manifest.split(split) if s.mask and s.tags]
    samples = samples[:: max(1, len(samples) // arguments.images)][: arguments.images]
    precisions = [Precision(name, run.context) for name in ("float32", "bf16")]
    for sample in samples:
        for precision in precisions:
            precision.label(sample)
    plain, short = precisions
    same = np.mean([(plain.masks[s.id] == short.masks[s.id]).mean() for s in samples])
    difference = np.mean(
        [float((plain.cams[s.id] - short.cams[s.id]).abs().mean()) for s in samples]
    )

    print(machine_line())
    print(
        f"{run.recipe.name}, {run.recipe.backbone.name}, {len(samples)} images of {split}, tags "
        "given, no CRF; ground truth chose the CAMs' background score\n"
    )
    print("| precision | mIoU, CAM | mIoU, walk | CAMs, ms an image | affinities, ms an image |")
    print("|---|---|---|---|---|")
    for precision in precisions:
        cam, walk = precision.figures(samples)
        spent = [1e3 * seconds / len(samples) for seconds in precision.seconds.values()]
        print(f"| {precision.name} | {cam:.2f} | {walk:.2f} | {spent[0]:.0f} | {spent[1]:.0f} |")
    print(f"\nPixels labelled alike after the walk: {same:.2%}; CAMs differ by {difference:.1e}.")


if __name__ == "__main__":
    main()
