"""Which masks of a run are exported: those of a stage, and none that is missing or broken."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from affinitynet.data import Manifest, Sample, read_labels
from affinitynet.data.images import read_size
from affinitynet.data.roles import count_files, samples_of
from affinitynet.errors import UserError
from affinitynet.progress import warn
from affinitynet.run_folder.artifacts import MASKS, PREDICTIONS
from affinitynet.run_folder.folder import output_path
from affinitynet.run_folder.freshness import Freshness
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import RECORD
from affinitynet.run_folder.stages import Stage
from affinitynet.run_folder.store import is_there

_NAMED = 20  # of those left out; their number is said anyway


class Found(NamedTuple):
    """What can be exported: samples with a sound mask, and how many of these have void pixels."""

    samples: tuple[Sample, ...]
    with_void: tuple[str, ...]


def find_masks(
    recipe: Recipe, manifest: Manifest, folder: str, *, partial_: bool, pictures: bool
) -> Found:
    """Return the samples whose mask in `folder` of the run is sound; warn if it is out of date.

    partial_: leave the others out with a warning that names them. pictures: the images must be
    there too; where they are, masks are of their size.

    Raises:
        UserError: no stage makes such masks, or it is not finished, or one is missing or broken.
    """
    stage = _maker(recipe, folder)
    kind = "final" if folder == MASKS.folder else folder
    expected = _expected(recipe, manifest, stage, folder)
    there = sum(is_there(output_path(recipe.out / folder, s.id)) for s in expected)
    unfinished = not (recipe.out / stage.folder / RECORD).is_file()
    if not there or (unfinished and not partial_):
        hint = "" if partial_ or not there else ", or take what is there with --partial"
        raise UserError(
            f"{recipe.out}: the {kind} masks are not finished ({there} are there); let "
            f"`affinitynet run` finish them first{hint}"
        )
    status = Freshness(recipe).status(stage, partial(count_files, recipe, manifest))
    if status.state == "stale":
        warn(f"the {kind} masks are out of date {status.detail}")
    sound: list[Sample] = []
    void: list[str] = []
    faults: list[str] = []
    for sample in expected:
        try:
            has_void = _check(recipe.out / folder, sample, manifest, pictures)
        except UserError as error:
            faults.append(f"{sample.id} ({error})")
            continue
        sound.append(sample)
        if has_void:
            void.append(sample.id)
    if faults:
        _tell(f"{len(faults)} of {len(expected)} {kind} masks", faults, recipe, stage, partial_)
    if not sound:
        raise UserError(f"{recipe.out}: none of the {kind} masks can be exported")
    return Found(tuple(sound), tuple(void))


def _maker(recipe: Recipe, folder: str) -> Stage:
    # Which stage makes these masks depends on the recipe's sources.
    for stage in Freshness(recipe).stages:
        if folder in (artifact.folder for artifact in stage.artifacts):
            return stage
    raise UserError(f"{recipe.out}: this run has no masks in {folder}/; choose another --stage")


def _expected(recipe: Recipe, manifest: Manifest, stage: Stage, folder: str) -> list[Sample]:
    """List the samples that should have a mask, and others that have one, in their order."""
    # What the segmenter is trained on are other images than those that it predicts.
    roles = ("val",) if folder == PREDICTIONS.folder else stage.roles
    ids = {sample.id for sample in samples_of(recipe, manifest, *roles)}
    masks = recipe.out / folder
    return [s for s in manifest.samples if s.id in ids or is_there(output_path(masks, s.id))]


def _check(masks: Path, sample: Sample, manifest: Manifest, pictures: bool) -> bool:
    """Refuse a mask that is missing or broken; return whether it has void pixels."""
    file = output_path(masks, sample.id)
    if not is_there(file):
        raise UserError("its mask is missing")
    labels = read_labels(file)
    values = np.unique(labels).astype(np.int64)
    strange = values[(values > len(manifest.classes)) & (values != manifest.ignore_index)]
    if strange.size:
        raise UserError(f"{file}: has the label {strange[0]}, which is no class")
    asked = pictures or sample.image.is_file()
    if asked and (size := read_size(sample.image, sample.reading)) != labels.shape:
        height, width = labels.shape
        raise UserError(
            f"the mask is {height} x {width}, but {sample.image} is {size[0]} x {size[1]}"
        )
    return bool(values[-1] == manifest.ignore_index)


def _tell(what: str, faults: Sequence[str], recipe: Recipe, stage: Stage, partial_: bool) -> None:
    more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    said = f"{', '.join(faults[:_NAMED])}{more}"
    if partial_:
        warn(f"left out {what}: {said}")
        return
    raise UserError(
        f"{recipe.out}: {what} can't be exported: {said}; make them again with --redo "
        f"{stage.name}, or leave them out with --partial"
    )
