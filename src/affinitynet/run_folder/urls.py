"""Files behind URLs, by fsspec: `s3://bucket/photos/1.jpg`, `file:///…`, `memory://…`.

fsspec comes with the extra `storage`, and is imported where a URL is used. In a program a URL is a
path like any other whose first part is its scheme: `Path("s3://bucket/1.jpg")`, which is no path
that a disk has, as those of images and run folders are absolute.
"""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from affinitynet.errors import UserError

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")
_TIMES = ("LastModified", "mtime", "updated", "created")  # of what stores say of a file
_INSTALL = "pip install 'affinitynet[storage]'"


def is_url(text: str) -> bool:
    """Tell whether a text is a URL with something behind its scheme."""
    return bool(re.fullmatch(r"[a-z][a-z0-9+.-]+:///?[^/].*", text))


def url_of(path: Path) -> str | None:
    """Return the URL that a path stands for, None where it is a path on the disk."""
    found = _URL.fullmatch(path.as_posix())
    if found is None:
        return None
    return f"{found[1]}://{'/' * (found[1] in ('file', 'local'))}{found[2]}"


def read_url(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Read the bytes of a file, or those from `start` to before `end`.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: fsspec or the scheme's package is not installed, or the store does not answer.
    """
    system, place = _system(url)
    content: bytes = _asked(url, system.cat_file, place, start=start, end=end)
    return content


def write_url(url: str, file: Path) -> None:
    """Copy a file of the disk there, and see that all of it is.

    Raises:
        UserError: as `read_url`, or the store keeps another number of bytes.
    """
    system, place = _system(url)
    if url.startswith("file:"):  # other stores make folders as they go, or buckets, if asked
        _asked(url, system.makedirs, place.rpartition("/")[0], exist_ok=True)
    _asked(url, system.put_file, str(file), place)
    kept, size = look_url(url)[0], file.stat().st_size
    if kept != size:
        raise UserError(f"{url}: {kept} of {size} bytes are there; start again")


def look_url(url: str) -> list[int]:
    """Return a file's size, and its time in nanoseconds where the store knows it; -1 of none.

    Raises:
        UserError: as `read_url`.
    """
    system, place = _system(url)
    try:
        found = _asked(url, system.info, place)
    except FileNotFoundError:
        return [-1, -1]
    times = (found[key] for key in _TIMES if key in found)
    # Some stores give a moment, some a number of seconds, some nothing or a text.
    moment = next(times, 0)
    seconds = moment.timestamp() if isinstance(moment, datetime) else moment
    return [int(found["size"]), int(seconds * 1e9) if isinstance(seconds, int | float) else 0]


def _system(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        found: tuple[Any, str] = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url}: can't be read as a URL ({error}); {_INSTALL}") from error
    return found


def _asked(url: str, ask: Any, *arguments: Any, **others: Any) -> Any:
    try:
        return ask(*arguments, **others)
    except FileNotFoundError:
        raise
    except Exception as error:  # each store has errors of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{url}: the store does not answer as expected ({reason}); see that it is there and "
            "that you may use it, and start again: finished work is kept"
        ) from error
