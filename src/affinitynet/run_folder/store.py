"""Where the bytes of a file are: under its path, or in a tar of its shard.

A stage names the file of an image by a path, `cams/<id>.npz`. With `store: tar` the files of 64
consecutive images end as one, `cams/shards/000000.tar`, in WebDataset's layout. Whoever reads such
a file asks here for it by the same path: a file under its own name counts, else the tar's member
of that name. Members are read into memory, never unpacked, so a tar from elsewhere writes nowhere.

With a URL as the store the tar lies there, under a name with its content's hash, so that what is
made anew replaces nothing. `000000.remote` stands for it in the run folder: it says where the tar
is, and what in it lies where.
"""

import json
import os
import re
import shutil
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO
from urllib.parse import unquote

from affinitynet.run_folder.artifacts import FOLDERS
from affinitynet.run_folder.folder import (
    atomic_write,
    bytes_name,
    file_name,
    is_temporary,
    output_path,
)
from affinitynet.run_folder.urls import look_url, read_url, url_of, write_url

TARS = "shards"  # in an artifact's folder
TAR, REMOTE = ".tar", ".remote"
# What reading a damaged one raises.
_DAMAGE = (
    *(OSError, tarfile.TarError, ValueError, KeyError, TypeError, AttributeError),
    RecursionError,  # of JSON nested too deep
)
_SETTLED = 1.0  # seconds; of a folder that changed later its time may not tell a second change


def is_there(path: Path) -> bool:
    """Tell whether a file is there: under its name, behind a URL or in a tar."""
    if url := url_of(path):
        return look_url(url)[0] >= 0
    return path.is_file() or _find(path) is not None


def forget(folder: Path) -> None:
    """Look again which tars an artifact's folder has, as another process may have packed one.

    A look lists the folder, so what it found is kept for a while, though the folder changes.
    """
    _tars(folder).forget()


def source(path: Path) -> Path | BytesIO:
    """Return what to read a file from: its path, or its bytes where they are elsewhere.

    Of a file that is nowhere it is the path, for the reader to say so.

    Raises:
        FileNotFoundError: a URL behind which there is no file.
        UserError: a URL's store does not answer.
    """
    if url := url_of(path):
        return BytesIO(read_url(url))
    if path.is_file():
        return path
    found = _read(path)
    return path if found is None else BytesIO(found)


def open_file(path: Path) -> BinaryIO:
    """Open a file to read its bytes, wherever it is.

    Raises:
        OSError: it is nowhere, or can't be read.
    """
    found = source(path)
    return found.open("rb") if isinstance(found, Path) else found


def look(path: Path) -> list[int]:
    """Return a file's size and its time in nanoseconds, which is its tar's; -1 of none."""
    if url := url_of(path):
        return look_url(url)
    try:
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]
    except OSError:
        found = _find(path)
    # No size is negative, so a file that is gone looks like no recorded one.
    if found is None:
        return [-1, -1]
    tar, name = found
    with suppress(*_DAMAGE):
        return [_members(*_state(tar))[name][1], tar.stat().st_mtime_ns]
    return [-1, -1]


def content_name(path: Path) -> str:
    """Hash a file's content as `folder.file_name` does, wherever it is."""
    try:
        found = source(path)
    except FileNotFoundError:  # behind a URL
        return file_name(path)
    return file_name(found) if isinstance(found, Path) else bytes_name(found.getvalue())


def copy_to(path: Path, target: Path) -> None:
    """Copy a file, wherever it is."""
    found = source(path)
    if isinstance(found, Path):
        shutil.copyfile(found, target)
    else:
        target.write_bytes(found.getvalue())


def members(folder: Path) -> Iterator[str]:
    """Yield the names of the files that an artifact's tars hold."""
    for tar in sorted(file for file in (folder / TARS).glob("*") if _is_tar(file.name)):
        with suppress(*_DAMAGE):
            yield from map(unquote, _members(*_state(tar)))


def pack(folder: Path, number: int, names: Sequence[str], url: str = "") -> None:
    """Bring an artifact's files of a shard into its tar, and delete them.

    What is in the tar already and not beside it stays there. Whatever stops this, each file is in
    the one place or in both: none is deleted before the tar is complete and on the disk.

    names: the files of the shard's images below `folder`; images without one are passed over.
    url: where to keep the tar; "" keeps it in the folder.

    Raises:
        UserError: the tar can't be written, or the store does not answer.
    """
    loose = [name for name in names if (folder / name).is_file()]
    if not loose:
        return
    forget(folder)
    tar = output_path(folder, f"{TARS}/{number:06d}", REMOTE if url else TAR)
    with atomic_write(tar, record=True) as temporary:
        _write(temporary, folder, names)
        if url:
            place = f"{url}/{folder.name}/{number:06d}-{file_name(temporary)}{TAR}"
            write_url(place, temporary)
            inside = _tar_members(temporary)
            temporary.write_text(json.dumps({"url": place, "members": inside}), encoding="utf-8")
    tar.with_suffix(TAR if url else REMOTE).unlink(missing_ok=True)  # of the store before
    forget(folder)
    for name in loose:
        (folder / name).unlink()


