"""Write settings of the walk that were chosen on the page into the recipe of the run."""

from typing import Any

from affinitynet.run_folder.folder import RECIPE, atomic_write, locked
from affinitynet.run_folder.freshness import flat
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.settings import WalkSettings
from affinitynet.view.viewed import Viewed


def apply_settings(viewed: Viewed, settings: WalkSettings) -> dict[str, Any]:
    """Write the walk's settings into `recipe.yaml`, and say what changed and what to do next.

    Raises:
        UserError: a run works in the folder now, or the recipe can't be read or written.
    """
    file = viewed.root / RECIPE
    with locked(viewed.root):
        # As it is, without `out`: the run folder may have been moved since.
        recipe = Recipe.load(file)
        before, after = (flat(walk.model_dump(mode="json")) for walk in (recipe.walk, settings))
        changed = {f"walk.{key}": after[key] for key in after if before.get(key) != after[key]}
        if changed:
            recipe = recipe.model_copy(update={"walk": settings})
            with atomic_write(file) as temporary:
                temporary.write_text(recipe.dump(), encoding="utf-8")
    viewed.recipe = Recipe.load(file, out=viewed.root)
    command = f"affinitynet run {file} --out {viewed.root} --redo propagate"
    return {"changed": changed, "redo": "propagate" if changed else "", "command": command}
