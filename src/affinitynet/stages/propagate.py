"""Stage 5: CAMs and affinities -> walk/<id>.png (random walk) and pseudo/<id>.png (dense CRF).

Kept beside them are `scores/<id>.npz`, what the walk made of the maps on its grid, and
`affinities/<id>.npz`. Scores and affinities are rounded to what is kept before anything follows
from them, so that a decision made again from the files gives the same masks. With
`affinity.source = none` nothing walks: the CRF goes on from the CAMs themselves.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
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
from affinitynet.models.affinity_net import AnyAffinityNet, image_affinity, load_affinity_net
from affinitynet.models.feature_net import FeatureNet, build_feature_net
from affinitynet.ops.affinity import cropped_pairs
from affinitynet.ops.propagation import enlarge_scores, label_scores
from affinitynet.progress import say
from affinitynet.run_folder.artifacts import (
    AFFINITIES,
    AFFINITY,
    CAMS,
    PSEUDO,
    SCORES,
    WALK,
)
from affinitynet.run_folder.setting_types import is_imported
from affinitynet.stages.context import Context
from affinitynet.stages.images import Shown, check_size, make_each
from affinitynet.stages.judge_walk import (
    Areas,
    crf_judgements,
    judgements,
    measure,
    read_areas,
    summarize,
)
from affinitynet.stages.regions import Vote, votes
from affinitynet.stages.starting import classifier_to_start_from
from affinitynet.walking import guarded, refined, seeds_of, walked

_BACKGROUNDS = {  # that `auto` can become
    "constant": "a constant background, as choose_cams took the classifier's maps for all classes",
    "alpha": "the background walks with the classes, as not all maps are the classifier's",
}


class Walkable(NamedTuple):
    """An image (H, W, 3) with its affinities (P, h, w), their radius and their grid's stride."""

    image: Tensor
    affinity: Tensor
    radius: int
    stride: int


def work(context: Context) -> dict[str, Any]:
    """Write the walk's and the refined masks of every training image."""
    background = context.walk.background
    if context.recipe.walk.background == "auto":
        say(f"propagate: {_BACKGROUNDS[background]}")
    return {**_masks(context), "background": background}


def _masks(context: Context) -> dict[str, Any]:
    source = context.recipe.affinity.source
    if source == "none":
        return _without_walk(context)
    if is_imported(source):
        return _with_files(context)
    return _with_network(context, _frozen(context) if source == "features" else None)


def _with_files(context: Context) -> dict[str, Any]:
    def compute(sample: Sample, image: Tensor) -> Walkable:
        affinity, radius = load_affinity(context.file(AFFINITIES, sample))
        stride = stride_of(affinity.shape[1:], image.shape[:2])
        return Walkable(image, torch.from_numpy(affinity), radius, stride)

    return _propagate(context, compute)


def _frozen(context: Context) -> FeatureNet:
    """Make the network whose features are the affinities, as trainings make theirs."""
    recipe = context.recipe
    classifier = classifier_to_start_from(context, recipe.affinity.start)
    model = build_feature_net(
        recipe.backbone, recipe.affinity, data=recipe.data, pretrained=classifier is None
    )
    if classifier is not None:
        model.backbone.load_state_dict(classifier.backbone.state_dict())
    return model


def _with_network(context: Context, frozen: FeatureNet | None) -> dict[str, Any]:
    recipe = context.recipe
    model: AnyAffinityNet | FeatureNet = frozen or load_affinity_net(context.folder(AFFINITY))
    hardware = context.hardware_at(recipe.walk.precision)
    with inference(model, hardware) as device:

        def compute(sample: Sample, image: Tensor) -> Walkable:
            affinity = image_affinity(model, image, device, recipe.tile)
            if recipe.affinity.pairs == "cropped":
                affinity = cropped_pairs(affinity, recipe.affinity.radius)
            return Walkable(image, affinity, model.radius, model.stride)

        counts = _propagate(context, compute)
    return {**counts, "precision": hardware.chosen_precision}


