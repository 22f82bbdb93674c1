"""Stage 5: CAMs and affinities -> walk/<id>.png (random walk) and pseudo/<id>.png (dense CRF).

Kept beside them are `scores/<id>.npz`, what the walk made of the maps on its grid, and
`affinities/<id>.npz`. Scores and affinities are rounded to what is kept before anything follows
from them, so that a decision made again from the files gives the same masks.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from affinitynet.data import Sample, load_image, write_labels
from affinitynet.data.cams import load_cams
from affinitynet.data.emptiness import empty_masks, say_empty
from affinitynet.data.grids import load_affinity, save_affinity, save_scores
from affinitynet.data.labels import to_labels
from affinitynet.data.sources.enlarge import grid_stride
from affinitynet.data.verdicts import without_failed
from affinitynet.errors import UserError
from affinitynet.hardware import inference
from affinitynet.models.affinity_net import AffinityNet, image_affinity
from affinitynet.ops.affinity import cropped_pairs
from affinitynet.ops.blocks import in_blocks
from affinitynet.ops.crf import dense_crf
from affinitynet.ops.guard import fall_back, seed_scores, wrong_classes
from affinitynet.ops.propagation import (
    enlarge_scores,
    label_scores,
    refine_scores,
    walk_scores,
)
from affinitynet.run_folder.stages import AFFINITIES, AFFINITY, CAMS, PSEUDO, SCORES, WALK
from affinitynet.stages.context import Context
from affinitynet.stages.images import check_size, make_each
from affinitynet.stages.judge_walk import Areas, judgements, measure, read_areas, summarize


class Walkable(NamedTuple):
    """An image (H, W, 3) with its affinities (P, h, w), their radius and their grid's stride."""

    image: Tensor
    affinity: Tensor
    radius: int
    stride: int


def work(context: Context) -> dict[str, Any]:
    """Write the walk's and the refined masks of every training image."""
    imported = context.stage("train_affinity").source
    return _with_files(context) if imported else _with_network(context)


def _with_files(context: Context) -> dict[str, Any]:
    def compute(sample: Sample, image: Tensor) -> Walkable:
        affinity, radius = load_affinity(context.file(AFFINITIES, sample))
        stride = stride_of(affinity.shape[1:], image.shape[:2])
        return Walkable(image, torch.from_numpy(affinity), radius, stride)

    return _propagate(context, compute)


def _with_network(context: Context) -> dict[str, Any]:
    recipe = context.recipe
    model = AffinityNet.load(context.folder(AFFINITY))
    hardware = context.hardware_at(recipe.walk.precision)
    with inference(model, hardware) as device:

        def compute(sample: Sample, image: Tensor) -> Walkable:
            affinity = image_affinity(model, image, device)
            if recipe.affinity.pairs == "cropped":
                affinity = cropped_pairs(affinity, recipe.affinity.radius)
            return Walkable(image, affinity, model.radius, model.stride)

        counts = _propagate(context, compute)
    return {**counts, "precision": hardware.chosen_precision}


def _propagate(context: Context, compute: Callable[[Sample, Tensor], Walkable]) -> dict[str, Any]:
    samples, areas = context.samples("train", "figures"), dict[str, Areas]()

    def finish(sample: Sample, computed: Walkable) -> None:
        areas[sample.id] = _finish(context, sample, computed)

    counts = make_each(
        context,
        "propagate",
        PSEUDO,
        samples,
        load=lambda sample: torch.from_numpy(load_image(sample.image)),
        compute=compute,
        finish=finish,
    )
    return {**counts, **_judge(context, samples, areas)}


def _judge(context: Context, samples: Sequence[Sample], areas: dict[str, Areas]) -> dict[str, Any]:
    """Hold the masks against the seeds; `areas` are those of the images made in this call."""
    names, failed = context.manifest.classes, context.failed
    found = (areas.get(sample.id) or read_areas(context, sample) for sample in samples)
    rows = summarize(found, names, failed)
    empty = empty_masks(samples, lambda sample: context.file(PSEUDO, sample), names, failed)
    said = judgements(rows, context.recipe.walk.guard)
    said += say_empty(empty, "pseudo masks", "compare walk/ and pseudo/ with cams/ in the report")
    return {"walk": rows, "empty": empty, "judgements": said, "warnings": said}


def _finish(context: Context, sample: Sample, walkable: Walkable) -> Areas:
    image, affinity, radius, stride = walkable
    settings = context.recipe.walk
    file = context.file(CAMS, sample)
    classes, cams = load_cams(file, classes=len(context.manifest.classes))
    check_size(image.shape[:2], cams.shape[1:], file)
    # float16 as in the file: masks decided again from the file must be the same.
    scores = walk_scores(
        torch.from_numpy(cams),
        affinity.float(),
        alpha=settings.alpha,
        beta=settings.beta,
        steps=settings.steps,
        radius=radius,
        stride=stride,
    ).to(torch.float16)
    kept = {artifact.folder for artifact in context.stage("propagate").artifacts}
    if AFFINITIES.folder in kept:
        save_affinity(context.file(AFFINITIES, sample), affinity.numpy())
    if SCORES.folder in kept:
        save_scores(context.file(SCORES, sample), classes.tolist(), scores.numpy())
    spread = enlarge_scores(scores.float(), stride, (image.shape[0], image.shape[1]))
    seeds = seed_scores(torch.from_numpy(cams), settings.alpha)
    seed_labels, walk_labels = label_scores(seeds), label_scores(spread)
    trusted = spread
    if settings.guard:
        wrong = wrong_classes(seed_labels, walk_labels, len(classes))
        trusted = fall_back(spread, seeds, wrong) if wrong.any() else spread
    refined = _refined(context, image, trusted) if settings.refine else trusted
    ignore = context.manifest.ignore_index
    masks = []
    # The stage's own file last. `walk` holds the walk as it is: what the guard did is between them.
    for artifact, local in ((WALK, walk_labels), (PSEUDO, label_scores(refined))):
        labels = to_labels(local.numpy().astype(np.uint8), classes, ignore)
        labels = without_failed(labels, context.failed, ignore, sample.tags)
        write_labels(context.file(artifact, sample), labels, context.manifest.palette)
        masks.append(labels)
    return measure(classes.tolist(), seed_labels, *masks)


def _refined(context: Context, image: Tensor, scores: Tensor) -> Tensor:
    settings = context.recipe.walk
    crf = settings.crf.model_dump()
    if not settings.block or len(scores) == 1:  # nothing to refine in the background alone
        return refine_scores(image, scores, **crf)
    return in_blocks(
        partial(dense_crf, **crf),
        image,
        scores,
        block=settings.block,
        bilateral_sxy=settings.crf.bilateral_sxy,
    )


def stride_of(grid: tuple[int, ...], image: tuple[int, ...]) -> int:
    """Return the side in pixels of the cells of imported affinities, 8 where several would fit.

    Raises:
        UserError: no whole stride brings the image (H, W) to the grid (h, w).
    """
    stride = grid_stride((grid[0], grid[1]), (image[0], image[1]), 8)
    if stride is None:
        raise UserError(
            f"affinities of {grid[0]} x {grid[1]} are no grid of an image of {image[0]} x "
            f"{image[1]}: the image was replaced; put the old one back, or --redo train_affinity"
        )
    return stride
