"""The lines of a ``labels.csv``, and whether its cells hold what they should."""

import csv
import io
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from affinitynet.data.names import compose
from affinitynet.data.splits import DEFAULT_SPLIT
from affinitynet.data.text import read_text
from affinitynet.errors import UserError

TABLE = "labels.csv"
COLUMNS = ("image", "labels", "split")
NOTHING = ("nan", "none", "null", "n/a", "<na>", "[]", "{}", "()", "''", '""')

_SEPARATORS = re.compile(r"[|,\t]|^[\[{('\"].*[\])}'\"]$")
_JOINTS = re.compile(r"\s*[/+&:]\s*|\s+(?:and\s+)?")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    line: int
    image: str
    labels: tuple[str, ...]
    split: str


def read_rows(path: Path) -> tuple[list[Row], tuple[str, ...]]:
    """Read the rows of a ``labels.csv``: image, labels (separated by ``;``), split where given.

    A byte order mark, CRLF line ends, spaces around names and empty lines do no harm; the second
    answer is a note on columns that are not read.

    Raises:
        UserError: missing, mistyped and repeated columns, missing and extra cells, an image listed
            twice; the line is named.
    """
    lines = _lines(path)
    header = [name.casefold() for name in lines[0][1]] if lines else []
    notes = _check_header(path, header)
    rows = [_row(path, header, number, cells) for number, cells in lines[1:]]
    lines_of: dict[str, int] = {}
    for row in rows:
        first = lines_of.setdefault(compose(row.image), row.line)
        if first != row.line:
            raise UserError(
                f"{path}: lists {row.image} twice, in lines {first} and {row.line}; unite them"
            )
    return rows, notes


def check_labels(path: Path, rows: Iterable[Row], known: Collection[str]) -> tuple[str, ...]:
    """Refuse labels that are several labels, or none, in another notation than ours.

    `known` are names that someone listed: they are names whatever is in them. The answer has a
    note for each label whose parts are labels as well.

    Raises:
        UserError: line, label and what to write.
    """
    lines: dict[str, int] = {}
    for row in rows:
        for label in row.labels:
            lines.setdefault(compose(label), row.line)
    notes = []
    for label, line in lines.items():
        if label in known:
            continue
        if label.casefold() in NOTHING:
            raise UserError(
                f"{path}, line {line}: the label {label!r} says that there is none; leave the cell "
                "empty for background only (a class of that name goes into classes.txt)"
            )
        if _SEPARATORS.search(label):
            raise UserError(
                f"{path}, line {line}: the label {label!r} looks like several; separate labels by "
                "';' (a class of that name goes into classes.txt)"
            )
        parts = [part for part in _JOINTS.split(label) if part]
        if len(parts) > 1 and all(part in lines for part in parts):
            notes.append(
                f"{path}, line {line}: the label {label!r} counts as a class of its own beside "
                f"{' and '.join(parts)}; if it is these, write {';'.join(parts)}"
            )
    return tuple(notes)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """(Number, cells) of each line that is not empty."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: is no CSV ({error}); correct the quotes"
        ) from error
    return [(number, cells) for number, cells in lines if any(cells)]


def _check_header(path: Path, header: list[str]) -> tuple[str, ...]:
    """Note columns that are not read; UserError where one that is read is missing or twice."""
    if "image" not in header or "labels" not in header:
        raise UserError(
            f"{path}: its first line is {','.join(header)[:80]!r}; it must begin with the columns "
            "image,labels (commas between columns, ';' between labels)"
        )
    for name in COLUMNS:
        if header.count(name) > 1:
            raise UserError(f"{path}: has the column {name} twice; take one out")
    others = [name for name in header if name and name not in COLUMNS]
    for name in others:
        # All images would silently be training images if this one were passed over.
        if "split" not in header and get_close_matches(name, ["split"], cutoff=0.7):
            raise UserError(f"{path}: has a column {name!r}; rename it to split, if it says so")
    if not others:
        return ()
    return (f"{path.name} has columns that are not read: {', '.join(others)}",)


def _row(path: Path, header: list[str], number: int, cells: list[str]) -> Row:
    where = f"{path}, line {number}"
    if len(cells) > len(header):
        raise UserError(f"{where}: has more cells than columns; separate labels by ';'")
    cell = dict(zip(header, cells, strict=False))
    if not cell.get("image"):
        raise UserError(f"{where}: names no image; add its path")
    if "labels" not in cell:
        raise UserError(
            f"{where}: has no cell for labels; write {cell['image']}, (with the comma) if it shows "
            "background only"
        )
    # A quote that is closed too late makes one cell of several lines. (`isprintable` would refuse
    # the non-breaking spaces that spreadsheets write, too.)
    if odd := next((text for text in cells if any(c < " " for c in text)), None):
        raise UserError(f"{where}: {odd[:40]!r} is no name; is a quote left open?")
    labels = (label.strip() for label in cell["labels"].split(";"))
    return Row(
        line=number,
        image=cell["image"],
        labels=tuple(label for label in labels if label),
        split=cell.get("split", "") or DEFAULT_SPLIT,
    )
