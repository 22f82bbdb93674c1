"""What in a run is done, partial, stale or imported: the one place that decides it.

A stage's files are made from *ingredients*: settings, the images and tags of splits, ground truth,
weights and files of the user's, and the stages before. They are one flat mapping, written down in
the stage's plan; its hash is the stage's fingerprint. A stage is stale when its ingredients
now differ from its plan.

Ingredients outside the run folder are *looked up* by a run that is about to use them, and by
`status --verify`. Code that only reads the run folder (status, report, export) takes them as they
are *recorded*, and opens no image.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

from affinitynet.run_folder.artifacts import CORRECTIONS, FOLDERS
from affinitynet.run_folder.folder import fingerprint, folder_name
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import Plan, Record, StageFolder
from affinitynet.run_folder.setting_types import is_imported
from affinitynet.run_folder.settings_base import LATER
from affinitynet.run_folder.stages import Stage, stages_of

# What the names of ingredients begin with that are no settings.
IMAGES, TRUTH, AFTER, GROUPS = "images of ", "ground truth of ", "after ", "groups"
# Earlier versions did not note them: of a plan without one nothing is known.
_UNNOTED = (GROUPS, "classifier.hold_out")

State = Literal["done", "partial", "stale", "imported", "to do"]
Count = Callable[[Stage], tuple[int, int]]  # of a per-image stage: images with a file, and all


@dataclass(frozen=True)
class StageStatus:
    """How far a stage is."""

    name: str
    state: State
    detail: str = ""
    seconds: float = 0.0

    @property
    def finished(self) -> bool:
        """Tell whether there is nothing left to do."""
        return self.state in ("done", "imported")

    def __str__(self) -> str:
        """Return the state in words, as `affinitynet status` prints it."""
        return f"{self.state} {self.detail}".rstrip()


class Outside(Protocol):
    """Fingerprints the ingredients that lie outside the run folder, each by its content.

    None means that there is no such thing: no images play that role.
    """

    def images(self, stage: Stage, role: str) -> str | None:
        """Fingerprint the images and tags of a role's split."""

    def truth(self, stage: Stage, role: str) -> str | None:
        """Fingerprint the ground truth of a role's split."""

    def groups(self, stage: Stage) -> str | None:
        """Fingerprint which images show the same thing, where that chooses who is held out."""

    def weights(self, stage: Stage, key: str, weights: str) -> str:
        """Fingerprint the weights file that the setting `key` gives."""

    def files(self, stage: Stage, key: str, source: str) -> str:
        """Fingerprint the files that the setting `key` brings in."""


class Recorded:
    """Takes the fingerprints of what lies outside from the plans in the run folder."""

    def __init__(self, root: Path) -> None:
        """Read all plans of the run folder `root`."""
        self._plans = {folder: StageFolder(root / folder, "").plan() for folder in FOLDERS}
        # A stage without a plan of its own takes what another one says of the same thing.
        self._known: dict[str, Any] = {}
        for plan in self._plans.values():
            self._known |= plan.settings if plan else {}

    def images(self, stage: Stage, role: str) -> str | None:
        """Return the recorded fingerprint of the images and tags of a role's split."""
        return self._get(stage, IMAGES + role)

    def truth(self, stage: Stage, role: str) -> str | None:
        """Return the recorded fingerprint of the ground truth of a role's split."""
        return self._get(stage, TRUTH + role)

    def groups(self, stage: Stage) -> str | None:
        """Return the recorded fingerprint of the groups of images."""
        return self._get(stage, GROUPS)

    def weights(self, stage: Stage, key: str, weights: str) -> str:
        """Return the weights' recorded fingerprint; a file of another name is another file."""
        recorded = self._get(stage, key) or ""
        name = Path(weights).name
        return recorded if recorded.startswith(f"{name} ") else f"{name} not seen yet"

    def files(self, stage: Stage, key: str, source: str) -> str:
        """Return the recorded fingerprint of the imported files."""
        return self._get(stage, key) or f"{source} not seen yet"

    def _get(self, stage: Stage, key: str) -> str | None:
        plan = self._plans.get(stage.folder)
        found = (plan.settings if plan else self._known).get(key)
        return None if found is None else str(found)


