"""Which source each class's maps come from, as `choose_cams` says, and what follows from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from affinitynet.run_folder.artifacts import CAMS, CHOICE
from affinitynet.run_folder.folder import damaged, read_json
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import checked
from affinitynet.run_folder.settings import WalkSettings

STAGE = "choose_cams"

MapSource = Literal["classifier", "contrast"]
SOURCES: tuple[MapSource, ...] = ("classifier", "contrast")


def read_choice(root: Path, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what was chosen for each class, and why; its `source` is one of `SOURCES`.

    Raises:
        UserError: the file is missing or damaged, or lacks a class.
    """
    file = root / CAMS.folder / CHOICE
    chosen: dict[str, dict[str, Any]]
    try:
        chosen = checked(read_json(file, STAGE), dict[str, dict[str, Any]], file, STAGE)
    except FileNotFoundError as error:
        raise damaged(file, STAGE, "is missing") from error
    if wrong := [c for c in classes if chosen.get(c, {}).get("source") not in SOURCES]:
        raise damaged(file, STAGE, f"names no source for the class {wrong[0]}")
    return chosen


def read_sources(root: Path, classes: Sequence[str]) -> tuple[MapSource, ...]:
    """Return the source of each class's maps, in the order of the classes.

    Raises:
        UserError: as `read_choice`.
    """
    chosen = read_choice(root, classes)
    return tuple(chosen[name]["source"] for name in classes)


def settled(recipe: Recipe, root: Path, classes: Sequence[str]) -> WalkSettings:
    """Return a run's settings of the walk with `background: auto` decided: one of the others.

    A classifier's maps cover an object's breadth, and what is under a score is background. Those
    by contrast are of things a few cells wide: the walk thins them out below any such score, but
    beside a background that walks with them, and is thinned out as they are, they stay larger.

    Raises:
        UserError: `choose_cams` chose the maps, and its file is missing or damaged.
    """
    walk = recipe.walk
    if walk.background != "auto":
        return walk
    sources = read_sources(root, classes) if recipe.cams.source == "auto" else ()
    covering = bool(sources) and set(sources) == {"classifier"}
    return walk.model_copy(update={"background": "constant" if covering else "alpha"})
