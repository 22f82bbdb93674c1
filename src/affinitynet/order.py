"""The order of the stages, and what each reads, depends on and writes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from affinitynet.errors import UserError, did_you_mean
from affinitynet.run_folder.recipe import Recipe
from affinitynet.stages import (
    compute_cams,
    evaluate,
    mine_confident,
    propagate,
    train_affinity,
    train_classifier,
    train_segmenter,
)
from affinitynet.stages.context import Context


@dataclass(frozen=True)
class Stage:
    """One box of the pipeline: what it reads, which settings it depends on, what it does."""

    name: str
    folder: str
    reads: tuple[str, ...]
    settings: tuple[str, ...]  # recipe sections or single settings, with dots
    roles: Callable[[Recipe], tuple[str, ...]]  # of the splits whose images it depends on
    work: Callable[[Context], dict[str, Any]]
    truth: Callable[[Recipe], bool] = lambda recipe: False  # does it depend on their ground truth?
    suffix: str = ""  # of a per-image stage's files
    also_writes: tuple[str, ...] = ()


def _learnt(recipe: Recipe) -> tuple[str, ...]:
    return ("train",)


def _masked(recipe: Recipe) -> tuple[str, ...]:
    return ("train", "figures")


STAGES = (
    Stage(
        "train_classifier",
        train_classifier.FOLDER,
        (),
        ("seed", "precision", "dataset.train", "backbone", "classifier"),
        _learnt,
        train_classifier.work,
    ),
    Stage(
        "compute_cams",
        compute_cams.FOLDER,
        ("train_classifier",),
        ("dataset.val", "dataset.figures", "cams"),
        lambda recipe: (*recipe.cams.splits, "figures"),
        compute_cams.work,
        suffix=".npz",
    ),
    Stage(
        "mine_confident",
        mine_confident.FOLDER,
        ("compute_cams",),
        ("confident",),
        _masked,
        mine_confident.work,
        truth=lambda recipe: recipe.confident.source == "truth",
        suffix=".png",
    ),
    Stage(
        "train_affinity",
        train_affinity.FOLDER,
        ("mine_confident",),
        ("seed", "precision", "backbone", "affinity"),
        _learnt,
        train_affinity.work,
    ),
    Stage(
        "propagate",
        propagate.FOLDER,
        ("compute_cams", "train_affinity"),
        ("walk",),
        _masked,
        propagate.work,
        suffix=".png",
        also_writes=(propagate.WALK, propagate.SCORES),
    ),
    Stage(
        "train_segmenter",
        train_segmenter.FOLDER,
        ("propagate",),
        ("seed", "precision", "backbone", "segmenter"),
        _learnt,
        train_segmenter.work,
        also_writes=(train_segmenter.PREDICTIONS,),
    ),
    Stage(
        "evaluate",
        evaluate.FOLDER,
        ("compute_cams", "mine_confident", "propagate", "train_segmenter"),
        ("dataset", "evaluate"),
        lambda recipe: ("figures" if recipe.dataset.figures else "train", "val"),
        evaluate.work,
        truth=lambda recipe: True,
    ),
)
NAMES = tuple(stage.name for stage in STAGES)
FOLDERS = tuple(folder for stage in STAGES for folder in (stage.folder, *stage.also_writes))


def find_stage(name: str) -> Stage:
    """Return the stage of that name.

    Raises:
        UserError: there is none.
    """
    for stage in STAGES:
        if stage.name == name:
            return stage
    hint = did_you_mean(name, NAMES, cutoff=0.5)
    hint = f"{hint} There are" if hint else "choose from"
    raise UserError(f"{name!r} is no stage: {hint} {', '.join(NAMES)}")


def with_all_behind(first: Stage) -> tuple[Stage, ...]:
    """Return a stage and all that read it, directly or not, in order."""
    found = [first]
    for stage in STAGES:
        if any(earlier.name in stage.reads for earlier in found):
            found.append(stage)
    return tuple(found)
