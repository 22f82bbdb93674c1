"""Tables of text: CSV, TSV, ';' or '|' between columns, in the encodings of spreadsheets."""

import csv
import io
from pathlib import Path

from affinitynet.data.columns import HOW, count_known, has_image_column
from affinitynet.data.grid import Grid
from affinitynet.data.images import IMAGE_SUFFIXES
from affinitynet.data.text import decode_text
from affinitynet.errors import UserError

DELIMITERS = {",": "commas", "\t": "tabs", ";": "';'", "|": "'|'"}


def read_delimited(path: Path) -> Grid:
    """Read a table of text, whatever stands between its columns; the first line names them.

    Empty lines, spaces around cells, CRLF and a byte order mark do no harm; Excel's first line
    `sep=;` is understood.

    Raises:
        UserError: the encoding is unknown, two characters may separate the columns, quotes are
            left open, a line has more cells than columns or a control character; names the line.
    """
    text, encoding = decode_text(path)
    skipped = 0
    delimiter = ""
    first, _, rest = text.partition("\n")
    if first.casefold().startswith("sep=") and first[4:5] in DELIMITERS:
        delimiter, text, skipped = first[4], rest, 1
    delimiter = delimiter or _find_delimiter(path, text)
    lines = [(n + skipped, cells) for n, cells in _lines(path, text, delimiter)]
    written = "" if encoding == "utf-8" else f", read as {encoding.upper()}"
    said = f"{DELIMITERS[delimiter]} between columns{written}"
    header = lines[0][1] if lines else []
    for number, cells in lines[1:]:
        _check(path, header, number, cells)
    return Grid(header, [(n, list(cells)) for n, cells in lines[1:]], "line", said)


def _find_delimiter(path: Path, text: str) -> str:
    """Take the one that makes the first line name an image and most columns that are known."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    if not first:
        raise UserError(f"{path}: is empty; it must begin with the columns {HOW}")
    found: dict[str, int] = {}
    for delimiter in DELIMITERS:
        try:
            lines = _lines(path, first, delimiter)  # none, if it separates nothing from nothing
        except UserError:  # a column's name in quotes that goes over several lines
            continue
        cells = lines[0][1] if len(lines) == 1 else []
        if has_image_column(cells):
            # Known names decide; where they tie, a character that separates anything at all wins.
            found[delimiter] = count_known(cells) * 2 + (len(cells) > 1)
    if not found:
        name = first.split(",")[0].strip().strip('"')
        looks = Path(name).suffix.lower() in IMAGE_SUFFIXES
        why = "names no columns, but an image" if looks else f"is {first[:80]!r}"
        raise UserError(f"{path}: its first line {why}; it must begin with the columns {HOW}")
    best = [delimiter for delimiter, score in found.items() if score == max(found.values())]
    if len(best) > 1:
        if max(found.values()) == 2:  # a single column, `image`: nothing to separate
            return ","
        names = " and ".join(DELIMITERS[delimiter] for delimiter in best)
        raise UserError(
            f"{path}: both {names} may stand between the columns of its first line {first[:80]!r}; "
            "write commas"
        )
    return best[0]


def _lines(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """(Number, cells) of each line that is not empty."""
    # Roboflow writes a space after each comma, before a quote too.
    source = io.StringIO(text, newline="")
    reader = csv.reader(source, delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: is no CSV ({error}); correct the quotes"
        ) from error
    return [(number, cells) for number, cells in lines if any(cells)]


def _check(path: Path, header: list[str], number: int, cells: list[str]) -> None:
    if len(cells) > len(header) and any(cells[len(header) :]):
        raise UserError(
            f"{path}, line {number}: has more cells than columns; separate labels by ';'"
        )
    # A quote that is closed too late makes one cell of several lines. (`isprintable` would refuse
    # the non-breaking spaces that spreadsheets write, too.)
    if odd := next((text for text in cells if any(c < " " for c in text)), None):
        raise UserError(f"{path}, line {number}: {odd[:40]!r} is no name; is a quote left open?")
