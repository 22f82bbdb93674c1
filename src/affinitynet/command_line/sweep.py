"""`affinitynet sweep`: values of the walk's settings side by side, from what a run keeps."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from affinitynet.command_line.parser import JSON, RUN, argument, print_json

SWEEP = (
    RUN,
    argument("--images", "images to look at (default: 40)", int, default=40),
    JSON,
)


def sweep(run: Path, images: int, json: bool, values: dict[str, list[Any]]) -> None:
    """Try values of the walk's settings, without a network.

    As in `affinitynet sweep RUN --walk.beta 4 8 16 --walk.alpha 8 16`: all combinations. Masks are
    decided from the affinities that the run kept, and compared with ground truth if there is any.
    Nothing is written.
    """
    # Here, so that `affinitynet --help` does not wait for what only this command needs.
    from affinitynet.pipeline import Run
    from affinitynet.run_folder.flags import show_value
    from affinitynet.tuning.sweep import sweep_run

    Run.open(run)  # for its message where there is no run
    found = sweep_run(run, values, images=images)
    if json:
        print_json(found)
        return
    names = list(found["rows"][0])
    widths = [max(len(name), 8) for name in names]
    print("  ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True)))
    for row in found["rows"]:
        shown = [
            show_value(row[name]) if name in values or row[name] is None else f"{row[name]:.4f}"
            for name in names
        ]
        print("  ".join(f"{text:>{width}}" for text, width in zip(shown, widths, strict=True)))
    if found["by"] == "truth":
        print(f"by ground truth on {found['images']} images: figures by these settings are its")
    else:
        print(f"without ground truth, on {found['images']} images: see docs/choosing-settings.md")


def split_values(
    words: Sequence[str], own: Collection[str]
) -> tuple[list[str], dict[str, list[Any]]]:
    """Take settings with several values each out of a command's words.

    Raises:
        UserError: an unknown setting, or a value that can't be read.
    """
    from affinitynet.errors import UserError
    from affinitynet.run_folder.flags import nearest_settings, read_flag, setting_names
    from affinitynet.run_folder.recipe import Recipe

    rest: list[str] = []
    found: dict[str, list[str]] = {}
    key = ""
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--") and name not in own:
            key = name[2:].replace("-", "_")
            if key not in setting_names(Recipe):
                hint = nearest_settings(Recipe, key, [flag.lstrip("-") for flag in own])
                raise UserError(f"unknown setting --{key}{hint and ': '}{hint}")
            found.setdefault(key, []).extend([value] if equals else [])
        elif key and not word.startswith("--"):
            found[key].append(word)
        else:
            key = ""
            rest.append(word)
    for name, given in found.items():
        if not given:
            raise UserError(f"--{name} needs a value")
    return rest, {name: [read_flag(Recipe, name, [w]) for w in g] for name, g in found.items()}
