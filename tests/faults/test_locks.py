"""Locks: a file system that has none is named, and what outlives a process holds none."""

import errno
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from affinitynet.engine.place import ALONE
from affinitynet.engine.shards import Claims, check_idle, forget_locks
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import BusyError, locked
from affinitynet.run_folder.locks import take

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks as POSIX does")


@pytest.fixture(params=["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def lockless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the file system no locks, as NFS without its lock service."""
    import fcntl

    code = getattr(errno, request.param)

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)


def claims(root: Path) -> Claims:
    return Claims(
        root,
        "cams",
        [[0, 1], [2]],
        place=ALONE,
        is_there=lambda item: False,
        is_recorded=lambda shard: False,
        record=lambda shard: None,
    )


@pytest.mark.usefixtures("lockless")
def test_a_file_system_without_locks_is_named(tmp_path: Path) -> None:
    said = r"files can't be locked there \(.*\), so nothing would keep two runs apart; put"
    with pytest.raises(UserError, match=said) as found, locked(tmp_path / "run"):
        pass
    assert not isinstance(found.value, BusyError)
    with claims(tmp_path) as shards, pytest.raises(UserError, match=said):
        list(shards.take())
    (tmp_path / ".locks").mkdir(exist_ok=True)
    (tmp_path / ".locks" / "cams-000000.lock").touch()
    with pytest.raises(UserError, match=said):
        check_idle(tmp_path)


@pytest.mark.parametrize("code", ["EIO", "EROFS", "ENOSPC"])
def test_a_lock_that_fails_otherwise_is_not_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    import fcntl

    number = getattr(errno, code)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = os.strerror(number)
    with pytest.raises(UserError, match=said) as found, locked(tmp_path):
        pass
    assert not isinstance(found.value, BusyError)
    with claims(tmp_path) as shards, pytest.raises(UserError, match=said):
        list(shards.take())


@pytest.mark.parametrize("times", [1, 3, 1000])
def test_a_folder_that_is_deleted_before_the_lock_is_taken_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """As the leading process does when a stage is finished, while another still asks for a lock."""
    really, left = Path.mkdir, times

    def make_for_nothing(path: Path, *arguments: Any, **others: Any) -> None:
        nonlocal left
        really(path, *arguments, **others)
        left -= 1
        if left >= 0:
            forget_locks(tmp_path)

    monkeypatch.setattr(Path, "mkdir", make_for_nothing)
    file = tmp_path / ".locks" / "cams-000000.lock"
    if times == 1000:  # something else is wrong, which is said
        with pytest.raises(UserError, match="can't be written"):
            take(file)
        return
    lock = take(file)
    assert lock is not None
    assert file.is_file()
    lock.release()


def test_a_file_where_the_locks_belong_is_named(tmp_path: Path) -> None:
    (tmp_path / ".locks").touch()
    with pytest.raises(UserError, match=r"cams-000000\.lock: can't be written"):
        take(tmp_path / ".locks" / "cams-000000.lock")


def test_what_is_forked_meanwhile_holds_no_lock(tmp_path: Path) -> None:
    """A forked process that goes on keeps nobody out, of a run folder or of a shard."""
    with locked(tmp_path), claims(tmp_path) as shards:
        assert list(shards.take()) == [0, 1, 2]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
            child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
    try:
        for file in (tmp_path / ".lock", *(tmp_path / ".locks").glob("*.lock")):
            lock = take(file)
            assert lock is not None, file
            lock.release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
