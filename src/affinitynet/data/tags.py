"""Names of classes to indices, with messages that name the image and the nearest class."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from affinitynet.data.text import read_lines
from affinitynet.errors import UserError

BACKGROUND = "background"


def class_names(
    root: Path, given: Sequence[str] | None, found: Iterable[str] = ()
) -> tuple[str, ...]:
    """The class list: the one given, else ``classes.txt`` in the root, else ``found``, each once.

    ``classes.txt`` has one name a line. A leading "background" is dropped: it is label 0 anyhow.
    Raises UserError, naming the list, where it is empty or a name is in it twice.
    """
    file = root / "classes.txt"
    if given is not None:
        return _checked([name.strip() for name in given], "dataset.classes")
    if file.is_file():
        return _checked(read_lines(file), str(file))
    return tuple(name for name in dict.fromkeys(found) if name.casefold() != BACKGROUND)


def _checked(names: list[str], source: str) -> tuple[str, ...]:
    if names and names[0].casefold() == BACKGROUND:
        names = names[1:]
    if not names:
        raise UserError(f"{source} names no class: write one name a line, or leave it out.")
    if BACKGROUND in map(str.casefold, names):
        raise UserError(f"{source}: background is label 0 of every data set, take it out.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{source} lists the class {twice!r} twice.")
    return tuple(names)


def class_index(classes: Iterable[str]) -> dict[str, int]:
    """Name -> index of a class list, in its order."""
    return {name: index for index, name in enumerate(classes)}


def tag_indices(tags: Iterable[str], index: dict[str, int], where: str) -> tuple[int, ...]:
    """Sorted indices of the tags; an unknown tag raises UserError with the nearest class."""
    try:
        return tuple(sorted({index[tag] for tag in tags}))
    except KeyError as error:
        raise _unknown_tag(error.args[0], list(index), where) from None


def _unknown_tag(tag: str, classes: list[str], where: str) -> UserError:
    """The error for a tag that is no class: names the place, the tag and the nearest class."""
    folded = {name.casefold(): name for name in classes}
    near = get_close_matches(tag.casefold(), folded, n=1, cutoff=0.6)
    if tag.casefold() == BACKGROUND:
        hint = "background is no tag: an image of background only has an empty list of tags"
    elif near:
        hint = f"the nearest class is {folded[near[0]]!r}"
    else:
        listed = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
        hint = f"the classes are {listed}; add it to the class list or correct the tag"
    return UserError(f"{where} has the tag {tag!r}, which is not in the class list: {hint}.")


def look_alikes(classes: Iterable[str]) -> tuple[str, ...]:
    """A note for each group of class names that differ only in case, spaces, '-' or '_'."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups["".join(c for c in name.casefold() if c not in " -_")].append(name)
    return tuple(
        f"The classes {' and '.join(repr(name) for name in group)} differ only in spelling: if "
        "they are one class, write them alike."
        for group in groups.values()
        if len(group) > 1
    )
