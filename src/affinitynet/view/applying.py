"""Settings of the walk that the page sends: checked, and written into the recipe of the run."""

from typing import Any

from affinitynet.errors import UserError
from affinitynet.run_folder.folder import RECIPE, atomic_write, locked
from affinitynet.run_folder.freshness import flat
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.settings import WalkSettings
from affinitynet.view.viewed import Viewed

MOST_STEPS = 100_000  # of the walk on the page: more would take seconds
_KNOWN = {"alpha", "background_score", "beta", "steps", "refine", "crf"}


def with_changes(walk: WalkSettings, changes: dict[str, Any]) -> WalkSettings:
    """Return settings of the walk with changes, which the page sends; all else stays.

    Raises:
        UserError: an unknown setting, or a value that does not fit.
    """
    own = walk.model_dump()
    crf = changes.get("crf", {})
    if not isinstance(crf, dict) or changes.keys() - _KNOWN or crf.keys() - own["crf"]:
        raise UserError("the page sent a setting that the walk does not have")
    merged = own | changes | {"crf": own["crf"] | crf}
    try:
        settings = WalkSettings.model_validate(merged)
    except ValueError as error:
        first = str(error).splitlines()[1:3]
        raise UserError(f"settings of the walk: {': '.join(map(str.strip, first))}") from error
    if settings.steps > MOST_STEPS:
        raise UserError(f"walk.steps = {settings.steps}: on the page at most {MOST_STEPS:,}")
    return settings


def apply_settings(viewed: Viewed, changes: dict[str, Any]) -> dict[str, Any]:
    """Write changes of the walk's settings into `recipe.yaml`; say what is new and what to do.

    What the page did not change stays as the recipe has it now: a run or a person may have
    written it since the page was opened.

    Raises:
        UserError: as `with_changes`; a run works in the folder now, or the recipe can't be read
            or written.
    """
    file = viewed.root / RECIPE
    with locked(viewed.root):
        # As it is, without `out`: the run folder may have been moved since.
        recipe = Recipe.load(file)
        settings = with_changes(recipe.walk, changes)
        before, after = (flat(walk.model_dump(mode="json")) for walk in (recipe.walk, settings))
        changed = {f"walk.{key}": after[key] for key in after if before.get(key) != after[key]}
        if changed:
            recipe = recipe.model_copy(update={"walk": settings})
            with atomic_write(file) as temporary:
                temporary.write_text(recipe.dump(), encoding="utf-8")
    viewed.recipe = Recipe.load(file, out=viewed.root)
    return {
        "changed": changed,
        "redo": "propagate" if changed else "",
        "command": f"affinitynet run {file} --out {viewed.root} --redo propagate",
        "walk": viewed.walk.model_dump(mode="json"),
    }
