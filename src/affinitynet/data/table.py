"""Images and a table of tags: ``labels.csv`` with the columns image, labels and maybe split."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from affinitynet.data.images import is_image_name
from affinitynet.data.labels import ignore_index, read_labels
from affinitynet.data.manifest import Manifest
from affinitynet.data.sample import Sample
from affinitynet.data.tags import class_index, class_names, look_alikes, tag_indices
from affinitynet.data.text import read_text
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import check_relative

TABLE = "labels.csv"
COLUMNS = ("image", "labels", "split", "group")  # group: see `holdout.py`
DEFAULT_SPLIT = "train"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    line: int
    image: str
    labels: tuple[str, ...]
    split: str


def read_rows(path: Path) -> tuple[list[Row], tuple[str, ...]]:
    """Rows of a ``labels.csv``: image, labels (separated by ``;``), and split where given.

    A byte order mark, CRLF line ends, spaces around names and empty lines do no harm; the second
    answer is a note on columns that are not read. Raises UserError, naming the line, for missing,
    mistyped and repeated columns, missing and extra cells, and an image listed twice.
    """
    lines = _lines(path)
    header = [name.casefold() for name in lines[0][1]] if lines else []
    notes = _check_header(path, header)
    rows = [_row(path, header, number, cells) for number, cells in lines[1:]]
    lines_of: dict[str, int] = {}
    for row in rows:
        first = lines_of.setdefault(row.image, row.line)
        if first != row.line:
            raise UserError(f"{path} lists {row.image} twice, in lines {first} and {row.line}.")
    return rows, notes


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """(Number, cells) of each line that is not empty."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}, is no CSV: {error}.") from error
    return [(number, cells) for number, cells in lines if any(cells)]


def _check_header(path: Path, header: list[str]) -> tuple[str, ...]:
    """A note on columns that are not read; UserError where one that is read is missing or twice."""
    if "image" not in header or "labels" not in header:
        raise UserError(
            f"{path} must begin with the columns image,labels (commas between columns, ';' "
            f"between labels); its first line is {','.join(header)!r}."
        )
    for name in COLUMNS:
        if header.count(name) > 1:
            raise UserError(f"{path} has the column {name} twice: which one is meant?")
    others = [name for name in header if name and name not in COLUMNS]
    for name in others:
        # All images would silently be training images if this one were passed over.
        if "split" not in header and get_close_matches(name, ["split"], cutoff=0.7):
            raise UserError(f"{path} has a column {name!r}: rename it to split, if it says so.")
    if not others:
        return ()
    return (f"{path.name} has columns that are not read: {', '.join(others)}.",)


def _row(path: Path, header: list[str], number: int, cells: list[str]) -> Row:
    if len(cells) > len(header):
        raise UserError(
            f"{path}, line {number}, has more cells than columns: separate labels by ';'."
        )
    cell = dict(zip(header, cells, strict=False))
    if not cell.get("image"):
        raise UserError(f"{path}, line {number}, names no image.")
    if "labels" not in cell:
        raise UserError(
            f"{path}, line {number}, has no cell for labels: write {cell['image']}, (with the "
            "comma) if it shows background only."
        )
    # A quote that is closed too late makes one cell of several lines. (`isprintable` would refuse
    # the non-breaking spaces that spreadsheets write, too.)
    if odd := next((text for text in cells if any(c < " " for c in text)), None):
        raise UserError(f"{path}, line {number}: {odd[:40]!r} is no name; is a quote left open?")
    labels = (label.strip() for label in cell["labels"].split(";"))
    return Row(
        line=number,
        image=cell["image"],
        labels=tuple(label for label in labels if label),
        split=cell.get("split", "") or DEFAULT_SPLIT,
    )


def read_table(root: Path, classes: Sequence[str] | None, tags: str) -> Manifest:
    """Read a folder with ``labels.csv``; its image paths are relative to it or to ``images/``.

    Splits come from the column ``split`` (an empty cell, or no such column: train). Ground truth,
    where given, is ``masks/<id>.png`` with the values 0 (background), 1 ... C and 255 (void). The
    id is the path below ``images/`` (else below the root) without its extension. An empty labels
    cell says background only. Raises UserError for missing images, ids that collide and unknown
    tags, naming file and line.
    """
    if tags not in ("auto", "table", "masks"):
        raise UserError(f"A labels.csv data set has tags 'table' or 'masks', not {tags!r}.")
    table = root / TABLE
    rows, notes = read_rows(table)
    if not rows:
        raise UserError(f"{table} lists no images: the data set is empty.")
    names = class_names(root, classes, sorted({label for row in rows for label in row.labels}))
    images = [_find_image(root, row, table) for row in rows]
    index = class_index(names)
    splits: dict[str, list[Sample]] = {}
    line_of: dict[str, int] = {}
    for row, image in zip(rows, images, strict=True):
        sample_id = _sample_id(root, image)
        first = line_of.setdefault(sample_id, row.line)
        if first != row.line:
            raise UserError(
                f"{table}, lines {first} and {row.line}: both images would be written as "
                f"{sample_id}.png; rename one."
            )
        where = f"{table}, line {row.line} ({row.image}),"
        mask: Path | None = root / "masks" / f"{sample_id}.png"
        mask = mask if mask is not None and mask.is_file() else None
        if tags == "masks":
            indices = _mask_tags(mask, len(names), where)
        else:
            indices = tag_indices(row.labels, index, where)
        splits.setdefault(row.split, []).append(Sample(sample_id, image, indices, mask))
    return Manifest(
        root=root,
        classes=names,
        splits={name: tuple(samples) for name, samples in splits.items()},
        notes=(*notes, *look_alikes(names), *_unlisted(root, images)),
    )


def _find_image(root: Path, row: Row, table: Path) -> Path:
    check_relative(row.image, f"{table}, line {row.line}: the image")
    for path in (root / row.image, root / "images" / row.image):
        if path.is_file():
            return path
    raise UserError(f"{table}, line {row.line}: there is no image {row.image} in {root}.")


def _sample_id(root: Path, image: Path) -> str:
    base = root / "images"
    relative = image.relative_to(base if image.is_relative_to(base) else root)
    return relative.with_suffix("").as_posix()


def _mask_tags(mask: Path | None, classes: int, where: str) -> tuple[int, ...]:
    if mask is None:
        raise UserError(f"{where} has no mask to take its tags from.")
    values = set(np.unique(read_labels(mask)).tolist()) - {0, ignore_index(classes)}
    if values and max(values) > classes:
        raise UserError(f"{mask} holds the value {max(values)}, but there are {classes} classes.")
    return tuple(sorted(value - 1 for value in values))


def _unlisted(root: Path, images: list[Path]) -> tuple[str, ...]:
    """A note on image files without a row: they are left out, which may not be meant."""
    listed = set(images)
    folder = root / "images" if (root / "images").is_dir() else root
    found = sorted(
        path
        for path in folder.rglob("*")
        if is_image_name(path) and path not in listed and not path.is_relative_to(root / "masks")
    )
    if not found:
        return ()
    first = found[0].relative_to(root)
    return (f"{len(found)} image files have no row in {TABLE} and are left out, {first} first.",)
