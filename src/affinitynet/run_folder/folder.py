"""Files of a run folder: safe paths, atomic writes, leftovers, and the lock.

A stage's folder holds its files and, last of all, its record. Whatever stops a run (an error,
Ctrl-C, `kill -9`, a full disk) leaves only whole files behind, so the next run goes on from there.
"""

import contextlib
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from affinitynet.errors import UserError
from affinitynet.run_folder.locks import take

RECIPE = "recipe.yaml"
LOCK = ".lock"

_DRIVE = re.compile(r"[A-Za-z]:")
_DAY = 24 * 3600.0  # seconds


def _place() -> str:
    """Describe what process numbers are unique in, where Linux tells: a start, and a namespace."""
    told = ""
    with contextlib.suppress(OSError):
        told += Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    with contextlib.suppress(OSError):
        told += str(Path("/proc/self/ns/pid").stat().st_ino)
    return told


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


# Host, place and process, so that processes that share a folder know whose a file is: containers
# and cloned machines have names and numbers in common. Short, so that a name as long as the file
# system takes can still be written under it.
_NAME = _short(socket.gethostname())
_HOST = _NAME + _short(_place())
# Host, place, process, its token. Former names have neither place nor token.
_TEMPORARY = re.compile(r"\.([0-9a-f]{6})([0-9a-f]{6}|)-(\d+)(?:-([0-9a-f]{8}))?-\d+\.part")
# Random: where neither machines nor containers can be told apart, no two processes write one file.
_token = secrets.token_hex(4)
_numbers = itertools.count()


def _draw_token() -> None:
    global _token
    _token = secrets.token_hex(4)


if sys.platform != "win32":  # where nothing forks
    os.register_at_fork(after_in_child=_draw_token)


def check_relative(path: str, what: str) -> None:
    """Refuse a relative path that could lead out of the folder it is joined to.

    `what` names the path in the message.

    Raises:
        UserError: an absolute path, a drive letter, a backslash, a control character, or one of
            the parts ``""``, ``.`` and ``..``.
    """
    parts = path.split("/")
    if (
        any(part in ("", ".", "..") for part in parts)
        or "\\" in path
        # On Windows "C:" starts a new path, whatever it is joined to.
        or _DRIVE.match(path)
        or not path.isprintable()
    ):
        raise UserError(
            f"{what} {path!r} is not a plain relative path: use names and '/', without a leading "
            "'/', '.', '..', backslash or drive letter"
        )


def output_path(folder: Path, sample_id: str, suffix: str = ".png") -> Path:
    """Return where a stage writes the file of an image: ``folder/<id><suffix>``.

    Raises:
        UserError: the id is unsafe, or a symbolic link below `folder` would take the file out of
            it. (`folder` itself may be a link.)
    """
    check_relative(sample_id, "The image id")
    path = folder / f"{sample_id}{suffix}"
    # The parent: the file itself may be a link, since the rename replaces it.
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path.parent} leads out of {folder} through a symbolic link: remove it")
    return path


@contextlib.contextmanager
def atomic_write(path: Path, *, record: bool = False, make_folder: bool = True) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write to; rename it to `path` when all went well.

    The temporary name keeps the suffix, so that writers which look at it still work. The content is
    on the disk before the name is, so that a power cut leaves the old file or the new one. The name
    of a `record`, which vouches for files written before it, is brought to the disk as well: for
    every image's file that would cost as much as its arithmetic. Without `make_folder` a folder
    that another process has deleted stays so.

    Raises:
        UserError: the disk is full, the file can't be written there, or a folder is in its place.
    """
    name = f".{_HOST}-{os.getpid()}-{_token}-{next(_numbers)}.part{path.suffix}"
    temporary = path.with_name(name)
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder, where a file belongs; move it away")
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        if record:
            _flush_folder(path.parent)
    except UserError:  # says what it is about
        raise
    except Exception as error:
        cause = _system_error(error)
        if cause is None:
            raise
        raise UserError(
            f"{path}: can't be written ({cause.strerror or cause}); "
            "fix that and start again: finished work is kept"
        ) from error
    finally:
        # Gone already if it was renamed.
        with contextlib.suppress(OSError):
            temporary.unlink()


def _flush(file: Path) -> None:
    # Opened for writing, because Windows flushes no other handle.
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _flush_folder(folder: Path) -> None:
    """Bring the new name to the disk, where the system can flush a folder: Windows can't."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # some network file systems refuse
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _system_error(error: BaseException | None) -> OSError | None:
    """Find what the system refused: torch wraps it in an error of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def remove_tree(path: Path) -> None:
    """Delete a folder with all that is in it, if it is there; of a link, the link alone.

    Raises:
        UserError: it can't be deleted.
    """
    try:
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
    except FileNotFoundError:
        if os.path.lexists(path):  # another process took a file out of it meanwhile
            remove_tree(path)
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: can't be deleted ({error.strerror or error})"
        ) from error


def remove_leftovers(root: Path, folders: Iterable[str]) -> None:
    """Delete what ended processes left half written, here and in `folders`.

    Files of a process that still works, or of another machine, stay: no process deletes another's.
    Those of this host's name, but from before it was started anew or from another container, may be
    either's: they stay until nobody has written to them for a day.
    """
    inside = (file for folder in folders for file in (root / folder).rglob(".*"))
    for file in itertools.chain(root.glob(".*"), inside):
        if _is_orphan(file):
            with contextlib.suppress(OSError):
                file.unlink()


def is_temporary(name: str) -> bool:
    """Tell whether a file's name is one that `atomic_write` gives."""
    return bool(_TEMPORARY.match(name))


