"""Tables of JSON: one object a line (JSON lines), or a list of objects."""

import json
from pathlib import Path
from typing import Any

from affinitynet.data.grid import Cell, Grid
from affinitynet.data.text import read_text
from affinitynet.errors import UserError

LINES = (".jsonl", ".ndjson")


def read_json_rows(path: Path) -> Grid:
    """Read objects with the keys that a table's columns have, as `{"image": ..., "labels": [...]}`.

    Raises:
        UserError: a line is no JSON, an entry is no object; names the line or the entry.
    """
    entries, unit = _entries(path)
    # Objects may lack keys, so the columns are those of all, in the order in which they come.
    header: dict[str, None] = {}
    for number, entry in entries:
        if not isinstance(entry, dict):
            raise UserError(
                f"{path}, {unit} {number}: is no JSON object; write one for each image, as "
                '{"image": "1.jpg", "labels": ["cat"]}'
            )
        header |= dict.fromkeys(entry)
    records = [(number, [_cell(entry.get(key)) for key in header]) for number, entry in entries]
    said = "an object a line" if unit == "line" else "a list of objects"
    return Grid(list(header), records, unit, said, named=True)


def load_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: it can't be read or is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({error}); write it again") from error


def _entries(path: Path) -> tuple[list[tuple[int, Any]], str]:
    if path.suffix.lower() not in LINES:
        content = load_json(path)
        if not isinstance(content, list):
            raise UserError(f"{path}: is no list of objects, one for each image; write it so")
        return list(enumerate(content, 1)), "entry"
    entries = []
    # Not splitlines(): JSON may hold other line separators within its texts.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            try:
                entries.append((number, json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{path}, line {number}: is not valid JSON ({error}); write one object a line"
                ) from error
    return entries, "line"


def _cell(value: Any) -> Cell | None:
    if value is None:
        return None
    if isinstance(value, dict) and set(value) == {"choices"}:  # Label Studio's, of several
        value = value["choices"]
    if isinstance(value, list):
        return tuple(_text(item) for item in value)
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        # true and false are flags of a class here, as 1 and 0 in a table.
        return str(int(value))
    return value.strip() if isinstance(value, str) else json.dumps(value)