class Freshness:
    """The ingredients, fingerprints and states of a run's stages."""

    def __init__(self, recipe: Recipe, outside: Outside | None = None) -> None:
        """Look at the run folder `recipe.out`; without `outside` all else is as recorded."""
        self.recipe, self.root = recipe, recipe.out
        self.stages = stages_of(recipe)
        outside = outside or Recorded(self.root)
        self.fingerprints: dict[str, str] = {}
        self.ingredients: dict[str, dict[str, Any]] = {}
        for stage in self.stages:
            found = self._ingredients(stage, outside)
            if plan := self.folder(stage).plan():
                earlier = without_later(found, plan.settings)
                if plan.fingerprint == fingerprint([stage.name, earlier]):
                    found = earlier
            self.ingredients[stage.name] = found
            # With its name: stages of equal ingredients make different files.
            self.fingerprints[stage.name] = fingerprint([stage.name, found])

    def plan(self, stage: Stage) -> Plan:
        """Return the plan of a stage that begins now."""
        return Plan(
            fingerprint=self.fingerprints[stage.name], settings=self.ingredients[stage.name]
        )

    def folder(self, stage: Stage) -> StageFolder:
        """Return the folder that holds a stage's records."""
        return StageFolder(self.root / stage.folder, stage.name)

    def states(self, count: Count) -> list[StageStatus]:
        """Return every stage's state, in order; `count` as for `status`.

        Raises:
            UserError: a stage's record is damaged.
        """
        return [self.status(stage, count) for stage in self.stages]

    def status(self, stage: Stage, count: Count) -> StageStatus:
        """Return a stage's state.

        count: counts the images of a per-image stage that have their file, and all; called only
            where the records can't say it.

        Raises:
            UserError: the stage's record is damaged.
        """
        folder = self.folder(stage)
        if not folder.holds_results():
            return StageStatus(stage.name, "to do")
        plan = folder.plan()
        if plan is None:
            return StageStatus(stage.name, "stale", "(no readable plan.json says what made it)")
        if plan.fingerprint != self.fingerprints[stage.name]:
            # Before looking at the record: files of other ingredients are stale, finished or not.
            now = without_later(self.ingredients[stage.name], plan.settings)
            changes = difference(plan.settings, now)
            return StageStatus(stage.name, "stale", f"({changes})")
        record = folder.record()
        # A record of another plan is of an evaluation that was to be replaced.
        if record is None or record.fingerprint != plan.fingerprint:
            detail = "{} of {}".format(*count(stage)) if stage.suffix else ""
            return StageStatus(stage.name, "partial", detail)
        if stage.source:
            return StageStatus(stage.name, "imported", f"(from {stage.source})", record.seconds)
        return StageStatus(stage.name, "done", _taught_by(record), record.seconds)

    def _ingredients(self, stage: Stage, outside: Outside) -> dict[str, Any]:
        recipe = self.recipe
        found = chosen_settings(recipe, stage.settings)
        # A fingerprint holds those before it, so that a change reaches all stages behind.
        found |= {f"{AFTER}{name}": self.fingerprints[name] for name in stage.reads}
        backbones = {"backbone": recipe.backbone, "segmenter.backbone": recipe.segmenter.backbone}
        for key, backbone in backbones.items():
            # Only stages that build the network depend on its weights.
            if backbone and key.partition(".")[0] in stage.settings:
                weights = backbone.weights
                if weights not in ("imagenet", "none"):
                    weights = outside.weights(stage, f"{key}.weights", weights)
                found[f"{key}.weights"] = weights
        if (text := found.get("cams.text")) is not None:
            found["cams.text"] = outside.weights(stage, "cams.text", text)
        for key, value in list(found.items()):
            imported = key.endswith((".source", ".regions")) and is_imported(str(value))
            if imported or (key == "networks.run" and stage.borrows):
                found[key] = outside.files(stage, key, str(value))
        if stage.corrections and (corrections := describe_corrections(self.root)):
            found[CORRECTIONS] = corrections
        if stage.groups and (groups := outside.groups(stage)):
            found[GROUPS] = groups
        for role in stage.roles:
            images = outside.images(stage, role)
            if images is None:
                continue
            found[IMAGES + role] = images
            if stage.truth:
                found[TRUTH + role] = outside.truth(stage, role)
        return found


def describe_corrections(root: Path) -> str:
    """Count a run folder's corrections and hash their content; "" where there are none."""
    # Looked at whoever asks: unlike images they lie in the run folder.
    folder = root / CORRECTIONS
    count = sum(1 for file in folder.rglob("*.png") if not file.name.startswith("."))
    if not count:
        return ""
    return f"{count} image{'s' * (count > 1)} ({folder_name(folder, ('.png',))})"


def _taught_by(record: Record) -> str:
    count = record.figures.get("corrected")
    return f"({count} mask{'s' * (count > 1)} corrected by hand)" if count else ""


def chosen_settings(recipe: Recipe, keys: Iterable[str]) -> dict[str, Any]:
    """Return the recipe's sections or single settings of these names, by dotted name.

    Without those of `LATER` that change nothing.
    """
    values = recipe.model_dump(mode="json")
    found = flat({key: _pick(values, key) for key in keys})
    return {key: value for key, value in found.items() if LATER.get(key, ...) != value}


def without_later(found: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out settings that a plan of an earlier version does not know, at their default.

    The default of a setting that comes in later means "as before", so files that were made before
    it are what they would be now.
    """
    defaults = _defaults()
    # Ingredients that are no settings, as images and stages before, are in no recipe.
    return {
        key: value
        for key, value in found.items()
        if key in known or (key not in _UNNOTED and (key not in defaults or value != defaults[key]))
    }


@cache
def _defaults() -> dict[str, Any]:
    return flat(Recipe().model_dump(mode="json"))


def difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in words what changed from one mapping of ingredients to the other."""
    changed = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
    own = [_change(key, was, now) for key in changed if not key.startswith(AFTER)]
    # What stands after AFTER are hashes, which tell a reader nothing.
    return "; ".join(own) or "an earlier stage changed"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one, with dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _change(key: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if key.startswith(IMAGES):
        return f"the images or tags of the {key.removeprefix(IMAGES)} split changed"
    if key.startswith(TRUTH):
        return f"the ground truth of the {key.removeprefix(TRUTH)} split changed"
    if key == GROUPS:
        return "the groups of images changed"
    if key == CORRECTIONS:
        before, after = (str(side.get(key) or "none").partition(" (")[0] for side in (was, now))
        return f"the corrections changed: were {before}, are {after}"
    return f"{key} was {json.dumps(was.get(key))}, is {json.dumps(now.get(key))}"


def _pick(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def unfinished(states: Sequence[StageStatus]) -> str:
    """Say which stages are not finished, "" where all are."""
    return ", ".join(f"{status.name} is {status}" for status in states if not status.finished)
