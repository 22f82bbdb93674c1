"""Where the bytes of a file are: under its path, or in a tar of its shard.

A stage names the file of an image by a path, `cams/<id>.npz`. With `store: tar` the files of 64
consecutive images end as one, `cams/shards/000000.tar`, in WebDataset's layout. Whoever reads such
a file asks here for it by the same path: a file under its own name counts, else the tar's member
of that name. Members are read into memory, never unpacked, so a tar from elsewhere writes nowhere.
"""

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
from typing import BinaryIO
from urllib.parse import unquote

from affinitynet.run_folder.artifacts import FOLDERS
from affinitynet.run_folder.folder import atomic_write, bytes_name, file_name, is_temporary

TARS = "shards"  # in an artifact's folder
_SETTLED = 1.0  # seconds; of a folder that changed later its time may not tell a second change


def is_there(path: Path) -> bool:
    """Tell whether a file is there, under its name or in a tar."""
    return path.is_file() or _find(path) is not None


def source(path: Path) -> Path | BytesIO:
    """Return what to read a file from: its path, or its bytes where they are in a tar.

    Of a file that is nowhere it is the path, for the reader to say so.
    """
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
    try:
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]
    except OSError:
        found = _find(path)
    # No size is negative, so a file that is gone looks like no recorded one.
    if found is None:
        return [-1, -1]
    tar, name = found
    with suppress(OSError, tarfile.TarError):
        return [_members(*_state(tar))[name][1], tar.stat().st_mtime_ns]
    return [-1, -1]


def content_name(path: Path) -> str:
    """Hash a file's content as `folder.file_name` does, wherever it is."""
    found = None if path.is_file() else _read(path)
    return file_name(path) if found is None else bytes_name(found)


def copy_to(path: Path, target: Path) -> None:
    """Copy a file, wherever it is."""
    found = source(path)
    if isinstance(found, Path):
        shutil.copyfile(found, target)
    else:
        target.write_bytes(found.getvalue())


def members(folder: Path) -> Iterator[str]:
    """Yield the names of the files that an artifact's tars hold."""
    for tar in sorted(file for file in (folder / TARS).glob("*.tar") if _is_tar(file.name)):
        with suppress(OSError, tarfile.TarError):
            yield from map(unquote, _members(*_state(tar)))


def pack(folder: Path, number: int, names: Sequence[str]) -> None:
    """Bring an artifact's files of a shard into its tar, and delete them.

    What is in the tar already and not beside it stays there. Whatever stops this, each file is in
    the one place or in both: none is deleted before the tar is complete and on the disk.

    names: the files of the shard's images below `folder`; images without one are passed over.
    """
    loose = [name for name in names if (folder / name).is_file()]
    if not loose:
        return
    tar = folder / TARS / f"{number:06d}.tar"
    with (
        atomic_write(tar, record=True) as temporary,
        tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in names:
            content = _content(folder / name, tar)
            if content is not None:
                entry = tarfile.TarInfo(_in_tar(name))  # without time or owner: the same bytes
                entry.size = len(content)
                archive.addfile(entry, BytesIO(content))
    _tars(folder).forget()
    for name in loose:
        (folder / name).unlink()


def remove_empty(folder: Path) -> None:
    """Delete the folders that packing has left empty, while nobody writes there."""
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):  # it is not empty
            path.rmdir()


def _content(file: Path, tar: Path) -> bytes | None:
    if file.is_file():
        return file.read_bytes()
    name = _in_tar(file.relative_to(tar.parents[1]).as_posix())
    return _member(tar, name) if tar.is_file() else None


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
            with suppress(OSError, tarfile.TarError):  # a damaged one holds nothing
                self._where |= dict.fromkeys(_members(*_state(self._folder / tar)), tar)
        self._tars, self._inode = there, stat.st_ino
        settled = time.time() - stat.st_mtime > _SETTLED
        self._seen = now if settled else None
        self._again = time.monotonic() + _SETTLED


def _is_tar(name: str) -> bool:
    return name.endswith(".tar") and not is_temporary(name)


@cache
def _tars(folder: Path) -> _Tars:
    return _Tars(folder / TARS)


def _find(path: Path) -> tuple[Path, str] | None:
    """Return the tar that holds a file, and the member's name."""
    for folder in path.parents:
        if folder.name in FOLDERS:
            name = _in_tar(path.relative_to(folder).as_posix())
            if tar := _tars(folder).find(name):
                return tar, name
    return None


def _read(path: Path) -> bytes | None:
    found = _find(path)
    return None if found is None else _member(*found)


def _member(tar: Path, name: str) -> bytes | None:
    with suppress(OSError, tarfile.TarError), tar.open("rb") as file:
        place = _members(*_state(tar)).get(name)
        if place is not None:
            file.seek(place[0])
            return file.read(place[1])
    return None


def _state(tar: Path) -> tuple[Path, tuple[int, ...]]:
    stat = tar.stat()
    return tar, (stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _members(tar: Path, state: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """Return place and size of each file in a tar; links and devices in it are none."""
    with tarfile.open(tar, "r:") as archive:
        return {entry.name: (entry.offset_data, entry.size) for entry in archive if entry.isreg()}
