"""What files held when a run used or made them, so that one that was changed since is noticed.

A file's size and time are looked at first, and its content where they differ: looking at a run
costs no reading, and copying it no error.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from affinitynet.data.manifest import Manifest
from affinitynet.data.roles import samples_of
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import output_path, read_json, write_json
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.stages import Stage
from affinitynet.run_folder.store import content_name, is_there, look

CONTENTS = "contents.json"  # in a stage's folder: the files it made
IMAGES = "images.json"  # in a run folder: the images
_SHOWN = 3


def record_images(recipe: Recipe, manifest: Manifest) -> None:
    """Write down what the images of a run hold; what is recorded and unchanged is not read."""
    _record(recipe.out / IMAGES, _images(recipe, manifest, ("train", "val", "figures")))


def changed_images(
    recipe: Recipe, manifest: Manifest, stage: Stage, *, finished: bool
) -> list[str]:
    """Name the images that hold something else than when a stage that reads them began.

    Others may change: an image of val that was damaged can be mended while train is worked on.
    """
    seen = (role for artifact in stage.artifacts for role in artifact.roles if finished)
    images = _images(recipe, manifest, (*stage.roles, *seen))
    return _changed(recipe.out / IMAGES, images, gone=False)


def record_files(recipe: Recipe, manifest: Manifest, stage: Stage) -> None:
    """Write down what the files hold that a stage has made for each image."""
    if made := _made(recipe, manifest, stage):
        _record(recipe.out / stage.folder / CONTENTS, made)


def changed_files(recipe: Recipe, manifest: Manifest, stage: Stage) -> list[str]:
    """Name the files of a finished stage that were changed, or deleted though they are needed."""
    made, record = _made(recipe, manifest, stage), recipe.out / stage.folder / CONTENTS
    # What is only kept, as scores and affinities are, may be deleted to save space.
    kept = {key: file for key, file in made.items() if key.partition("/")[0] in _kept(stage)}
    needed = {key: file for key, file in made.items() if key not in kept}
    return _changed(record, needed, gone=True) + _changed(record, kept, gone=False)


def say_some(names: Iterable[str]) -> str:
    """List a few names, and say how many there are."""
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (
        f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    )


def _images(recipe: Recipe, manifest: Manifest, roles: Iterable[str]) -> dict[str, Path]:
    samples = samples_of(recipe, manifest, *roles)
    return {sample.id: sample.image for sample in samples}


def _kept(stage: Stage) -> set[str]:
    return {
        a.folder for a in stage.artifacts if a.suffix and not a.labels and a.folder != stage.folder
    }


def _made(recipe: Recipe, manifest: Manifest, stage: Stage) -> dict[str, Path]:
    return {
        f"{artifact.folder}/{sample.id}{artifact.suffix}": output_path(
            recipe.out / artifact.folder, sample.id, artifact.suffix
        )
        for artifact in stage.artifacts
        if artifact.suffix
        for sample in samples_of(recipe, manifest, *(artifact.roles or stage.roles))
    }


def _record(record: Path, files: Mapping[str, Path]) -> None:
    known = _read(record)
    found = {
        key: known[key]
        if _looks_the_same(file, known.get(key))
        else [*look(file), content_name(file)]
        for key, file in files.items()
        if is_there(file)
    }
    # Left alone if equal: going over a finished run writes nothing.
    if found != known:
        write_json(record, found)


def _changed(record: Path, files: Mapping[str, Path], *, gone: bool) -> list[str]:
    known = _read(record)
    changed = []
    for key, file in files.items():
        entry = known.get(key)
        # Not recorded, so there is nothing to compare it with.
        if entry is None or _looks_the_same(file, entry):
            continue
        name = content_name(file)
        if name != entry[2] and (gone or name != "missing"):
            changed.append(key)
    return changed


def _read(record: Path) -> dict[str, Any]:
    try:
        found = read_json(record) if record.is_file() else {}
    except UserError:  # as if there were none: what it would say is only looked at
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {key: entry for key, entry in entries if isinstance(entry, list) and len(entry) == 3}


def _looks_the_same(file: Path, entry: Any) -> bool:
    return entry is not None and list(entry[:2]) == look(file)
