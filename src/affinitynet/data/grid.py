"""A table as it was written: column names and records, before anyone asks what they mean."""

from typing import NamedTuple

Cell = str | tuple[str, ...]  # JSON writes lists of labels; a CSV cell is text

Record = list[Cell | None]  # None: JSON that does not say


class Grid(NamedTuple):
    """Column names in their own spelling, and (number, cells) of each record.

    unit: what a number counts, "line" or "entry". said: how the file is written, for `check`.
    named: whether each record names its columns itself (JSON), so that cells may be missing.
    """

    header: list[str]
    records: list[tuple[int, Record]]
    unit: str
    said: str
    named: bool = False


def both(unit: str, first: int, second: int) -> str:
    """Write two places of a table: "lines 2 and 4"."""
    return f"{'entries' if unit == 'entry' else unit + 's'} {first} and {second}"
