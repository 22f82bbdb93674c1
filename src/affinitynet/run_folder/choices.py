"""Settings that a recipe leaves to the data: chosen once, when the run folder is made.

A recipe names them in `choose`. What is chosen stands in the run folder's `recipe.yaml` like any
other setting, its reason in `choices.json`, and a run that goes on keeps it. A setting that the
user gives is not chosen.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from affinitynet.run_folder.folder import RECIPE, read_json, write_json
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import Paper, checked

CHOICES = "choices.json"
BY_TRUTH = "by truth"  # begins the reason of what ground truth chose
LONG_SIDE = 480  # of own_images' classifier: what it learns from is brought to about this size
# Crops and scales of photographs: smaller images are enlarged to the same size before the networks.
AFFINITY_CROP = 288
SEGMENTER_RANGE = (0.5, 1.25)
SEGMENTER_SCALES = (0.75, 1.0)
# Steps of 8 images: times the root of the number of images, at least and at most. Masks are harder
# to learn than tags, pairs of cells easier, as every crop has thousands of them.
STEPS = {
    "classifier": (17, 150, 3000),
    "affinity": (14, 150, 3000),
    "segmenter": (25, 300, 6000),
}
LARGE = 2048  # pixels of a side: larger images are taken in parts
PART = 1024  # side of tiles and blocks
RARE = 5  # where one class has over this many times the images of another, rare ones are drawn more


class Facts(NamedTuple):
    """What choices go by: training images, their sizes (height, width), images with each class."""

    images: int
    sizes: Sequence[tuple[int, int]]
    counts: Mapping[str, int]


NO_FACTS = Facts(0, (), {})


class Row(Paper):
    """A choice as it stands in the file."""

    value: Any
    reason: str


class Choice(NamedTuple):
    """The value of a setting and why."""

    value: Any
    reason: str


def choose(recipe: Recipe, facts: Facts) -> dict[str, Choice]:
    """Return a choice for each setting that the recipe leaves open, by its dotted name."""
    every = {**_steps(recipe, facts), **_sizes(facts), **_tiles(facts), **_balance(facts)}
    return {key: every[key] for key in recipe.choose}


def settle(recipe: Recipe, facts: Facts) -> tuple[Recipe, dict[str, Choice]]:
    """Return the recipe with nothing left open, and what was chosen now.

    The values of a run folder that is there already are kept.

    Raises:
        UserError: the run folder's recipe is damaged.
    """
    if not recipe.choose:
        return recipe, {}
    file = recipe.out / RECIPE
    # The run's stages were made with these, however many images have come since.
    if file.is_file():
        before = Recipe.load(file, out=recipe.out)
        return _with(recipe, {key: _get(before, key) for key in recipe.choose}), {}
    chosen = choose(recipe, facts)
    return _with(recipe, {key: choice.value for key, choice in chosen.items()}), chosen


def write_choices(root: Path, chosen: Mapping[str, Choice]) -> None:
    """Write what was chosen, and why, beside the recipe."""
    write_json(root / CHOICES, {key: choice._asdict() for key, choice in chosen.items()})


def read_choices(root: Path) -> dict[str, Choice]:
    """Return what was chosen when a run folder was made, and why; empty where nothing was.

    Raises:
        UserError: the file is damaged.
    """
    file = root / CHOICES
    found = read_json(file) if file.is_file() else {}
    rows: dict[str, Row] = checked(found, dict[str, Row], file)
    return {key: Choice(row.value, row.reason) for key, row in rows.items()}


def add_choices(root: Path, chosen: Mapping[str, Choice]) -> None:
    """Write choices beside those that stand in the run folder, or in their place."""
    write_choices(root, {**read_choices(root), **chosen})


def truth_chose(recipe: Recipe) -> tuple[str, ...]:
    """Return the settings of the run folder's recipe that ground truth chose, by dotted name."""
    found = read_choices(recipe.out)
    # One that was changed since is the user's own choice again.
    return tuple(
        key
        for key, choice in found.items()
        if choice.reason.startswith(BY_TRUTH) and _json(_dig(recipe, key)) == _json(choice.value)
    )


