"""Stage 7: masks and ground truth -> evaluation/figures.json, every figure with its conditions."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from affinitynet.data import Manifest, Sample, load_truth, read_labels
from affinitynet.data.sample import output_path
from affinitynet.errors import UserError
from affinitynet.progress import task
from affinitynet.run_folder.folder import write_json
from affinitynet.stages.compute_cams import FOLDER as CAMS
from affinitynet.stages.compute_cams import load_cams
from affinitynet.stages.context import Context
from affinitynet.stages.mine_confident import FOLDER as CONFIDENT
from affinitynet.stages.propagate import FOLDER as PSEUDO
from affinitynet.stages.propagate import WALK
from affinitynet.stages.train_segmenter import PREDICTIONS

FOLDER = "evaluation"

Confusion = NDArray[np.int64]


class Counts(NamedTuple):
    """Pixels per label: hits, predicted as it, truly it; each (..., C + 1)."""

    hits: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]


class Findings(NamedTuple):
    """Rows of figures, and what one should know before trusting them."""

    rows: list[dict[str, Any]]
    warnings: list[str]


def work(context: Context) -> dict[str, Any]:
    """Write the figures of all masks there are, on the splits that have ground truth."""
    rows, warnings = measure(context)
    write_json(
        context.root / FOLDER / "figures.json",
        {"classes": ["background", *context.manifest.classes], "figures": rows},
    )
    return {
        "miou": {f"{row['stage']} on {row['split']}": row["miou"] for row in rows},
        "warnings": warnings,
    }


def measure(context: Context) -> Findings:
    """Measure all masks there are, on the splits that have ground truth."""
    rows: list[dict[str, Any]] = []
    warnings: list[str] = []
    dataset = context.recipe.dataset
    train = dataset.figures or dataset.train
    for split in dict.fromkeys(name for name in (train, dataset.val) if name):
        samples = _with_truth(context.manifest.splits.get(split, ()))
        if samples:
            rows += _rows(context, split, samples)
            warnings += _gaps(context, split, samples)
    if not rows and not warnings:
        warnings = ["no masks, or no ground truth: there are no figures to tell good from bad"]
    return Findings(rows, warnings)


def _gaps(context: Context, split: str, samples: Sequence[Sample]) -> Iterable[str]:
    """Name the folders that hold masks of some images of a split, and so were not measured."""
    for folder in (CONFIDENT, WALK, PSEUDO, PREDICTIONS):
        there = sum(context.file(folder, sample).exists() for sample in samples)
        if 0 < there < len(samples):
            yield f"{folder} holds {there} of {len(samples)} masks of {split}: not measured"


def _rows(context: Context, split: str, samples: Sequence[Sample]) -> Iterable[dict[str, Any]]:
    recipe = context.recipe
    tta = _augmentation(recipe.cams.scales, recipe.cams.flip)
    if all(context.file(CAMS, s, ".npz").exists() for s in samples):
        yield from _cam_rows(context, split, samples, tta)
    masks = [
        (CONFIDENT, "confident", True, recipe.confident.crf.iterations > 0, tta),
        (WALK, "walk", True, False, tta),
        (PSEUDO, "pseudo", True, recipe.walk.refine, tta),
        (
            PREDICTIONS,
            "segmenter",
            False,
            recipe.segmenter.refine,
            _augmentation(recipe.segmenter.scales, recipe.segmenter.flip),
        ),
    ]
    for folder, stage, tags, crf, augmentation in masks:
        if not all(context.file(folder, s).exists() for s in samples):
            continue
        confusion = confusion_of_folder(context.manifest, samples, context.root / folder, stage)
        row = labelled(stage, split, samples, tags=tags, crf=crf, tta=augmentation)
        if stage == "confident":
            yield row | precision_and_coverage(confusion)
        else:
            yield row | intersection_over_union(confusion)


def evaluate_masks(manifest: Manifest, split: str, masks: Path) -> dict[str, Any]:
    """Measure a folder of masks whose making is unknown; neutral pixels count as wrong.

    Raises:
        UserError: unknown split, no ground truth, or masks that don't fit.
    """
    samples = _with_truth(manifest.split(split))
    if not samples:
        raise UserError(f"split {split!r} has no ground truth to compare with")
    confusion = confusion_of_folder(manifest, samples, masks, masks.name)
    row = labelled(masks.name, split, samples, tags=None, crf=None, tta="unknown")
    return row | intersection_over_union(confusion)


def labelled(
    stage: str,
    split: str,
    samples: Sequence[Sample],
    *,
    tags: bool | None,
    crf: bool | None,
    tta: str,
    threshold: float | None = None,
    chosen: str | None = None,
) -> dict[str, Any]:
    """Start a figure's row with everything one must know to compare it."""
    return {
        "stage": stage,
        "split": split,
        "images": len(samples),
        "tags_given": tags,
        "crf": crf,
        "tta": tta,
        "threshold": threshold,
        "ground_truth_chose": chosen,
    }


