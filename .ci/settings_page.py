"""Write docs/settings.md: the recipes that come along, and every setting of a recipe.

    python .ci/settings_page.py

It is made of the settings' own descriptions; a test says when it is out of date.
"""

from itertools import groupby
from pathlib import Path

from affinitynet.run_folder.flags import Setting, find_section, list_settings, show_value
from affinitynet.run_folder.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "settings.md"
RECIPES = ROOT / "src" / "affinitynet" / "recipes"
HEAD = """\
# Recipes and settings

<!-- Made by .ci/settings_page.py out of the recipes and the settings' descriptions. -->

A recipe is a YAML file of settings; what it leaves out has its default, which is that of the
paper's code where there is one. Every setting is also a flag that wins over the recipe:
`--walk.beta 10`, `--cams.scales 0.5 1`, `--dataset.val null`. `affinitynet settings RECIPE` prints
this list with a recipe's values and marks what differs from the default; `recipe.yaml` in a run
folder holds all of them.

## Recipes that come along

`affinitynet run NAME` takes one by its name.

| recipe | what for |
|---|---|
"""


def page() -> str:
    """Return the page's text."""
    own = Recipe.load("own_images")
    recipes = sorted(RECIPES.glob("*.yaml"))
    rows = "".join(f"| `{file.stem}` | {about(file)} |\n" for file in recipes)
    sections = groupby(list_settings(own, Recipe()), lambda setting: section_of(setting.name))
    tables = "".join(table(name, list(found), own) for name, found in sections)
    return f"{HEAD}{rows}\n## Settings\n{tables}"


def about(recipe: Path) -> str:
    """Return the first sentence of a recipe's comment."""
    lines = (line for line in recipe.read_text(encoding="utf-8").splitlines())
    comment = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("# "))
    return cell(comment.partition(". ")[0].rstrip("."))


def section_of(name: str) -> str:
    """Return the section of a setting, empty at the top level."""
    return name.partition(".")[0] if "." in name else ""


def table(section: str, settings: list[Setting], own: Recipe) -> str:
    """Return a section's heading and table."""
    model = find_section(Recipe, section) if section else None
    title = f"`{section}`" if section else "The run"
    said = f"{(model.__doc__ or '').splitlines()[0]}\n\n" if model else ""
    rows = "".join(
        f"| `{setting.name}` | {value(setting.default)} | {own_value(setting, own)} "
        f"| {cell(setting.meaning)} |\n"
        for setting in settings
    )
    head = "| setting | default | `own_images` | what it is |\n|---|---|---|---|\n"
    return f"\n### {title}\n\n{said}{head}{rows}"


def own_value(setting: Setting, own: Recipe) -> str:
    """Return what own_images has, where it differs from the default."""
    if setting.name in own.choose:
        return "chosen by the images"
    return value(setting.value) if setting.changed else ""


def value(found: object) -> str:
    """Return a value as a cell."""
    return f"`{cell(show_value(found))}`"


def cell(text: str) -> str:
    """Keep a text within its cell, and no tag."""
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
