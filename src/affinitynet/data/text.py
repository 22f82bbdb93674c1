"""Text files of a data set, read with errors that name the file."""

import codecs
from pathlib import Path

from affinitynet.errors import UserError

UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text, without its byte order mark; line ends become newlines.

    Raises:
        UserError: it can't be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error


def decode_text(path: Path) -> tuple[str, str]:
    """Return a table's text and the name of its encoding, as spreadsheets and databases write it.

    UTF-16 shows by its byte order mark, or by zeros in its first bytes; what is neither that nor
    UTF-8 is Windows' Western European (cp1252), which Excel's plain CSV is. Line ends become
    newlines.

    Raises:
        UserError: it can't be read, or is none of the three.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    encoding = _guess(content)
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is neither UTF-8, UTF-16 nor cp1252 (byte {error.start}); save it as UTF-8"
        ) from error
    # decode() leaves line ends as they are, where reading in text mode would turn them.
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def _guess(content: bytes) -> str:
    if content[:2] in UTF16:
        return UTF16[content[:2]]
    # Letters of the Latin script have a zero byte each: the second in little endian.
    for place, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        # Half, not all: names may be in another script. UTF-8 and cp1252 have no zeros at all.
        zeros = content[place:400:2].count(0)
        if zeros > 4 and zeros > len(content[place:400:2]) // 2:
            return encoding
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def read_lines(path: Path) -> list[str]:
    """Return a text file's non-empty lines, without the spaces around them; errors as `read_text`.

    A line ends with a newline only: splitlines() would cut names at other control characters.
    """
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]
