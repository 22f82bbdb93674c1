"""Choose the images a report shows: by a fixed rule, so that nobody picks the pretty ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from affinitynet.data import Manifest, Sample, load_truth, read_labels
from affinitynet.data.sample import evenly
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import output_path
from affinitynet.run_folder.store import is_there

RANKED_AT_MOST = 2000  # reading two PNGs an image takes about 10 ms; a report should open soon


@dataclass(frozen=True)
class Scored:
    """A sample, its mask's IoU if known, and the labels of the truth that its mask lacks.

    IoU: the mean over the classes in mask or truth, without the background.
    """

    sample: Sample
    iou: float | None
    missed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Group:
    """Samples that a report shows under one heading."""

    title: str
    samples: tuple[Scored, ...]


@dataclass(frozen=True)
class Selection:
    """What is shown, how it was chosen (a sentence), and every image ranked, the best first."""

    groups: tuple[Group, ...]
    rule: str
    ranked: tuple[Scored, ...]

    @property
    def ranking(self) -> tuple[float, ...]:
        """The IoU of every image ranked."""
        return tuple(entry.iou or 0.0 for entry in self.ranked)


def image_iou(
    mask: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], ignore_index: int
) -> float | None:
    """Mean IoU of one image, over the classes in `mask` or `truth`, without the background.

    The background fills most images and would hide a mask that lacks its object. mask, truth:
    (H, W) labels. Pixels whose truth is `ignore_index` don't count; neutral pixels of the mask
    count as wrong. 1 where neither shows a class, None where no pixel counts.

    Raises:
        ValueError: the shapes differ.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"mask {mask.shape} and ground truth {truth.shape} differ in size")
    counted = truth != ignore_index
    mask, truth = mask[counted], truth[counted]
    labels = np.union1d(mask, truth)
    # A neutral pixel of the mask is in the union of its true label only: wrong, but no label.
    labels = labels[(labels != ignore_index) & (labels != 0)]
    if not truth.size:
        return None
    if not labels.size:
        return 1.0
    scores = [
        np.count_nonzero((mask == label) & (truth == label))
        / np.count_nonzero((mask == label) | (truth == label))
        for label in labels
    ]
    return float(np.mean(scores))


def score(folder: Path, manifest: Manifest, sample: Sample) -> Scored:
    """Score the sample's mask in `folder`; None where mask or truth is missing or unreadable."""
    path = output_path(folder, sample.id)
    if sample.mask is None or not is_there(path):
        return Scored(sample, None)
    try:
        truth, mask = load_truth(manifest, sample), read_labels(path)
        lacking = set(np.unique(truth).tolist()) - set(np.unique(mask).tolist())
        missed = tuple(sorted(lacking - {0, manifest.ignore_index}))
        return Scored(sample, image_iou(mask, truth, manifest.ignore_index), missed)
    # A report is made of what can be read; `check` and `evaluate` name what can't.
    except (UserError, ValueError):
        return Scored(sample, None)


def select(
    folder: Path, manifest: Manifest, pool: Sequence[Sample], count: int, *, what: str
) -> Selection:
    """Choose `count` of `pool` to show: best, middle and worst masks of `folder` by `image_iou`.

    `what` names the masks in the rule ("pseudo mask"). Without ground truth (or without masks
    yet) the choice is spread evenly over the list.
    """
    candidates = evenly(pool, RANKED_AT_MOST)
    scored = [score(folder, manifest, sample) for sample in candidates]
    ranked = [entry for entry in scored if entry.iou is not None]
    if not ranked:
        chosen = tuple(Scored(sample, None) for sample in evenly(pool, count))
        lacking = f"{what}s yet" if any(sample.mask for sample in pool) else "ground truth"
        rule = f"{len(chosen)} of {len(pool)} images, spread evenly over the list (no {lacking})."
        return Selection((Group("", chosen),), rule, ())
    # By id where scores are equal, so that the same images are chosen each time.
    ranked.sort(key=lambda entry: (-(entry.iou or 0.0), entry.sample.id))
    of = f"the {len(ranked)} images with ground truth"
    if len(candidates) < len(pool):
        of = f"{len(ranked)} images taken evenly from {len(pool)}"
    rule = (
        f"Chosen by rule from {of}, ranked by the IoU of the {what} (per image, mean over the "
        "classes in mask or ground truth, without the background)."
    )
    return Selection(_thirds(ranked, count), rule, tuple(ranked))


def _thirds(ranked: list[Scored], count: int) -> tuple[Group, ...]:
    """Cut the best, the middle and the worst out of a ranking, best first within each."""
    if len(ranked) <= count:
        return (Group("All, best first", tuple(ranked)),)
    # What three doesn't divide goes to the best first, then to the worst.
    best, worst = (count + 2) // 3, (count + 1) // 3
    middle = count - best - worst
    rest = ranked[best : len(ranked) - worst]
    start = (len(rest) - middle) // 2
    groups = (
        Group("Best", tuple(ranked[:best])),
        Group("Around the median", tuple(rest[start : start + middle])),
        Group("Worst", tuple(ranked[len(ranked) - worst :])),
    )
    return tuple(group for group in groups if group.samples)
