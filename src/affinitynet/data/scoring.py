"""Compare masks and CAMs with ground truth: pixel counts of a whole split, and what follows."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from affinitynet.data.labels import read_labels, read_made
from affinitynet.data.manifest import Manifest
from affinitynet.data.sample import Sample
from affinitynet.data.truth import load_truth
from affinitynet.errors import UserError
from affinitynet.progress import task
from affinitynet.run_folder.folder import output_path
from affinitynet.run_folder.store import is_there

Confusion = NDArray[np.int64]


class Counts(NamedTuple):
    """Pixels per label: hits, predicted as it, truly it; each (..., C + 1)."""

    hits: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]


def confusion_of_folder(
    manifest: Manifest,
    samples: Sequence[Sample],
    folder: Path,
    name: str,
    *,
    maker: str = "",
    instead: Path | None = None,
) -> Confusion:
    """Count pixels (true label, predicted label): (C + 1, C + 2), the last column is neutral.

    Pixels whose true label is void are left out. `maker` is the stage that made the masks, if one
    did. A mask in the folder `instead` counts in place of the image's mask in `folder`.

    Raises:
        UserError: a mask is missing, of another size than its truth, or has unknown labels.
    """
    labels = len(manifest.classes) + 1
    confusion = np.zeros((labels, labels + 1), np.int64)
    with task(f"evaluate {name}", len(samples)) as progress:
        for sample in samples:
            file = output_path(folder, sample.id)
            if instead is not None and is_there(other := output_path(instead, sample.id)):
                file = other
            if not is_there(file):
                raise UserError(
                    f"{file}: no mask for image {sample.id}; all images of the split need one"
                )
            read = partial(read_made, maker=maker) if maker else read_labels
            truth, mask = load_truth(manifest, sample), read(file).astype(np.int64)
            if mask.shape != truth.shape:
                raise UserError(f"{file}: is {mask.shape}, its ground truth {truth.shape}")
            # Where confident areas say nothing they are no mistake of precision, but not covered
            # either.
            neutral = mask == manifest.ignore_index
            if (unknown := mask[(mask >= labels) & ~neutral]).size:
                raise UserError(f"{file}: label {unknown[0]} is above the {labels - 1} classes")
            mask[neutral] = labels  # the last column
            valid = truth != manifest.ignore_index
            confusion += count_pairs(truth[valid], mask[valid], confusion.shape)
            progress.advance()
    return confusion


def count_pairs(
    rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]], shape: tuple[int, ...]
) -> Confusion:
    """Count how often each (row, column) occurs: an int64 array of `shape`."""
    # A number for each pair, so that one bincount counts them all.
    flat = rows.astype(np.int64) * shape[1] + columns
    return np.bincount(flat.ravel(), minlength=shape[0] * shape[1]).reshape(shape[:2])


def intersection_over_union(confusion: Confusion) -> dict[str, Any]:
    """Return the IoU per label and their mean from one confusion matrix (C + 1, C + 1 or C + 2).

    IoU_c = n_cc / (row_c + column_c - n_cc); labels that occur in neither are null and left out of
    the mean. Background counts as a label. A last column counts neutral predictions: misses.
    """
    # Without the neutral column, which is a prediction of no label.
    predicted = confusion[:, : len(confusion)].sum(0)
    return score(Counts(np.diag(confusion), predicted, confusion.sum(1)))


def score(counts: Counts) -> dict[str, Any]:
    """Return IoU, precision and recall per label, and the mean IoU with and without background.

    Null where a label occurs nowhere, is never predicted, or is never true.
    """
    union = counts.predicted + counts.true - counts.hits
    iou = [float(h / u) if u else None for h, u in zip(counts.hits, union, strict=True)]
    present = [value for value in iou if value is not None]
    # Background fills most images, so its IoU is high in any result and lifts a mean of few
    # classes.
    foreground = [value for value in iou[1:] if value is not None]
    return {
        "miou": float(np.mean(present)) if present else None,
        "miou_foreground": float(np.mean(foreground)) if foreground else None,
        "iou": iou,
        "class_precision": _ratios(counts.hits, counts.predicted),
        "class_recall": _ratios(counts.hits, counts.true),
    }


def _ratios(hits: NDArray[np.int64], of: NDArray[np.int64]) -> list[float | None]:
    return [float(hit / all_) if all_ else None for hit, all_ in zip(hits, of, strict=True)]


def precision_and_coverage(confusion: Confusion) -> dict[str, Any]:
    """Measure how many labeled pixels are right, and how many are labeled, in all and per side."""
    decided = confusion[:, :-1]
    right, total = np.diag(decided), decided.sum(0)
    true = confusion.sum(1)

    def ratio(hits: Any, of: Any) -> float | None:
        return float(hits / of) if of else None

    return {
        "miou": None,
        "iou": [None] * len(right),
        "precision": ratio(right.sum(), total.sum()),
        "coverage": ratio(total.sum(), true.sum()),
        "background_precision": ratio(right[0], total[0]),
        "foreground_precision": ratio(right[1:].sum(), total[1:].sum()),
        "background_coverage": ratio(right[0], true[0]),
        "foreground_coverage": ratio(right[1:].sum(), true[1:].sum()),
    }


def sweep_counts(
    manifest: Manifest,
    samples: Sequence[Sample],
    load: Callable[[Sample], tuple[NDArray[np.int64], NDArray[np.float32]]],
    thresholds: NDArray[np.float64],
) -> Counts:
    """Count the CAMs' pixels against a constant background, for all thresholds at once.

    A pixel is its strongest tagged class where that score is above the threshold (ascending),
    else background. Each image is read once: its scores go into bins between thresholds, and sums
    over bins give the counts at every threshold, each (thresholds, C + 1).

    Raises:
        UserError: CAMs of another size than their truth.
    """
    labels, bins = len(manifest.classes) + 1, len(thresholds) + 1
    predicted, hits = np.zeros((2, labels, bins), np.int64)  # by label and bin of the score
    true = np.zeros(labels, np.int64)
    correct_background = np.zeros(bins, np.int64)
    with task("evaluate cam", len(samples)) as progress:
        for sample in samples:
            truth, (classes, cams) = load_truth(manifest, sample), load(sample)
            if cams.shape[1:] != truth.shape:
                raise UserError(
                    f"image {sample.id}: its CAMs are {cams.shape[1:]}, its ground truth "
                    f"{sample.mask} is {truth.shape}"
                )
            valid = truth != manifest.ignore_index
            label, place = _strongest(classes, cams[:, valid], thresholds)
            truth = truth[valid]
            predicted += count_pairs(label, place, (labels, bins))
            right = truth == label
            hits += count_pairs(label[right], place[right], (labels, bins))
            true += np.bincount(truth, minlength=labels)
            correct_background += np.bincount(place[truth == 0], minlength=bins)
            progress.advance()
    background = predicted.sum(0).cumsum()[:-1]  # scores at or below each threshold
    predicted, hits = _above(predicted), _above(hits)
    predicted[:, 0], hits[:, 0] = background, correct_background.cumsum()[:-1]
    # The truth is the same at every threshold.
    return Counts(hits, predicted, np.broadcast_to(true, hits.shape))


def _strongest(
    classes: NDArray[np.int64], scores: NDArray[np.float32], thresholds: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Label of the strongest class of each pixel (K, N), and how many thresholds it is above."""
    if not len(classes):
        none = np.zeros(scores.shape[1], np.int64)
        return none, none
    # left: a score equal to a threshold is not above it.
    return classes[scores.argmax(0)] + 1, np.searchsorted(thresholds, scores.max(0), side="left")


def _above(binned: NDArray[np.int64]) -> NDArray[np.int64]:
    """(C + 1, bins) -> (thresholds, C + 1): how many scores lie above each threshold."""
    # Summed from the highest bin down; the lowest bin is above no threshold, and is left out.
    return np.cumsum(binned[:, ::-1], axis=1)[:, ::-1][:, 1:].T.copy()