def _write(tar: Path, folder: Path, names: Sequence[str]) -> None:
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            file = folder / name
            found = None if file.is_file() else _find(file)
            if found or file.is_file():
                # An error ends this: what a tar holds must not be lost to one that can't be read.
                content = _member(*found) if found else file.read_bytes()
                entry = tarfile.TarInfo(_in_tar(name))  # without time or owner: the same bytes
                entry.size = len(content)
                archive.addfile(entry, BytesIO(content))


def remove_empty(folder: Path) -> None:
    """Delete the folders that packing has left empty, while nobody writes there."""
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):  # it is not empty
            path.rmdir()


def _in_tar(name: str) -> str:
    """Name a member: WebDataset ends a key at its first dot, and skips names like `__a__`."""
    stem, dot, suffix = name.rpartition(".")
    above, slash, last = stem.replace("%", "%25").rpartition("/")
    key = re.sub("^_", "%5F", above + slash + last.replace(".", "%2E"))
    return key + dot + suffix


class _Tars:
    """Which tar of an artifact's folder holds which file; looks again when the folder changes."""

    def __init__(self, folder: Path) -> None:
        """Look at nothing yet."""
        self._folder, self._lock = folder, Lock()
        self._seen: tuple[int, int] | None = None
        self._inode = 0
        self._again = 0.0
        self._tars: dict[str, int] = {}
        self._where: dict[str, str] = {}

    def find(self, name: str) -> Path | None:
        """Return the tar that holds the member of a name."""
        with self._lock:
            self._look()
            tar = self._where.get(name)
        return self._folder / tar if tar else None

    def forget(self) -> None:
        """Look again, whatever the folder's time says."""
        with self._lock:
            self._seen, self._again = None, 0.0

    def _look(self) -> None:
        try:
            stat = self._folder.stat()
        except OSError:
            self._seen, self._tars, self._where = None, {}, {}
            return
        now = stat.st_ino, stat.st_mtime_ns
        if now == self._seen or (self._seen is None and time.monotonic() < self._again):
            return
        with os.scandir(self._folder) as files:
            # A tar that replaces another has another inode.
            there = {file.name: file.inode() for file in files if _is_tar(file.name)}
        if self._tars.keys() - there or self._inode != stat.st_ino:  # the stage is made anew
            self._tars, self._where = {}, {}
        for tar, _ in there.items() - self._tars.items():
            with suppress(*_DAMAGE):  # a damaged one holds nothing
                self._where |= dict.fromkeys(_members(*_state(self._folder / tar)), tar)
        self._tars, self._inode = there, stat.st_ino
        settled = time.time() - stat.st_mtime > _SETTLED
        self._seen = now if settled else None
        self._again = time.monotonic() + _SETTLED


def _is_tar(name: str) -> bool:
    return name.endswith((TAR, REMOTE)) and not is_temporary(name)


@cache
def _tars(folder: Path) -> _Tars:
    return _Tars(folder / TARS)


def _find(path: Path, *, again: bool = False) -> tuple[Path, str] | None:
    """Return the tar that holds a file, and the member's name; `again` looks at the folder anew."""
    for folder in path.parents:
        if folder.name in FOLDERS:
            if again:
                forget(folder)
            name = _in_tar(path.relative_to(folder).as_posix())
            if tar := _tars(folder).find(name):
                return tar, name
    return None


def _read(path: Path) -> bytes | None:
    # What is read should be there: another process may have packed it a moment ago.
    found = _find(path) or _find(path, again=True)
    if found is not None:
        with suppress(*_DAMAGE):
            return _member(*found)
    return None


def _member(tar: Path, name: str) -> bytes:
    start, size = _members(*_state(tar))[name]
    if tar.suffix == REMOTE:
        return read_url(_read_remote(tar)["url"], start, start + size)
    with tar.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _state(tar: Path) -> tuple[Path, tuple[int, ...]]:
    stat = tar.stat()
    return tar, (stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _members(tar: Path, state: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """Return place and size of each file in a tar."""
    if tar.suffix == REMOTE:
        found = _read_remote(tar)["members"].items()
        return {str(name): (int(start), int(size)) for name, (start, size) in found}
    return _tar_members(tar)


def _tar_members(tar: Path) -> dict[str, tuple[int, int]]:
    # Links and devices in it are no files.
    with tarfile.open(tar, "r:") as archive:
        return {entry.name: (entry.offset_data, entry.size) for entry in archive if entry.isreg()}


def _read_remote(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
