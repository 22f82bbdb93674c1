"""Choose settings one after the other, and tell how well that does on images it did not see."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from affinitynet.run_folder.settings import WalkSettings
from affinitynet.tuning.settings import TUNABLE, Tunable, value_of, values_to_try, with_value

FOLDS = 5
# What a choice by settings is worth, image by image: settings -> (N,), higher is better.
Score = Callable[[WalkSettings], NDArray[np.float64]]


class Curve(NamedTuple):
    """The score of each value of a setting, its mean and standard error over the images."""

    name: str
    values: list[Any]
    means: list[float]
    errors: list[float]
    now: Any


class Validation(NamedTuple):
    """The scores of images whose fold had no part in the choice; each a mean, and folds' spread."""

    now: float
    chosen: float
    now_spread: float
    chosen_spread: float
    folds: int


def curves(walk: WalkSettings, score: Score) -> list[Curve]:
    """Score each setting's values while the others stay as they are."""
    return [_curve(walk, tunable, score) for tunable in TUNABLE]


def choose(
    walk: WalkSettings, score: Score, chosen: NDArray[np.bool_] | None = None
) -> WalkSettings:
    """Choose a value for each setting in turn, by the images `chosen`, (N,) bool.

    A value takes the place of the one before if it is better by more than a standard error of the
    difference, image by image: what a few images can't tell apart stays as it is.
    """
    for tunable in TUNABLE:
        now = _of(score(walk), chosen)
        best, most = walk, 0.0
        for value in values_to_try(walk, tunable):
            other = with_value(walk, tunable.name, value)
            gains = _of(score(other), chosen) - now
            if gains.mean() > max(most, _error(gains)):
                best, most = other, float(gains.mean())
        walk = best
    return walk


def validate(walk: WalkSettings, score: Score, images: int) -> Validation:
    """Choose on all folds but one, score that one, and so on: every image once."""
    folds = min(FOLDS, images)
    # Every n-th image: neighbors in a list are often of one kind.
    fold_of = np.arange(images) % folds
    pairs = []
    for fold in range(folds):
        chosen = choose(walk, score, fold_of != fold)
        pairs.append([float(score(w)[fold_of == fold].mean()) for w in (walk, chosen)])
    means, spreads = np.mean(pairs, 0), np.std(pairs, 0, ddof=1)
    (now, best), (now_spread, best_spread) = means.tolist(), spreads.tolist()
    return Validation(now, best, now_spread, best_spread, folds)


def changes(before: WalkSettings, after: WalkSettings) -> dict[str, Any]:
    """Return the settings that were chosen differently, by their names in the recipe."""
    return {
        f"walk.{tunable.name}": value_of(after, tunable.name)
        for tunable in TUNABLE
        if value_of(after, tunable.name) != value_of(before, tunable.name)
    }


def _curve(walk: WalkSettings, tunable: Tunable, score: Score) -> Curve:
    values = values_to_try(walk, tunable)
    scores = [score(with_value(walk, tunable.name, value)) for value in values]
    means = [float(found.mean()) for found in scores]
    return Curve(
        tunable.name, values, means, [_error(f) for f in scores], value_of(walk, tunable.name)
    )


def _of(values: NDArray[np.float64], chosen: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    return values if chosen is None else values[chosen]


def _error(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the standard error of the mean; 0 of a single value."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
