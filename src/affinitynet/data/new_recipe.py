"""Writes a recipe for a data set: own_images with every open choice made, reasons beside."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from affinitynet.data.facts import facts_of
from affinitynet.data.manifest import Manifest
from affinitynet.data.names import compose
from affinitynet.data.read import WITH_BACKGROUND, read_dataset
from affinitynet.data.tags import NORMAL
from affinitynet.errors import UserError
from affinitynet.progress import warn
from affinitynet.run_folder.choices import Choice, choose
from affinitynet.run_folder.flags import list_settings
from affinitynet.run_folder.recipe import Recipe

BASE = "own_images"
_LINE = 100
_ALWAYS = ("backbone.name", "backbone.weights")  # what people change first
_GIVEN = ("name", "data")
_WIDE = 28  # columns before a comment, where they are enough
_NO_TEXT = ("yes", "no", "on", "off", "y", "n", "true", "false", "null")  # to YAML
_COUNTED = 30  # classes whose numbers of images are written down


def write_recipe(
    data: str | Path,
    out: str | Path = "recipe.yaml",
    *,
    format: str = "auto",
    tags: str = "auto",
    page: int | None = None,
) -> Path:
    """Write a commented recipe for a data set to a new file, and return its path.

    It is the recipe `own_images` with the layout, classes, background and splits of the data set,
    and what a run would choose by the number and size of the images. `affinitynet run` takes it as
    it is.

    Raises:
        UserError: the file is there already, or the data set can't be read or learned from.
    """
    data, out = Path(data), Path(out)
    if out.exists():
        raise UserError(f"{out}: is there already; name another file by --out")
    # As written, but from anywhere: symbolic links are kept.
    data = data.expanduser().absolute()
    manifest = read_dataset(data, format=format, tags=tags)
    background = [name for name in manifest.classes if compose(name).casefold() in NORMAL]
    # Were all classes named so, nothing would be left to learn: then they are classes.
    if len(background) == len(manifest.classes) or manifest.layout not in WITH_BACKGROUND:
        background = []
    if background:
        manifest = read_dataset(data, format=format, tags=tags, background=background)
    for note in manifest.notes:
        warn(note)
    given: dict[str, Choice] = {
        "name": Choice(_plain(data), "the data set's; the run folder is runs/<name>"),
        "data": Choice(str(data), "folder of the data set, or the file that lists its tags"),
        **_dataset(manifest, background, tags),
        **({} if page is None else {"dataset.page": Choice(page, "as given")}),
    }
    settings = {key: choice.value for key, choice in given.items()}
    recipe = Recipe.load(BASE, **settings)
    chosen = {**given, **choose(recipe, facts_of(recipe, manifest))}
    text = "\n".join(_lines(chosen, manifest)) + "\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:  # since the first look, which was long ago with many images
        raise UserError(f"{out}: is there already; name another file by --out") from None
    try:
        Recipe.load(out)
    except UserError:
        out.unlink()  # a name that YAML can't hold, as one with a control character
        raise
    return out


def _plain(data: Path) -> str:
    name = re.sub(r"[^\w.-]+", "_", data.stem if data.is_file() else data.name)
    return name.strip("._") or BASE


def _dataset(manifest: Manifest, background: list[str], tags: str) -> dict[str, Choice]:
    """Choices of the section `dataset`."""
    sizes = {name: len(split) for name, split in manifest.splits.items()}
    tagged = {n: sum(bool(s.tags) for s in split) for n, split in manifest.splits.items()}
    train = "train" if tagged.get("train") else max(tagged, key=lambda n: tagged[n])
    if not tagged[train]:
        raise UserError(f"{manifest.root}: no image has a tag, so nothing can be learned; add tags")
    others = [name for name in ("val", "test") if name in sizes and name != train]
    val = others[0] if others else None
    counts = [
        sum(c in s.tags for s in manifest.splits[train]) for c in range(len(manifest.classes))
    ]
    truth = sum(sample.mask is not None for sample in manifest.splits[train])
    found = {
        "format": Choice(manifest.layout, manifest.found),
        "classes": Choice(
            list(manifest.classes),
            f"in this order they are 1, 2, ... in the masks; images of {train} with each: "
            + ", ".join(map(str, counts[:_COUNTED]))
            + (" ..." if len(counts) > _COUNTED else ""),
        ),
        "background": Choice(
            background,
            "their names say that there is nothing; if they are classes, write []"
            if background
            else "no folder or label beside the classes says background",
        ),
        "train": Choice(train, f"{sizes[train]} images, {tagged[train]} of them with a tag"),
        "val": Choice(val, f"{sizes[val]} images" if val else "there is no split val or test"),
        "figures": Choice(
            None,
            f"{truth} images of {train} have ground truth, which figures are measured by"
            if truth
            else f"no image of {train} has ground truth, so there are no figures on it",
        ),
    }
    if tags != "auto":
        found["tags"] = Choice(tags, "as given")
    return {f"dataset.{key}": choice for key, choice in found.items()}


def _lines(chosen: Mapping[str, Choice], manifest: Manifest) -> Iterator[str]:
    """Yield the recipe: what was chosen with its reason, what own_images sets with its meaning."""
    settings = {key: choice.value for key, choice in chosen.items()}
    recipe = Recipe.load(BASE, **settings)
    yield f"# Written by affinitynet init for {_printable(manifest.root)}"
    yield f"# ({len(manifest.samples)} images, layout {manifest.layout})."
    yield "# Run it with: affinitynet run THIS_FILE"
    yield "# Chosen by what the data are: the lines whose comment begins with 'chosen'. The others"
    yield f"# are those of the recipe {BASE}; affinitynet settings lists all there are."
    section = ""
    for setting in list_settings(recipe, Recipe()):
        choice = chosen.get(setting.name)
        said_so = choice or setting.changed or setting.name in _ALWAYS
        if setting.name in ("out", "choose") or not said_so:
            continue
        *parts, name = setting.name.split(".")
        if parts != section.split(".") and parts:
            yield from _open(section, parts)
            section = ".".join(parts)
        indent = "  " * len(parts)
        line = f"{indent}{name}: {_yaml(setting.value)}"
        said = setting.meaning
        if choice:
            said = choice.reason if setting.name in _GIVEN else f"chosen: {choice.reason}"
        if len(line) > _WIDE or _WIDE + len(said) > _LINE:
            start = f"{indent}# "
            yield from _wrap(_printable(said), start)
            yield line
        else:
            yield f"{line:{_WIDE}}  # {_printable(said)}"


def _wrap(text: str, start: str) -> list[str]:
    width = _LINE - len(start)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return [start + line for line in lines]


def _open(before: str, parts: list[str]) -> Iterator[str]:
    """Yield the names of sections that begin here: `walk:`, then `crf:` inside of it."""
    old = before.split(".")
    for depth, part in enumerate(parts):
        if old[: depth + 1] != parts[: depth + 1]:
            yield f"{'' if depth else chr(10)}{'  ' * depth}{part}:"


def _yaml(value: Any) -> str:
    """Write a value as JSON, which YAML reads; a plain word as it is."""
    if isinstance(value, Path):
        value = str(value)
    # YAML 1.1 reads some plain words as booleans or null (_NO_TEXT): a class named "no" needs
    # quotes.
    plain = isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_]*", value)
    return value if plain and value not in _NO_TEXT else json.dumps(value, ensure_ascii=False)


def _printable(text: Any) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(text))
