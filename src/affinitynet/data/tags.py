"""Names of classes to indices, with messages that name the image and the nearest class."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from affinitynet.data.names import check_name, compose, fold
from affinitynet.data.text import read_lines
from affinitynet.errors import UserError

BACKGROUND = "background"
NORMAL = ("ok", "good", "normal", "unlabeled", "negative", "no_defect")  # that may say background


def is_background(name: str) -> bool:
    """Whether a name says background, as "Background" and labelme's "_background_" do."""
    return name.strip(" _").casefold() == BACKGROUND


def is_void(name: str) -> bool:
    """Whether a name says that pixels are not to be counted, as labelme's "__ignore__" does."""
    return name.startswith("_") and name.strip("_").casefold() == "ignore"


def is_number(name: str) -> bool:
    """Whether a name is a number, also as pandas writes it once a cell of it was empty: 1.0."""
    return re.fullmatch(r"-?\d+(\.\d*)?", name) is not None


def class_names(
    root: Path, given: Sequence[str] | None, found: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the class list: the one given, else the root's ``classes.txt``, else ``found``.

    ``classes.txt`` has one name a line. What says background or void and stands before the first
    class is dropped (label 0 and void are none of the classes). Names are composed (NFC).

    Raises:
        UserError: a list is empty, names a class twice, or background after a class; a name is
            none. The list is named.
    """
    file = root / "classes.txt"
    if given is not None:
        return _checked([name.strip() for name in given], "dataset.classes")
    if file.is_file():
        return _checked(read_lines(file), str(file))
    names = [check_name(compose(name), f"{root}: the class") for name in dict.fromkeys(found)]
    return tuple(
        name for name in dict.fromkeys(names) if not (is_background(name) or is_void(name))
    )


def known_names(root: Path, given: Sequence[str] | None) -> frozenset[str]:
    """Return the names of a class list that someone wrote, none where there is no list."""
    listed = given is not None or (root / "classes.txt").is_file()
    return frozenset(class_names(root, given)) if listed else frozenset()


def _checked(names: list[str], source: str) -> tuple[str, ...]:
    names = [check_name(compose(name), f"{source}: the class") for name in names]
    # labelme's list of labels begins with __ignore__ and _background_.
    while names and (is_background(names[0]) or is_void(names[0])):
        names = names[1:]
    if not names:
        raise UserError(f"{source}: names no class; write one name a line, or leave it out")
    for name in names:
        if is_background(name) or is_void(name):
            # Dropped from the middle it would shift the numbers of the classes behind it.
            raise UserError(
                f"{source}: {name} is no class (background is label 0 of every data set); take it "
                "out, and count the masks' labels without it"
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{source}: lists the class {twice!r} twice; take one out")
    return tuple(names)


def class_index(classes: Iterable[str]) -> dict[str, int]:
    """Return name -> index of a class list, in its order."""
    return {name: index for index, name in enumerate(classes)}


def tag_indices(tags: Iterable[str], index: dict[str, int], where: str) -> tuple[int, ...]:
    """Return the sorted indices of the tags.

    Raises:
        UserError: a tag that is no class, with the nearest class.
    """
    found = set()
    for tag in tags:
        place = index.get(compose(tag))  # as the names of the classes are
        if place is None:
            raise _unknown_tag(tag, list(index), where)
        found.add(place)
    return tuple(sorted(found))


def _unknown_tag(tag: str, classes: list[str], where: str) -> UserError:
    """Make the error for a tag that is no class: the place, the tag and the nearest class."""
    # Compared without case: the commonest slip.
    folded = {name.casefold(): name for name in classes}
    near = get_close_matches(tag.casefold(), folded, n=1, cutoff=0.6)
    if is_background(tag):
        hint = "background is no tag: an image of background only has an empty list of tags"
    elif near:
        hint = f"the nearest class is {folded[near[0]]!r}"
    else:
        listed = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
        hint = (
            f"the classes are {listed}: correct the tag, or use a class list (or run) that has it"
        )
    return UserError(f"{where}: the tag {tag!r} is not in the class list; {hint}")


def look_alikes(classes: Iterable[str]) -> tuple[str, ...]:
    """Return a note for each group of class names that differ in what is easily overlooked."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups[fold(name)].append(name)
    return tuple(
        f"the classes {' and '.join(repr(name) for name in group)} differ only in spelling; if "
        "they are one class, write them alike"
        for group in groups.values()
        if len(group) > 1
    )
