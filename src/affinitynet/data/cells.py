"""A cell of labels to its labels: the separator is the table's own, found once for the column."""

import ast
import json
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from affinitynet.data.grid import Cell
from affinitynet.data.names import compose
from affinitynet.errors import UserError

SEPARATORS = ";|,"


def split_cells(
    path: Path, unit: str, cells: Sequence[tuple[int, Cell]], known: Collection[str]
) -> tuple[list[tuple[str, ...]], str]:
    """Return the labels of each (number, cell), and a word on what separates them ("" for none).

    A cell may be a list, as `['a', 'b']` or JSON's; else ';' separates labels wherever a cell has
    one, else '|', else ','. A comma has to prove itself, as names have commas too: a part of a cell
    must be a label elsewhere. What is among the `known` names is one label.

    Raises:
        UserError: '|' and ',' in one table, or commas that may belong to names; names the line.
    """
    lists = [_as_list(cell, known) for _, cell in cells]
    texts = [
        (number, cell)
        for (number, cell), found in zip(cells, lists, strict=True)
        if found is None and isinstance(cell, str)
    ]
    separator = _find_separator(path, unit, texts, known)
    labels = []
    for (_, cell), found in zip(cells, lists, strict=True):
        if found is None:
            assert isinstance(cell, str)
            whole = not separator or compose(cell) in known
            found = (cell,) if whole else tuple(cell.split(separator))
        labels.append(tuple(label for part in found if (label := part.strip())))
    said = [f"{separator!r} between labels"] if separator else []
    said += ["lists of labels"] if any(found is not None for found in lists) else []
    return labels, " and ".join(said)


def _find_separator(
    path: Path, unit: str, texts: Sequence[tuple[int, str]], known: Collection[str]
) -> str:
    first: dict[str, int] = {}
    for number, text in texts:
        if compose(text) not in known:
            for separator in SEPARATORS:
                if separator in text:
                    first.setdefault(separator, number)
    if ";" in first:
        return ";"  # others in such a table belong to names, or are refused
    if len(first) > 1:
        places = " and ".join(f"{s!r} ({unit} {number})" for s, number in first.items())
        raise UserError(f"{path}: both {places} may separate labels; write ';' in their place")
    if "," in first:
        _prove_commas(path, unit, texts, known)
    return next(iter(first), "")


def _prove_commas(
    path: Path, unit: str, texts: Sequence[tuple[int, str]], known: Collection[str]
) -> None:
    # Reversed, so that the first line of each text stays.
    different = {compose(text): number for number, text in reversed(texts)}
    parts = {text: {part.strip() for part in text.split(",")} - {""} for text in different}
    times = Counter(part for found in parts.values() for part in found)
    several = [text for text in different if "," in text and text not in known]
    if not any(times[part] > 1 or part in known for text in several for part in parts[text]):
        text = several[-1]
        raise UserError(
            f"{path}, {unit} {different[text]}: the label {text!r} looks like several; separate "
            "labels by ';' (a class of that name goes into classes.txt)"
        )


def _as_list(cell: Cell, known: Collection[str]) -> tuple[str, ...] | None:
    """Read a list that is written into a cell; None where it is no list."""
    if isinstance(cell, tuple):
        return cell
    if compose(cell) in known or not cell or cell[0] + cell[-1] not in ("[]", "()", "{}"):
        return None
    # JSON first, for its true and null; pandas writes Python's own lists, with single quotes.
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        # Label Studio's CSV writes several choices so.
        if isinstance(value, dict) and set(value) == {"choices"}:
            value = value["choices"]
        if isinstance(value, list | tuple | set) and all(
            isinstance(item, str | int) for item in value
        ):
            return tuple(
                str(item) for item in (sorted(value, key=str) if isinstance(value, set) else value)
            )
    return None