def _is_orphan(file: Path) -> bool:
    found = _TEMPORARY.match(file.name)
    if not found or found[1] != _NAME:
        return False
    if found[1] + found[2] != _HOST:  # its number would mean another process here
        return _is_old(file)
    return not _lives(int(found[3]), found[4])


def _is_old(file: Path) -> bool:
    try:
        return time.time() - file.lstat().st_mtime > _DAY
    except OSError:  # gone since
        return False


def _lives(process: int, token: str | None) -> bool:
    if process == os.getpid():
        # Else it had this number before, as the first process of a container that starts again.
        return token == _token
    if sys.platform == "win32":  # where `kill` would end it, and an open file can't be deleted
        return False
    try:
        # Signal 0 is not sent: the system only says whether there is such a process.
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's, or no process id: leave its file
        return True
    return not _has_ended(process)


def _has_ended(process: int) -> bool:
    """Tell whether a process is a name alone that its parent has not asked for yet (Linux)."""
    try:
        told = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # another system, or gone since
        return False
    return told.rpartition(")")[2].split()[0] in "ZX"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path, record=True) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path, stage: str = "") -> Any:
    """Read a JSON file of a run folder, which `stage` wrote.

    Raises:
        UserError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, stage, f"not valid JSON ({error})") from error
    except RecursionError as error:
        raise damaged(path, stage, "nested too deeply") from error


def damaged(path: Path, stage: str, how: str) -> UserError:
    """Make the error for a file of a run folder that can't be used, with the way to remake it."""
    return UserError(f"{path}: {how}; make it again with --redo {stage or 'and its stage'}")


def fingerprint(value: Any) -> str:
    """Hash a JSON-able value to 16 hex digits: equal values give the same on every machine."""
    # One spelling for equal values: the order of keys and spaces must not count.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return fingerprint_text([text])


def fingerprint_text(parts: Iterable[str]) -> str:
    """Hash a text, given in parts, to 16 hex digits."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode())
    return found.hexdigest()[:16]


def file_name(file: Path) -> str:
    """Hash a file's content to 16 hex digits; "missing" where there is no file."""
    if not file.is_file():
        return "missing"
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]


def bytes_name(content: bytes) -> str:
    """Hash bytes as `file_name` hashes a file of them."""
    return hashlib.sha256(content).hexdigest()[:16]


def folder_name(folder: Path, suffixes: Iterable[str]) -> str:
    """Hash names and content of the files of these suffixes below a folder to 16 hex digits."""
    wanted = tuple(suffixes)
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in wanted)
    # What another process is about to write has no name yet.
    files = [file for file in files if not is_temporary(file.name)]
    return fingerprint([[file.relative_to(folder).as_posix(), file_name(file)] for file in files])


class BusyError(UserError):
    """Another process works in the run folder."""


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0.3) -> Iterator[None]:
    """Hold the run folder for one process; the lock dies with the process.

    Args:
        folder: the run folder.
        patience: seconds to wait for one that only looks whether the folder is held.

    Raises:
        BusyError: another process works in this folder.
        UserError: it can't be locked or made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: can't be used as a run folder ({reason})") from error
    lock = take(folder / LOCK, patience)
    if lock is None:
        raise BusyError(f"{folder}: another run is working here; wait or use another --out")
    try:
        yield
    finally:
        lock.release()
