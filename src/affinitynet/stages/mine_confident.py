"""Stage 3: CAMs and dense CRF -> confident/<id>.png: background, classes, 255 neutral."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from affinitynet.data import Sample, load_picture, load_truth
from affinitynet.data.cams import load_cams
from affinitynet.data.emptiness import empty_masks, empty_seeds, say_empty, too_many
from affinitynet.data.images import read_size
from affinitynet.data.judgements import (
    NOT_LEARNED,
    all_failed,
    failed_seeds,
    judge_classes,
    next_step,
)
from affinitynet.data.labels import to_labels
from affinitynet.data.verdicts import without_failed
from affinitynet.errors import UserError
from affinitynet.ops.blocks import in_blocks
from affinitynet.ops.confidence import confident_labels
from affinitynet.run_folder.artifacts import CAMS, CONFIDENT
from affinitynet.stages.context import Context
from affinitynet.stages.images import Shown, check_size, make_each
from affinitynet.stages.regions import votes


def work(context: Context) -> dict[str, Any]:
    """Write the confident areas of every training image."""
    truth = context.recipe.confident.source == "truth"
    seeds = [] if truth else _judge_seeds(context)
    failed = failed_seeds(seeds)
    mine = _from_truth if truth else partial(_from_cams, failed=failed)
    samples = context.samples("train", "figures")
    vote = votes(context, "confident.regions", context.recipe.confident.regions, samples)
    shown = Shown(context, CONFIDENT)
    counts = make_each(
        context,
        "mine_confident",
        CONFIDENT,
        samples,
        load=lambda sample: None,
        compute=lambda sample, _: None,
        finish=lambda sample, _: shown.write(sample, vote(sample, mine(context, sample))),
    )
    empty = empty_masks(samples, shown, context.manifest.classes, failed)
    judgements = [] if truth else _say(context, seeds, empty)
    warning = "confident areas come from ground truth: an upper bound, not a result"
    return {
        **counts,
        "seeds": seeds,
        "empty": empty,
        "judgements": judgements,
        "warnings": [warning] if truth else judgements,
    }


def _judge_seeds(context: Context) -> list[dict[str, Any]]:
    """Count empty seeds, and say of each class whether it fails; none does without hold_out."""
    settings = context.recipe.confident
    try:
        rows = empty_seeds(
            context.samples("train"),
            lambda sample: context.file(CAMS, sample),
            context.manifest.classes,
            settings.low_alpha,
            settings.foreground_over if settings.rule == "thresholds" else None,
        )
    except UserError as error:
        raise UserError(f"mine_confident: {error}") from error
    empty = [index for index, row in enumerate(rows) if too_many(row)]
    judged = context.recipe.classifier.hold_out > 0  # the paper's recipes take classes as they are
    return judge_classes(rows, context.unlearned, empty if judged else ())


def _say(context: Context, seeds: Sequence[dict[str, Any]], empty: dict[str, Any]) -> list[str]:
    """Name the classes that fail, and those whose small objects the confident areas lose."""
    fate = "goes on all the same" if all_failed(seeds) else "is neutral in its images"
    lines = []
    for row in seeds:
        if row["failed"] or too_many(row):
            lines.append(
                f"class {row['class']} {fate if row['failed'] else 'has poor maps'}: "
                f"{_why(row)}; {next_step(context.recipe, row)}"
            )
    spoken = {row["class"] for row in seeds if row["failed"] or too_many(row)}
    kept = {**empty, "classes": [row for row in empty["classes"] if row["class"] not in spoken]}
    advice = "the affinity network learns little of it: it is small, or its maps are weak"
    return [*lines, *say_empty(kept, "confident areas", advice)]


def _why(row: dict[str, Any]) -> str:
    count = f"empty seeds in {row['empty']} of {row['images']} images"
    return f"{NOT_LEARNED}, {count}" if row["failed"] == NOT_LEARNED else count


def _from_cams(
    context: Context, sample: Sample, failed: Sequence[int] = ()
) -> NDArray[np.integer[Any]]:
    settings = context.recipe.confident
    image, file = load_picture(sample.image, sample.reading), context.file(CAMS, sample)
    classes, cams = load_cams(file, classes=len(context.manifest.classes))
    check_size(image.shape[:2], cams.shape[1:], file)
    label = partial(
        confident_labels,
        low_alpha=settings.low_alpha,
        high_alpha=settings.high_alpha,
        background_priority=settings.priority == "background",
        thresholds=(settings.foreground_over, settings.background_under)
        if settings.rule == "thresholds"
        else None,
        **settings.crf.model_dump(),
    )
    local = in_blocks(
        label,
        torch.from_numpy(image),
        torch.from_numpy(cams),
        block=settings.block,
        bilateral_sxy=settings.crf.bilateral_sxy,
    ).numpy()
    ignore = context.manifest.ignore_index
    return without_failed(to_labels(local, classes, ignore), failed, ignore, sample.tags)


def _from_truth(context: Context, sample: Sample) -> NDArray[np.integer[Any]]:
    if sample.mask is None:
        raise UserError("confident.source = truth, but this image has no ground truth")
    truth, size = load_truth(context.manifest, sample), read_size(sample.image, sample.reading)
    if truth.shape != size:
        raise UserError(f"{sample.mask}: is {truth.shape}, its image {size}")
    return truth
