"""Stage 3: CAMs and dense CRF -> confident/<id>.png: background, classes, 255 neutral."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from affinitynet.data import Sample, load_image, load_truth, write_labels
from affinitynet.data.cams import load_cams
from affinitynet.data.labels import to_labels
from affinitynet.data.verdicts import without_failed
from affinitynet.errors import UserError
from affinitynet.ops.confidence import confident_labels
from affinitynet.run_folder.stages import CAMS, CONFIDENT
from affinitynet.stages.context import Context
from affinitynet.stages.images import check_size, make_each


def work(context: Context) -> dict[str, Any]:
    """Write the confident areas of every training image."""
    mine = _from_truth if context.recipe.confident.source == "truth" else _from_cams
    counts = make_each(
        context,
        "mine_confident",
        CONFIDENT,
        context.samples("train", "figures"),
        load=lambda sample: None,
        compute=lambda sample, _: None,
        finish=lambda sample, _: write_labels(
            context.file(CONFIDENT, sample), mine(context, sample), context.manifest.palette
        ),
    )
    truth = context.recipe.confident.source == "truth"
    warning = "confident areas come from ground truth: an upper bound, not a result"
    return {**counts, "warnings": [warning] if truth else []}


def _from_cams(context: Context, sample: Sample) -> NDArray[np.integer[Any]]:
    settings = context.recipe.confident
    image, file = load_image(sample.image), context.file(CAMS, sample)
    classes, cams = load_cams(file, classes=len(context.manifest.classes))
    check_size(image.shape[:2], cams.shape[1:], file)
    local = confident_labels(
        torch.from_numpy(image),
        torch.from_numpy(cams),
        settings.low_alpha,
        settings.high_alpha,
        background_priority=settings.priority == "background",
        **settings.crf.model_dump(),
    ).numpy()
    ignore = context.manifest.ignore_index
    return without_failed(to_labels(local, classes, ignore), context.failed, ignore)


def _from_truth(context: Context, sample: Sample) -> NDArray[np.integer[Any]]:
    if sample.mask is None:
        raise UserError("confident.source = truth, but this image has no ground truth")
    truth, size = load_truth(context.manifest, sample), load_image(sample.image).shape[:2]
    if truth.shape != size:
        raise UserError(f"{sample.mask}: is {truth.shape}, its image {size}")
    return truth
