"""What a stage is made from, as one flat mapping: its hash is the stage's fingerprint."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from affinitynet.run_folder.folder import RECIPE, StageFolder, StageRecord
from affinitynet.run_folder.recipe import Recipe

# What the names of ingredients begin with that are no settings.
IMAGES, TRUTH, AFTER = "images of ", "ground truth of ", "after "


def chosen_settings(recipe: Recipe, keys: Iterable[str]) -> dict[str, Any]:
    """Return the recipe's sections or single settings of these names, by names with dots."""
    values = recipe.model_dump(mode="json")
    return _flat({key: _pick(values, key) for key in keys})


def file_name(file: Path) -> str:
    """Name a file by its content; "missing" where there is none."""
    if not file.is_file():
        return "missing"
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]


def difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in words what changed from one mapping to the other."""
    changed = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
    own = [_change(key, was, now) for key in changed if not key.startswith(AFTER)]
    return "; ".join(own) or "an earlier stage changed"


def outdated(run_folder: Path, folder: str) -> str:
    """Say what changed since a finished stage's files were made, "" where nothing did.

    By the run's own files alone, so a change of the data set goes unseen: `Run.status` sees it.
    """
    recipe = run_folder / RECIPE
    if not recipe.is_file():
        return ""
    settings = _flat(Recipe.load(recipe).model_dump(mode="json"))
    records = [StageFolder(file.parent, "").record() for file in run_folder.glob("*/stage.json")]
    named = {record.stage: record for record in records if record}
    own = StageFolder(run_folder / folder, "").record()
    return _outdated(own, named, settings) if own else ""


def _outdated(
    record: StageRecord, records: Mapping[str, StageRecord], settings: Mapping[str, Any]
) -> str:
    # Weights are recorded by their content.
    own = [key for key in record.settings if key in settings and not key.endswith(".weights")]
    was = {key: record.settings[key] for key in own}
    if was != (now := {key: settings[key] for key in own}):
        return difference(was, now)
    for stage, name in record.settings.items():
        before = records.get(stage.removeprefix(AFTER)) if stage.startswith(AFTER) else None
        if before and (before.fingerprint != name or _outdated(before, records, settings)):
            return "an earlier stage changed"
    return ""


def _change(key: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if key.startswith(IMAGES):
        return f"the images or tags of the {key.removeprefix(IMAGES)} split changed"
    if key.startswith(TRUTH):
        return f"the ground truth of the {key.removeprefix(TRUTH)} split changed"
    return f"{key} was {json.dumps(was.get(key))}, is {json.dumps(now.get(key))}"


def _pick(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
