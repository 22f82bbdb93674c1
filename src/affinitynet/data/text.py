"""Text files of a data set, read with errors that name the file."""

from pathlib import Path

from affinitynet.errors import UserError


def read_text(path: Path) -> str:
    """A UTF-8 file's text, without its byte order mark; UserError if it is no such file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}).") from error


def read_lines(path: Path) -> list[str]:
    """Non-empty lines of a text file, without the spaces around them; errors as `read_text`."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