def _dig(recipe: Recipe, key: str) -> Any:
    values: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _json(value: Any) -> str:
    return json.dumps(value)


def _steps(recipe: Recipe, facts: Facts) -> dict[str, Choice]:
    """By the root of the number of images: small sets need more epochs, large ones fewer."""
    chosen = {}
    for section, (factor, least, most) in STEPS.items():
        batch = getattr(recipe, section).batch_size
        steps = min(max(round(factor * math.sqrt(facts.images) * 8 / batch, -1), least), most)
        epochs = float(f"{steps * batch / max(facts.images, 1):.2g}")
        reason = f"{facts.images} training images: {epochs:g} times each"
        chosen[f"{section}.steps"] = Choice(int(steps), reason)
    return chosen


def _sizes(facts: Facts) -> dict[str, Choice]:
    """All networks see images at about one size, whatever theirs is: small ones are enlarged.

    At their own size the deepest maps would have too few cells, so that CAMs cover all of an image
    and a walk of 256 steps mixes all of it.
    """
    median = _median_side(facts)
    reason = f"the median long side is {median} pixels"
    scales = tuple(round(LONG_SIDE / median * factor, 3) for factor in (0.5, 1.0, 1.5))
    enlarge = _enlargement(median)
    times = f"{reason}, " + (f"enlarged {enlarge} times" if enlarge > 1 else "taken as it is")
    return {
        "cams.scales": Choice(
            scales, f"{reason}, so that 1/2, 1 and 3/2 of the size learned from are seen"
        ),
        "affinity.scale": Choice(enlarge, times),
        "affinity.crop": Choice(AFFINITY_CROP // enlarge, times),
        "segmenter.scale_range": Choice(_times(enlarge, SEGMENTER_RANGE), times),
        "segmenter.scales": Choice(_times(enlarge, SEGMENTER_SCALES), times),
    }


def _median_side(facts: Facts) -> int:
    # Without a readable image the usual size.
    sides = sorted(max(size) for size in facts.sizes) or [LONG_SIDE]
    return sides[len(sides) // 2]


def _enlargement(side: int) -> int:
    """Return 1, 2 or 4, as affinity.scale may be: what brings a side nearest to LONG_SIDE."""
    return 1 << min(max(round(math.log2(LONG_SIDE / side)), 0), 2)


def _times(factor: int, values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(factor * value for value in values)


def _tiles(facts: Facts) -> dict[str, Choice]:
    """Parts in which large images go through networks and dense CRF, which else take memory."""
    largest = max((max(size) for size in facts.sizes), default=0)
    # Networks see all images enlarged where most are small; the dense CRF sees them as they are.
    zoom = max(1.0, LONG_SIDE / _median_side(facts))
    size = f"the largest image has {largest} pixels on its long side"
    enlarged = f"{size}, {round(zoom * largest)} as networks see it" if zoom > 1 else size
    chosen = {"tile": _part(round(zoom * largest), round(PART / zoom), enlarged)}
    for key in ("confident.block", "walk.block", "relabel.block"):
        chosen[key] = _part(largest, PART, size)
    return chosen


def _part(side: int, part: int, reason: str) -> Choice:
    if side > LARGE:
        return Choice(part, f"{reason}, more than {LARGE}")
    return Choice(0, f"{reason}, and up to {LARGE} go as a whole")


def _balance(facts: Facts) -> dict[str, Choice]:
    counts = {name: count for name, count in facts.counts.items() if count}
    choice = Choice(False, "no image has a tag")
    if counts:
        rarest, commonest = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        uneven = counts[commonest] > RARE * counts[rarest]
        reason = f"{counts[rarest]} images of {rarest}, {counts[commonest]} of {commonest}"
        if len(counts) == 1:
            reason = f"{rarest} is the only class"
        choice = Choice(uneven, reason)
    return {"classifier.balance": choice, "segmenter.balance": choice}


def _with(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    dumped = recipe.model_dump()
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (dumped[section] if section else dumped)[name] = value
    return Recipe.model_validate({**dumped, "choose": ()})


def _get(recipe: Recipe, key: str) -> Any:
    section, _, name = key.rpartition(".")
    return getattr(getattr(recipe, section) if section else recipe, name)
