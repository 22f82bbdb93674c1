"""Splits by the names that people give them."""

import re
from collections.abc import Collection, Iterable

from affinitynet.data.names import compose
from affinitynet.errors import UserError

DEFAULT_SPLIT = "train"
KNOWN_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# With VOC's trainval and trainaug, and COCO's train2017.
_USUAL = re.compile(rf"({'|'.join(KNOWN_SPLITS)}|trainval|trainaug)([\W\d_].*)?")


def known_split(name: str) -> str | None:
    """Return train, val or test for a word that means it ("Validation"), None for any other."""
    return KNOWN_SPLITS.get(compose(name).strip().casefold())


def is_usual(name: str) -> bool:
    """Whether a name says train, val or test, alone or with more, as VOC's trainaug and val_2.

    Other splits are used only where a recipe names them.
    """
    return _USUAL.fullmatch(compose(name).strip().casefold()) is not None


def label_as_split(word: str, labels: Collection[str]) -> str:
    """Return the label that a split's name holds, as behind a comma without quotes; else "".

    Words for a split are never meant: train is a class of many data sets.
    """
    if known_split(word):
        return ""
    parts = (compose(part).strip() for part in (word, *re.split(r"[;|,]", word)))
    return next((part for part in parts if part in labels), "")


def name_splits(
    names: Iterable[str], where: str, unite: bool = True
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return each given name's split, and a note for each that is read as another name.

    Spellings that differ only in case are one split; without `unite` (where each name is a file's)
    they keep their names, and so do two words for one split.

    Raises:
        UserError: two words for one split, as val and validation.
    """
    split_of: dict[str, str] = {}
    first: dict[str, str] = {}
    given: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        folded = compose(name).strip().casefold()
        # Unknown words keep the spelling that comes first, which then is the split's name
        # everywhere.
        split_of[name] = KNOWN_SPLITS.get(folded) or first.setdefault(folded, name)
        given.setdefault(split_of[name], []).append(name)
    if not unite:
        several = {split for split, spellings in given.items() if len(spellings) > 1}
        split_of = {name: name if split in several else split for name, split in split_of.items()}
        given = {split: names for split, names in given.items() if split not in several}
    for split, spellings in given.items():
        # Case is a slip of the hand; two words for one split in one table may be meant as two
        # splits.
        if len({spelling.casefold() for spelling in spellings}) > 1:
            raise UserError(
                f"{where}: has {' and '.join(spellings)}, which both say {split}; name them alike "
                "or by other words"
            )
    notes = []
    for split, spellings in given.items():
        if spellings != [split]:
            *most, last = map(repr, spellings)
            names = f"{', '.join(most)} and {last} are" if most else f"{last} is"
            notes.append(f"{where}: {names} read as the split {split}")
    return split_of, tuple(notes)
