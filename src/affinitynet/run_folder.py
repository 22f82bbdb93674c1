"""The run folder on disk: atomic writes, fingerprints, and the record each stage leaves.

A stage's folder holds its files and, last of all, `stage.json`. Whatever stops a run (an error,
Ctrl-C, `kill -9`, a full disk) leaves only whole files behind, so the next run goes on from there.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from affinitynet.errors import UserError

RECORD = "stage.json"
PLAN = "plan.json"


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write to; rename it to `path` when all went well.

    The temporary name keeps the suffix, so that writers which look at it still work.

    Raises:
        UserError: the disk is full or the folder can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise UserError(
                f"{path}: cannot be written ({os.strerror(error.errno)}); "
                "make room or rights and start again: finished work is kept"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder.

    Raises:
        UserError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); delete it to redo its stage") from error


def fingerprint(value: Any) -> str:
    """Name a JSON-able value by 16 hex digits: equal values, equal names, on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage says of itself (`stage.json`)."""

    stage: str
    fingerprint: str
    settings: dict[str, Any]
    figures: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StageFolder:
    """One stage's folder: its plan (what it is being made from) and, when done, its record."""

    path: Path

    def plan(self) -> dict[str, Any] | None:
        """Return the fingerprint and settings that the files here are made with, if any."""
        file = self.path / PLAN
        return dict(read_json(file)) if file.is_file() else None

    def start(self, name: str, settings: dict[str, Any]) -> None:
        """Write down what the files that now follow are made with."""
        write_json(self.path / PLAN, {"fingerprint": name, "settings": settings})

    def record(self) -> StageRecord | None:
        """Return the finished stage's record, or None while there is work to do."""
        file = self.path / RECORD
        return StageRecord(**read_json(file)) if file.is_file() else None

    def finish(self, record: StageRecord) -> None:
        """Write the record, the last file of a stage."""
        write_json(self.path / RECORD, asdict(record))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder for one process; the lock dies with the process.

    Raises:
        UserError: another process works in this folder, or it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"{folder}: cannot be used as a run folder ({error.strerror})") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"{folder}: another run is working here; wait or use another --out"
            ) from error
        yield
