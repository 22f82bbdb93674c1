"""One column of 0 and 1 for each class (Roboflow's ``_classes.csv``, scikit-learn)."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from affinitynet.data.grid import Cell, Grid, Record
from affinitynet.errors import UserError

# 0.0 and 1.0: pandas writes a column so once a cell of it was empty.
VALUES = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}

_FEW = 2  # values beside 0 and 1 that a class's column may have by mistake


def indicator_columns(grid: Grid, taken: Collection[int]) -> list[int]:
    """Return the columns that say of a class whether the image shows it.

    They hold 0 or 1 in most records; one wrong cell must not make a class disappear.
    """
    found = []
    for place in range(len(grid.header)):
        # A column without a name is pandas' index, which may well hold 0 and 1.
        if place in taken or not grid.header[place]:
            continue
        values = [_get(cells, place) for _, cells in grid.records]
        flags = sum(_is_flag(value) for value in values)
        if values and 2 * flags > len(values):
            found.append(place)
    return found


def lost_indicators(grid: Grid, columns: Collection[int], taken: Collection[int]) -> list[str]:
    """Say which columns beside classes may be classes as well, and what keeps them from it.

    They hold 0 and 1 too, but in most records something else: an empty cell for 0, 2 or -1. A name
    or a number of many values is none.
    """
    said = []
    for place, name in enumerate(grid.header):
        if place in (*columns, *taken) or not name or not grid.records:
            continue
        values = [_get(cells, place) for _, cells in grid.records]
        odd = Counter(str(value or "") for value in values if not _is_flag(value))
        # Empty cells stand for 0 beside a single 1; other values have to be few.
        if len(odd) <= _FEW and any(_is_flag(value) for value in values):
            named = " and ".join(repr(value) if value else "nothing" for value in odd)
            said.append(
                f"{name} holds {named} in {odd.total()} of {len(values)} rows and is no "
                "class; if it is one, write 0 or 1 in each"
            )
    return said


def read_indicators(path: Path, grid: Grid, columns: Collection[int]) -> list[tuple[str, ...]]:
    """Return the classes of each record: the names of the columns that hold 1.

    Raises:
        UserError: a cell that is neither 0 nor 1; names line and column.
    """
    labels = []
    for number, cells in grid.records:
        shown = []
        for place in columns:
            value = _get(cells, place)
            if not _is_flag(value):
                raise UserError(
                    f"{path}, {grid.unit} {number}: the column {grid.header[place]} holds "
                    f"{value or ''!r}, which is neither 0 nor 1; correct it, or take the column "
                    "out if it is no class"
                )
            if VALUES[str(value).casefold()]:
                shown.append(grid.header[place])
        labels.append(tuple(shown))
    return labels


def _is_flag(value: Cell | None) -> bool:
    return isinstance(value, str) and value.casefold() in VALUES


def _get(cells: Record, place: int) -> Cell | None:
    return cells[place] if place < len(cells) else None
