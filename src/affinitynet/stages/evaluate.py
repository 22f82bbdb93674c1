"""Stage 7: masks and ground truth -> evaluation/figures.json, every figure with its conditions."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from affinitynet.data import Manifest, Sample
from affinitynet.data.cams import load_cams
from affinitynet.data.scoring import (
    Counts,
    confusion_of_folder,
    intersection_over_union,
    precision_and_coverage,
    score,
    sweep_counts,
)
from affinitynet.engine.shards import Helped
from affinitynet.errors import UserError
from affinitynet.run_folder.artifacts import (
    CAMS,
    CAMS_CLASSIFIER,
    CAMS_CONTRAST,
    EARLIER,
    EVALUATION,
    FIGURES,
    LAST,
    PARTIAL,
    Artifact,
    Conditions,
)
from affinitynet.run_folder.choices import truth_chose
from affinitynet.run_folder.folder import write_json
from affinitynet.run_folder.records import StageFolder
from affinitynet.run_folder.stages import provenance, with_all_behind
from affinitynet.run_folder.store import is_there
from affinitynet.stages.context import Context
from affinitynet.stages.counting import (
    CountTogether,
    count_here,
    count_together,
    forget_counts,
    let_lead,
)

_UNCORRECTED = [(each.masks, each.uncorrected) for each in (*EARLIER, LAST)]


class Findings(NamedTuple):
    """Rows of figures, and what one should know before trusting them."""

    rows: list[dict[str, Any]]
    warnings: list[str]


def work(context: Context) -> dict[str, Any]:
    """Write the figures of all masks there are, on the splits that have ground truth."""
    let_lead(context)
    rows, warnings = measure(context, partial(count_together, context))
    if not context.leads:
        raise Helped
    write_json(
        context.folder(EVALUATION) / FIGURES,
        {"classes": ["background", *context.manifest.classes], "figures": rows},
    )
    forget_counts(context)
    return {
        "miou": {f"{row['stage']} on {row['split']}": row["miou"] for row in rows},
        "warnings": warnings,
    }


def measure(context: Context, count: CountTogether = count_here) -> Findings:
    """Measure all masks there are, on the splits that have ground truth.

    count: counts images, here or together with other processes.
    """
    rows: list[dict[str, Any]] = []
    warnings: list[str] = []
    dataset = context.recipe.dataset
    train = dataset.figures or dataset.train
    for split in dict.fromkeys(name for name in (train, dataset.val) if name):
        samples = _with_truth(context.manifest.splits.get(split, ()))
        for artifact in _measured(context) if samples else ():
            there = sum(is_there(context.file(artifact, sample)) for sample in samples)
            if there == len(samples):
                rows += _rows(context, artifact, split, samples, count)
            elif there or (split == dataset.val and _should_be_there(context, artifact)):
                warnings.append(
                    f"{artifact.folder} holds {there} of {len(samples)} files of {split}: "
                    f"not measured; --redo {context.maker(artifact)} makes them"
                )
    if not rows and not warnings:
        warnings = ["no masks, or no ground truth: there are no figures to tell good from bad"]
    return Findings(rows, warnings)


def _should_be_there(context: Context, artifact: Artifact) -> bool:
    """Tell whether a finished stage makes such files of val: of another val it has made none."""
    maker = context.stage(context.maker(artifact))
    folder = StageFolder(context.folder(maker.artifacts[0]), maker.name)
    return "val" in artifact.roles and folder.record() is not None


def _measured(context: Context) -> Iterator[Artifact]:
    for stage in context.stages:
        yield from (artifact for artifact in stage.artifacts[::-1] if artifact.row)


def _rows(
    context: Context,
    artifact: Artifact,
    split: str,
    samples: Sequence[Sample],
    count: CountTogether,
) -> Iterator[dict[str, Any]]:
    name = f"{split}-{artifact.folder}"
    if artifact in (CAMS, CAMS_CLASSIFIER, CAMS_CONTRAST):
        thresholds = _thresholds(context)
        counts = count(name, samples, partial(_sweep, context, artifact, thresholds))
        if counts:
            yield from _cam_rows(context, artifact, split, samples, thresholds, counts)
        return
    folder = context.folder(artifact)

    def confuse(part: Sequence[Sample]) -> tuple[NDArray[np.int64], ...]:
        confusion = confusion_of_folder(
            context.manifest,
            part,
            folder,
            artifact.row,
            maker=context.maker(artifact),
            # What people corrected says nothing of the method.
            instead=next((context.folder(u) for m, u in _UNCORRECTED if m == artifact), None),
        )
        return (confusion,)

    counts = count(name, samples, confuse)
    if not counts:
        return
    (confusion,) = counts
    row = _start_row(context, artifact, split, samples)
    if artifact in PARTIAL:
        yield row | precision_and_coverage(confusion)
    else:
        yield row | intersection_over_union(confusion)


def measure_folder(manifest: Manifest, split: str, masks: Path) -> dict[str, Any]:
    """Measure a folder of masks whose making is unknown; neutral pixels count as wrong.

    Raises:
        UserError: no such folder, unknown split, no ground truth, or masks that don't fit.
    """
    samples = _with_truth(manifest.split(split))
    if not masks.is_dir():
        raise UserError(f"--masks {masks}: no such folder; name the one that holds the masks")
    if not samples:
        raise UserError(f"split {split!r} has no ground truth to compare with")
    confusion = confusion_of_folder(manifest, samples, masks, masks.name)
    row = describe_row(masks.name, split, samples, None, "unknown")
    return row | intersection_over_union(confusion)


def _start_row(
    context: Context, artifact: Artifact, split: str, samples: Sequence[Sample], **more: Any
) -> dict[str, Any]:
    assert artifact.conditions is not None
    conditions = artifact.conditions(context.recipe)
    # A threshold that truth chose for this very row is said before a setting of a stage.
    more.setdefault("chosen", None)
    more["chosen"] = more["chosen"] or _truth_chose(context, artifact)
    row = describe_row(artifact.row, split, samples, conditions, conditions.tta, **more)
    return row | {"imported": provenance(context.recipe, context.stages) or None}


def _truth_chose(context: Context, artifact: Artifact) -> str | None:
    """Name the settings behind an artifact that ground truth chose, by `affinitynet tune`."""
    names = []
    for name in truth_chose(context.recipe):
        sections = (name, name.partition(".")[0])
        first = next((s for s in context.stages if set(sections) & set(s.settings)), None)
        behind = with_all_behind(first, context.stages) if first else ()
        if any(artifact in stage.artifacts for stage in behind):
            names.append(name)
    return ", ".join(names) or None


def describe_row(
    stage: str,
    split: str,
    samples: Sequence[Sample],
    conditions: Conditions | None,
    tta: str,
    *,
    threshold: float | None = None,
    chosen: str | None = None,
) -> dict[str, Any]:
    """Start a figure's row with everything one must know to compare it."""
    return {
        "stage": stage,
        "split": split,
        "images": len(samples),
        "tags_given": conditions.tags if conditions else None,
        "crf": conditions.crf if conditions else None,
        "tta": tta,
        "threshold": threshold,
        "ground_truth_chose": chosen,
    }


