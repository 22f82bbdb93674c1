"""The run folder on disk: atomic writes, fingerprints, and the record each stage leaves.

A stage's folder holds its files and, last of all, `stage.json`. Whatever stops a run (an error,
Ctrl-C, `kill -9`, a full disk) leaves only whole files behind, so the next run goes on from there.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from affinitynet.errors import UserError

RECIPE = "recipe.yaml"
RECORD = "stage.json"
PLAN = "plan.json"

# Short, so that a name as long as the file system takes can still be written under it.
_TEMPORARY = re.compile(r"\.\d+-\d+\.part")
_DISCARDED = ".discarded"
_numbers = itertools.count()


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write to; rename it to `path` when all went well.

    The temporary name keeps the suffix, so that writers which look at it still work. The content is
    on the disk before the name is, so that a power cut leaves the old file or the new one.

    Raises:
        UserError: the disk is full, or the file can't be written there.
    """
    temporary = path.with_name(f".{os.getpid()}-{next(_numbers)}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    except Exception as error:
        cause = _system_error(error)
        if cause is None:
            raise
        raise UserError(
            f"{path}: cannot be written ({cause.strerror or cause}); "
            "mend that and start again: finished work is kept"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _flush(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def _system_error(error: BaseException | None) -> OSError | None:
    """Find what the system refused: torch wraps it in an error of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def remove_tree(path: Path) -> None:
    """Delete a folder with all that is in it, if it is there.

    Raises:
        UserError: it can't be deleted.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: cannot be deleted ({error.strerror or error})"
        ) from error


def discard(path: Path) -> None:
    """Delete a stage's folder; stopped halfway, it is gone all the same."""
    grave = path.with_name(f".{path.name}{_DISCARDED}")
    try:
        path.rename(grave)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path}: cannot be deleted ({error.strerror})") from error
    remove_tree(grave)


def remove_leftovers(root: Path, folders: tuple[str, ...]) -> None:
    """Delete what a killed process left half written or half deleted, here and in `folders`."""
    for folder in folders:
        remove_tree(root / f".{folder}{_DISCARDED}")
    inside = (file for folder in folders for file in (root / folder).rglob(".*"))
    for file in itertools.chain(root.glob(".*"), inside):
        if _TEMPORARY.match(file.name):
            file.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path, stage: str = "") -> Any:
    """Read a JSON file of a run folder, which `stage` wrote.

    Raises:
        UserError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, stage, f"not valid JSON ({error})") from error


def _damaged(path: Path, stage: str, how: str) -> UserError:
    return UserError(f"{path}: {how}; make it anew with --redo {stage or 'and its stage'}")


def fingerprint(value: Any) -> str:
    """Name a JSON-able value by 16 hex digits: equal values, equal names, on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class StagePlan:
    """What the files in a stage's folder are made with (`plan.json`)."""

    fingerprint: str
    settings: dict[str, Any]


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


Paper = TypeVar("Paper", StagePlan, StageRecord)


@dataclass(frozen=True)
class StageFolder:
    """One stage's folder: its plan (what it is being made from) and, when done, its record."""

    path: Path
    stage: str

    def holds_results(self) -> bool:
        """Tell whether anything was made here: a plan alone is none."""
        return any(
            file.name != PLAN and not _TEMPORARY.match(file.name) and file.is_file()
            for file in self.path.rglob("*")
        )

    def plan(self) -> StagePlan | None:
        """Return what the files here are made with; None where no readable plan says it."""
        with contextlib.suppress(UserError):
            return self._read(StagePlan, PLAN)
        return None

    def start(self, plan: StagePlan) -> None:
        """Write down what the files that now follow are made with."""
        write_json(self.path / PLAN, asdict(plan))

    def record(self) -> StageRecord | None:
        """Return the finished stage's record, or None while there is work to do.

        Raises:
            UserError: the record is damaged.
        """
        return self._read(StageRecord, RECORD)

    def finish(self, record: StageRecord) -> None:
        """Write the record, the last file of a stage."""
        write_json(self.path / RECORD, asdict(record))

    def _read(self, kind: type[Paper], name: str) -> Paper | None:
        file = self.path / name
        if not file.is_file():
            return None
        values = read_json(file, self.stage)
        known = {entry.name for entry in fields(kind)}
        try:  # what another version wrote beside is left aside
            paper = kind(**{key: value for key, value in values.items() if key in known})
            dict(paper.settings)
        except (TypeError, ValueError, AttributeError) as error:
            raise _damaged(file, self.stage, f"not what a stage writes ({error})") from error
        return paper


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
