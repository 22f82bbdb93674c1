"""Text files of a data set, read with errors that name the file."""

from pathlib import Path

from affinitynet.errors import UserError


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


def read_lines(path: Path) -> list[str]:
    """Return a text file's non-empty lines, without the spaces around them; errors as `read_text`.

    A line ends with a newline only: splitlines() would cut names at other control characters.
    """
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]