def _thresholds(context: Context) -> NDArray[np.float64]:
    settings = context.recipe.evaluate
    start, stop, step = settings.sweep
    # Half a step more, so that rounding does not lose the last threshold.
    swept = np.arange(start, stop + step / 2, step)
    return np.sort(np.append(swept, settings.cam_background))


def _sweep(
    context: Context,
    artifact: Artifact,
    thresholds: NDArray[np.float64],
    samples: Sequence[Sample],
) -> Counts:
    return sweep_counts(
        context.manifest,
        samples,
        lambda sample: load_cams(
            context.file(artifact, sample), classes=len(context.manifest.classes)
        ),
        thresholds,
    )


def _cam_rows(
    context: Context,
    artifact: Artifact,
    split: str,
    samples: Sequence[Sample],
    thresholds: NDArray[np.float64],
    counts: tuple[NDArray[np.int64], ...],
) -> Iterable[dict[str, Any]]:
    """Measure the CAMs at the background score that the truth shows to be best, and at a fixed."""
    settings = context.recipe.evaluate
    scored = [
        (float(threshold), score(Counts(*vectors)))
        for threshold, *vectors in zip(thresholds, *counts, strict=True)
    ]
    best = max(scored, key=lambda item: item[1]["miou"] or 0.0)
    fixed = min(scored, key=lambda item: abs(item[0] - settings.cam_background))
    for (threshold, figures), chosen in ((best, "background threshold"), (fixed, None)):
        place = {"threshold": round(threshold, 4), "chosen": chosen}
        yield _start_row(context, artifact, split, samples, **place) | figures


def _with_truth(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    return tuple(sample for sample in samples if sample.mask is not None)