def _without_walk(context: Context) -> dict[str, Any]:
    """Write the refined masks of the CAMs themselves."""
    samples, shown = context.samples("train", "figures"), Shown(context, PSEUDO)
    vote = _votes(context, samples)

    def finish(sample: Sample, image: Tensor) -> None:
        classes, cams = _load_cams(context, sample, image)
        settings = context.walk
        seeds = seeds_of(torch.from_numpy(cams), settings)
        local = label_scores(refined(image, seeds, settings) if settings.refine else seeds)
        shown.write(sample, vote(sample, _labels(context, sample, local, classes)))

    counts = make_each(
        context,
        "propagate",
        PSEUDO,
        samples,
        load=lambda sample: torch.from_numpy(load_image(sample.image, sample.reading)),
        compute=lambda sample, image: image,
        finish=finish,
    )
    names, failed = context.manifest.classes, context.failed
    empty = empty_masks(samples, shown, names, failed)
    said = say_empty(empty, "pseudo masks", "compare pseudo/ with cams/ in the report")
    return {**counts, "empty": empty, "judgements": said, "warnings": said}


def _propagate(context: Context, compute: Callable[[Sample, Tensor], Walkable]) -> dict[str, Any]:
    samples, areas = context.samples("train", "figures"), dict[str, Areas]()
    shown, vote = Shown(context, PSEUDO), _votes(context, samples)

    def finish(sample: Sample, computed: Walkable) -> None:
        areas[sample.id] = _finish(context, sample, computed, shown, vote)

    counts = make_each(
        context,
        "propagate",
        PSEUDO,
        samples,
        load=lambda sample: torch.from_numpy(load_image(sample.image, sample.reading)),
        compute=compute,
        finish=finish,
    )
    return {**counts, **_judge(context, samples, areas, shown)}


def _judge(
    context: Context, samples: Sequence[Sample], areas: dict[str, Areas], shown: Shown
) -> dict[str, Any]:
    """Hold the masks against the seeds; `areas` are those of the images made in this call."""
    names, failed, settings = context.manifest.classes, context.failed, context.walk
    found = (areas.get(sample.id) or read_areas(context, sample) for sample in samples)
    rows = summarize(found, names, failed)
    empty = empty_masks(samples, shown, names, failed)
    said = judgements(rows, settings.guard) + (crf_judgements(rows) if settings.refine else [])
    said += say_empty(empty, "pseudo masks", "compare walk/ and pseudo/ with cams/ in the report")
    return {
        "walk": rows,
        "empty": empty,
        "judgements": said,
        "warnings": said,
    }


def _votes(context: Context, samples: Sequence[Sample]) -> Vote:
    return votes(context, "pseudo.regions", context.recipe.pseudo.regions, samples)


def _finish(
    context: Context, sample: Sample, walkable: Walkable, shown: Shown, vote: Vote
) -> Areas:
    image, affinity, radius, stride = walkable
    settings = context.walk
    classes, cams = _load_cams(context, sample, image)
    # float16 as in the file: masks decided again from the file must be the same.
    maps = torch.from_numpy(cams)
    scores = walked(maps, affinity.float(), settings, radius=radius, stride=stride)
    scores = scores.to(torch.float16)
    kept = {artifact.folder for artifact in context.stage("propagate").artifacts}
    if AFFINITIES.folder in kept:
        save_affinity(context.file(AFFINITIES, sample), affinity.numpy())
    if SCORES.folder in kept:
        save_scores(context.file(SCORES, sample), classes.tolist(), scores.numpy())
    spread = enlarge_scores(scores.float(), stride, (image.shape[0], image.shape[1]))
    seeds = seeds_of(maps, settings)
    seed_labels, walk_labels = label_scores(seeds), label_scores(spread)
    trusted = guarded(spread, seeds, seed_labels, walk_labels) if settings.guard else spread
    final = refined(image, trusted, settings) if settings.refine else trusted
    # `walk` holds the walk as it is: what the guard did is between them.
    masks = [_labels(context, sample, k, classes) for k in (walk_labels, label_scores(final))]
    masks[1] = vote(sample, masks[1])
    write_labels(context.file(WALK, sample), masks[0], context.manifest.palette)
    shown.write(sample, masks[1])  # the stage's own file last
    return measure(classes.tolist(), seed_labels, *masks)


def _load_cams(
    context: Context, sample: Sample, image: Tensor
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    file = context.file(CAMS, sample)
    classes, cams = load_cams(file, classes=len(context.manifest.classes))
    check_size(image.shape[:2], cams.shape[1:], file)
    return classes, cams


def _labels(
    context: Context, sample: Sample, local: Tensor, classes: NDArray[np.int64]
) -> NDArray[np.integer[Any]]:
    """Return the data set's labels for an image's own ones, failed classes left out."""
    ignore = context.manifest.ignore_index
    labels = to_labels(local.numpy().astype(np.uint8), classes, ignore)
    return without_failed(labels, context.failed, ignore, sample.tags)


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
