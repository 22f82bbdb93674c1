"""Plain tables: a dict of columns, each a list of equal length; in a file, CSV."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from affinitynet.run_folder.folder import atomic_write

Table = dict[str, list[Any]]


def table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Turn rows into a table; a row without a column's entry has None there."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def write_table(file: Path, table: Mapping[str, Sequence[Any]]) -> None:
    """Write a table as CSV, atomically; None is an empty cell.

    Raises:
        UserError: the file can't be written.
    """
    with (
        atomic_write(file) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as handle,
    ):
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))


def read_table(file: Path, text: Sequence[str] = ()) -> Table:
    """Read what `write_table` wrote: numbers, None, and strings in the columns named in `text`.

    Empty where the file is missing or is no such table: who only shows it can go on without.
    """
    try:
        with file.open(encoding="utf-8", newline="") as handle:
            head, *rows = csv.reader(handle)
        cells = list(zip(*rows, strict=True)) or [()] * len(head)
        columns = zip(head, cells, strict=True)
        return {
            name: list(column) if name in text else [_number(cell) for cell in column]
            for name, column in columns
        }
    except (OSError, ValueError, csv.Error):  # a decoding error is a ValueError
        return {}


def _number(cell: str) -> float | int | None:
    if not cell:
        return None
    return int(cell) if cell.lstrip("-").isdigit() else float(cell)
