"""The rows of a table of tags, whatever file it came in, and whether its cells hold labels."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from affinitynet.data.cells import split_cells
from affinitynet.data.columns import HOW, Columns, find_columns, split_by_values
from affinitynet.data.delimited import read_delimited
from affinitynet.data.grid import Cell, Grid, Record, both
from affinitynet.data.indicators import indicator_columns, lost_indicators, read_indicators
from affinitynet.data.json_rows import LINES, read_json_rows
from affinitynet.data.names import compose
from affinitynet.errors import UserError

TABLE = "labels.csv"
# What pandas, Python and databases write into a cell that holds nothing.
NOTHING = ("nan", "none", "null", "n/a", "<na>", "[]", "{}", "()", "''", '""')

_SEPARATORS = re.compile(r"[|,\t]|^[\[{('\"].*[\])}'\"]$")
_JOINTS = re.compile(r"\s*[/+&:]\s*|\s+(?:and\s+)?")


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a table.

    line: its number in the file, counted in `unit` ("line" or "entry"). names: other names that
    its file may have. split, group: "" where the table says none.
    """

    line: int
    image: str
    labels: tuple[str, ...]
    split: str = ""
    group: str = ""
    unit: str = "line"
    names: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where it stands, for messages: "line 3"."""
        return f"{self.unit} {self.line}"


@dataclass(frozen=True)
class Listing:
    """What one file of tags says.

    classes: in the file's own order, where it has one. split: of rows that name none. base: the
    folder that image names start from. said: how the file was understood, for `check`.
    """

    path: Path
    rows: list[Row]
    said: str
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    split: str = ""
    base: Path | None = field(default=None)


def read_rows(path: Path, known: Collection[str] = ()) -> Listing:
    """Read a table of images and labels: CSV in its kinds, JSON lines, or a list of JSON objects.

    Columns are known by their names (`columns.py`). The labels are cells of several (`cells.py`), a
    column of 0 and 1 for each class, or a row for each image and label. `known` are names that
    someone listed: they are labels whatever is in them.

    Raises:
        UserError: missing, mistyped, repeated and ambiguous columns, missing and extra cells, cells
            of no column's name, or that are no list of labels, an image with rows that contradict;
            the line is named.
    """
    is_json = path.suffix.lower() in (*LINES, ".json")
    grid = read_json_rows(path) if is_json else read_delimited(path)
    if not grid.header:
        raise UserError(f"{path}: lists no images; the data set is empty")
    columns = find_columns(path, grid.header)
    if columns.split is None:
        columns = columns._replace(split=split_by_values(path, grid, columns))
    _check_unnamed(path, grid, columns)
    # With a column of labels, numbers beside it are measurements or flags of something else.
    flags = [] if columns.labels is not None else indicator_columns(grid, columns.rest)
    if columns.labels is None and not flags:
        said = ",".join(grid.header)[:80]
        raise UserError(
            f"{path}: has no column of labels, and no columns of 0 and 1, in {said!r}; it must "
            f"begin with the columns {HOW}"
        )
    # Before the labels, as their messages name the image.
    images = [_image(path, grid, columns, number, cells) for number, cells in grid.records]
    if flags:
        labels, said = read_indicators(path, grid, flags), "a column of 0 and 1 for each class"
    else:
        assert columns.labels is not None
        cells = [
            (number, _label_cell(path, grid, columns.labels, image, number, found))
            for image, (number, found) in zip(images, grid.records, strict=True)
        ]
        labels, said = split_cells(path, grid.unit, cells, known)
    rows = [
        Row(
            number,
            image,
            shown,
            _text(found, columns.split),
            _text(found, columns.group),
            grid.unit,
        )
        for image, shown, (number, found) in zip(images, labels, grid.records, strict=True)
    ]
    united = _unite(path, rows, by_tag=not flags)
    read = {*columns.rest, *flags}
    # A column without a name is an index, as pandas writes it: not worth a note.
    unread = [n for place, n in enumerate(grid.header) if n and place not in read]
    notes = [f"{path.name} has columns that are not read: {', '.join(unread)}"] if unread else []
    if flags:
        notes += [f"{path.name}: {lost}" for lost in lost_indicators(grid, flags, columns.rest)]
    names = [grid.header[place] for place in (columns.image, columns.labels) if place is not None]
    parts = [f"{path.name}: column{'s' * (len(names) > 1)} {' and '.join(names)}", grid.said, said]
    parts += ["a row for each image and label"] if len(united) < len(rows) else []
    if columns.split is not None and grid.header[columns.split].casefold() != "split":
        parts.append(f"{grid.header[columns.split]} says the split")
    classes = tuple(compose(grid.header[place]) for place in flags)
    return Listing(path, united, ", ".join(filter(None, parts)), tuple(notes), classes)


def check_labels(path: Path, rows: Iterable[Row], known: Collection[str]) -> tuple[str, ...]:
    """Refuse labels that are several labels, or none, in another notation than the table's.

    `known` are names that someone listed: they are names whatever is in them. The answer has a
    note for each label whose parts are labels as well.

    Raises:
        UserError: line, label and what to write.
    """
    places: dict[str, str] = {}
    for row in rows:
        for label in row.labels:
            places.setdefault(compose(label), row.place)
    notes = []
    for label, place in places.items():
        if label in known:
            continue
        if label.casefold() in NOTHING:
            raise UserError(
                f"{path}, {place}: the label {label!r} says that there is none; leave the cell "
                "empty for background only (a class of that name goes into classes.txt)"
            )
        if _SEPARATORS.search(label):
            raise UserError(
                f"{path}, {place}: the label {label!r} looks like several; separate labels by "
                "';' (a class of that name goes into classes.txt)"
            )
        # A name of two words is common, so that it is refused by nothing and noted only where each
        # of its words is a label too.
        parts = [part for part in _JOINTS.split(label) if part]
        if len(parts) > 1 and all(part in places for part in parts):
            notes.append(
                f"{path}, {place}: the label {label!r} counts as a class of its own beside "
                f"{' and '.join(parts)}; if it is these, write {';'.join(parts)}"
            )
    return tuple(notes)


def _check_unnamed(path: Path, grid: Grid, columns: Columns) -> None:
    """Refuse what stands in a column without a name behind the image or the labels.

    Spreadsheets write such columns where labels fill several cells; an index stands before both.
    """
    first = min(place for place in (columns.image, columns.labels) if place is not None)
    behind = range(first + 1, len(grid.header))
    unnamed = [n for n in behind if not grid.header[n] and n not in columns.rest]
    for number, cells in grid.records:
        if lost := next((text for n in unnamed if (text := _text(cells, n))), None):
            raise UserError(
                f"{path}, {grid.unit} {number}: {lost[:40]!r} stands in a column without a name; "
                "separate labels by ';', or name the column"
            )


def _image(path: Path, grid: Grid, columns: Columns, number: int, cells: Record) -> str:
    image = _text(cells, columns.image)
    if not image:
        raise UserError(f"{path}, {grid.unit} {number}: names no image; add its path")
    return image


def _label_cell(path: Path, grid: Grid, place: int, image: str, number: int, cells: Record) -> Cell:
    cell = cells[place] if place < len(cells) else None
    if cell is None:
        how = f'"{grid.header[place]}": []' if grid.named else f"{image}, (with the comma)"
        raise UserError(
            f"{path}, {grid.unit} {number}: has no cell for labels; write {how} if it shows "
            "background only"
        )
    return cell


def _text(cells: Record, place: int | None) -> str:
    cell = None if place is None or place >= len(cells) else cells[place]
    return cell if isinstance(cell, str) else " ".join(cell or ())


def _unite(path: Path, rows: list[Row], by_tag: bool) -> list[Row]:
    """Make one row of those of an image, where each has one label: a table by image and tag.

    Anything else that lists an image twice is a mistake of whoever put the table together.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(compose(row.image), []).append(row)
    united = []
    for first, *others in groups.values():
        for row in others:
            where = both(row.unit, first.line, row.line)
            # A row with several labels, none or columns of 0 and 1 says all of its image; a second
            # such row contradicts it or repeats it by mistake.
            if not by_tag or len(first.labels) != 1 or len(row.labels) != 1:
                raise UserError(f"{path}: lists {row.image} twice, in {where}; unite them")
            if (first.split, first.group) != (row.split, row.group):
                raise UserError(
                    f"{path}: {where} give {row.image} another split or group; write them alike"
                )
        labels = tuple(dict.fromkeys(label for row in (first, *others) for label in row.labels))
        united.append(replace(first, labels=labels))
    return united