def confusion_of_folder(
    manifest: Manifest, samples: Sequence[Sample], folder: Path, name: str
) -> Confusion:
    """Count pixels (true label, predicted label): (C + 1, C + 2), the last column is neutral.

    Pixels whose true label is void are left out.

    Raises:
        UserError: a mask is missing, of another size than its truth, or has unknown labels.
    """
    labels = len(manifest.classes) + 1
    confusion = np.zeros((labels, labels + 1), np.int64)
    with task(f"evaluate {name}", len(samples)) as progress:
        for sample in samples:
            file = output_path(folder, sample.id)
            if not file.exists():
                raise UserError(f"{file}: no mask for image {sample.id}")
            truth, mask = load_truth(manifest, sample), read_labels(file).astype(np.int64)
            if mask.shape != truth.shape:
                raise UserError(f"{file}: is {mask.shape}, its ground truth {truth.shape}")
            neutral = mask == manifest.ignore_index
            if (unknown := mask[(mask >= labels) & ~neutral]).size:
                raise UserError(f"{file}: label {unknown[0]} is above the {labels - 1} classes")
            mask[neutral] = labels
            valid = truth != manifest.ignore_index
            confusion += count_pairs(truth[valid], mask[valid], confusion.shape)
            progress.advance()
    return confusion


def count_pairs(
    rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]], shape: tuple[int, ...]
) -> Confusion:
    """Count how often each (row, column) occurs: an int64 array of `shape`."""
    flat = rows.astype(np.int64) * shape[1] + columns
    return np.bincount(flat.ravel(), minlength=shape[0] * shape[1]).reshape(shape[:2])


def intersection_over_union(confusion: Confusion) -> dict[str, Any]:
    """Return the IoU per label and their mean from one confusion matrix (C + 1, C + 1 or C + 2).

    IoU_c = n_cc / (row_c + column_c - n_cc); labels that occur in neither are null and left out of
    the mean. Background counts as a label. A last column counts neutral predictions: misses.
    """
    predicted = confusion[:, : len(confusion)].sum(0)
    return _score(Counts(np.diag(confusion), predicted, confusion.sum(1)))


def _score(counts: Counts) -> dict[str, Any]:
    union = counts.predicted + counts.true - counts.hits
    iou = [float(h / u) if u else None for h, u in zip(counts.hits, union, strict=True)]
    present = [value for value in iou if value is not None]
    return {"miou": float(np.mean(present)) if present else None, "iou": iou}


def precision_and_coverage(confusion: Confusion) -> dict[str, Any]:
    """Say how right the labelled pixels are, and how many are labelled, in all and per side."""
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


def _cam_rows(
    context: Context, split: str, samples: Sequence[Sample], tta: str
) -> Iterable[dict[str, Any]]:
    settings = context.recipe.evaluate
    start, stop, step = settings.sweep
    swept = np.arange(start, stop + step / 2, step)
    thresholds = np.sort(np.append(swept, settings.cam_background))
    counts = sweep_counts(
        context.manifest,
        samples,
        lambda sample: load_cams(context.file(CAMS, sample, ".npz")),
        thresholds,
    )
    scored = [
        (float(threshold), _score(Counts(*vectors)))
        for threshold, *vectors in zip(thresholds, *counts, strict=True)
    ]
    best = max(scored, key=lambda item: item[1]["miou"] or 0.0)
    fixed = min(scored, key=lambda item: abs(item[0] - settings.cam_background))
    for (threshold, figures), chosen in ((best, "background threshold"), (fixed, None)):
        yield (
            labelled(
                "cam",
                split,
                samples,
                tags=True,
                crf=False,
                tta=tta,
                threshold=round(threshold, 4),
                chosen=chosen,
            )
            | figures
        )


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
    return Counts(hits, predicted, np.broadcast_to(true, hits.shape))


def _strongest(
    classes: NDArray[np.int64], scores: NDArray[np.float32], thresholds: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Label of the strongest class of each pixel (K, N), and how many thresholds it is above."""
    if not len(classes):
        none = np.zeros(scores.shape[1], np.int64)
        return none, none
    return classes[scores.argmax(0)] + 1, np.searchsorted(thresholds, scores.max(0), side="left")


def _above(binned: NDArray[np.int64]) -> NDArray[np.int64]:
    """(C + 1, bins) -> (thresholds, C + 1): how many scores lie above each threshold."""
    return np.cumsum(binned[:, ::-1], axis=1)[:, ::-1][:, 1:].T.copy()


def _with_truth(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    return tuple(sample for sample in samples if sample.mask is not None)


def _augmentation(scales: Sequence[float], flip: bool) -> str:
    if tuple(scales) == (1.0,) and not flip:
        return "none"
    return f"scales {', '.join(f'{s:g}' for s in scales)}" + (" and flip" if flip else "")
