"""What the columns of a table mean, by the names that people give them."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from affinitynet.data.grid import Grid
from affinitynet.data.splits import known_split
from affinitynet.errors import UserError

# A name of an earlier line is taken whatever else is there; two of one line are ambiguous.
IMAGE_NAMES = (
    ("image",),
    ("file", "filename", "file_name", "path"),
    ("image_path", "image_name", "filepath", "img"),
)
LABEL_NAMES = (
    ("labels",),
    ("label", "tags", "classes"),
    ("class", "tag", "category", "choice"),  # choice: Label Studio's CSV
)
OTHERS = ("split", "group")  # group: see `holdout.py`
HOW = "image,labels (commas between columns, ';' between labels)"


class Columns(NamedTuple):
    """Places of the columns that are read; None where there is no such column."""

    image: int
    labels: int | None
    split: int | None
    group: int | None

    @property
    def rest(self) -> set[int]:
        """The places that mean something here."""
        return {place for place in self if place is not None}


def fold_header(header: Sequence[str]) -> list[str]:
    """Write column names alike: no capitals, no spaces around, '_' for inner ones."""
    return ["_".join(name.casefold().split()) for name in header]


def has_image_column(header: Sequence[str]) -> bool:
    """Whether a line of column names has one for the image."""
    known = {name for names in IMAGE_NAMES for name in names}
    return bool(known & set(fold_header(header)))


def count_known(header: Sequence[str]) -> int:
    """Count the columns that mean something here."""
    known = {name for names in (*IMAGE_NAMES, *LABEL_NAMES, OTHERS) for name in names}
    return sum(name in known for name in fold_header(header))


def find_columns(path: Path, header: Sequence[str]) -> Columns:
    """Find the columns of image, labels, split and group.

    Raises:
        UserError: no column for the image, a name that is there twice, two names for one thing, and
            a column that is nearly named split.
    """
    names = fold_header(header)
    image = _find(path, names, IMAGE_NAMES, "the image")
    if image is None:
        raise UserError(
            f"{path}: its first line is {','.join(header)[:80]!r}; it must begin with the columns "
            f"{HOW}"
        )
    labels = _find(path, names, LABEL_NAMES, "the labels")
    split, group = (_find(path, names, ((name,),), name) for name in OTHERS)
    for name in names:
        # All images would silently be training images if this one were passed over.
        if split is None and get_close_matches(name, ["split"], cutoff=0.7):
            raise UserError(f"{path}: has a column {name!r}; rename it to split, if it says so")
    return Columns(image, labels, split, group)


def split_by_values(path: Path, grid: Grid, columns: Columns) -> int | None:
    """Find the column without a known name whose cells all say train, val or test, or None.

    All images would silently be training images if it were passed over.

    Raises:
        UserError: there are two.
    """
    found = []
    for place in set(range(len(grid.header))) - columns.rest:
        cells = {cells[place] for _, cells in grid.records if place < len(cells)} - {"", None}
        if cells and all(isinstance(cell, str) and known_split(cell) for cell in cells):
            found.append(place)
    if len(found) > 1:
        both = " and ".join(grid.header[place] for place in sorted(found))
        raise UserError(f"{path}: the columns {both} may both be the split; rename one to split")
    return found[0] if found else None


def _find(path: Path, names: list[str], lines: Sequence[Sequence[str]], meaning: str) -> int | None:
    for known in lines:
        there = [name for name in names if name in known]
        if len(set(there)) > 1:
            raise UserError(
                f"{path}: the columns {' and '.join(dict.fromkeys(there))} may both be {meaning}; "
                f"rename the one that is to {lines[0][0]}, or take the other out"
            )
        if len(there) > 1:
            raise UserError(f"{path}: has the column {there[0]} twice; take one out")
        if there:
            return names.index(there[0])
    return None
