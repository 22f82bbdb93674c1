"""Shards under locks: nothing is done twice, and nothing is left undone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from affinitynet.engine.place import Place
from affinitynet.engine.shards import LOCKS, Claims, Helped, check_idle, forget_locks
from affinitynet.errors import UserError

SHARDS = [range(0, 2), range(2, 4), range(4, 6), range(6, 7)]


class Work:
    """Seven items in four shards, as processes on one folder see them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: list[int] = []
        self.recorded: list[int] = []

    def claims(
        self, index: int, count: int = 2, is_current: Callable[[], bool] = lambda: True
    ) -> Claims:
        return Claims(
            self.root,
            "cams",
            SHARDS,
            place=Place(index, count),
            is_there=lambda item: item in self.made,
            is_recorded=lambda shard: shard in self.recorded,
            record=self.recorded.append,
            is_current=is_current,
        )

    def make(self, claims: Claims, item: int) -> None:
        self.made.append(item)
        claims.settle(item)

    def make_all(self, claims: Claims) -> None:
        for item in claims.take():
            self.make(claims, item)


def test_a_process_takes_its_own_shards_first_and_then_what_nobody_works_on(tmp_path: Path) -> None:
    work = Work(tmp_path)
    with work.claims(1) as claims:
        for item in claims.take():
            work.make(claims, item)
    assert work.made == [2, 3, 6, 0, 1, 4, 5]
    assert work.recorded == [1, 3, 0, 2]
    assert not claims.open


def test_two_processes_never_make_the_same(tmp_path: Path) -> None:
    work = Work(tmp_path)
    with work.claims(0) as first, work.claims(1) as second:
        coming = first.take()
        begun = [next(coming), next(coming)]  # holds shard 0, and has made nothing of it
        for item in second.take():
            work.make(second, item)
        assert second.open == [0]
        assert list(coming) == []  # the others are made
        for item in begun:
            work.make(first, item)
        assert not first.open
        assert list(second.take()) == []
        assert not second.open
    assert sorted(work.made) == list(range(7))
    assert sorted(work.recorded) == [0, 1, 2, 3]


def test_the_shard_of_one_that_ended_is_made_by_another(tmp_path: Path) -> None:
    work = Work(tmp_path)
    with work.claims(0) as first:
        work.make(first, next(first.take()))
    with work.claims(1) as second:
        for item in second.take():
            work.make(second, item)
    assert sorted(work.made) == list(range(7))


def test_a_shard_with_all_files_is_recorded_if_it_was_not(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.made = [2, 3]
    with work.claims(0) as claims:
        assert list(claims.take()) == [0, 1, 4, 5, 6]
    assert work.recorded == [1]


def test_a_stage_that_was_begun_anew_is_left_alone(tmp_path: Path) -> None:
    work, asked = Work(tmp_path), 0

    def is_current() -> bool:
        nonlocal asked
        asked += 1
        with pytest.raises(UserError, match="another process works on cams"):
            check_idle(tmp_path)  # so nobody begins it anew from here on
        return asked < 3

    work.made, work.recorded = [0, 1], [0]  # not asked for, as it is done
    with work.claims(0, 1, is_current) as claims:
        with pytest.raises(Helped):
            work.make_all(claims)
        check_idle(tmp_path)  # let go of
    assert asked == 3
    assert work.made == [0, 1, 2, 3, 4, 5]


def test_files_in_use_are_not_made_room_for(tmp_path: Path) -> None:
    work = Work(tmp_path)
    with work.claims(0) as claims:
        next(claims.take())
        with pytest.raises(UserError, match="another process works on cams here"):
            check_idle(tmp_path)
    check_idle(tmp_path)
    forget_locks(tmp_path)
    assert not (tmp_path / LOCKS).exists()


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / LOCKS).mkdir()
    (tmp_path / LOCKS / "cams-000000.lock").symlink_to(tmp_path / "precious")
    with Work(tmp_path).claims(0) as claims, pytest.raises(UserError, match="symbolic link"):
        list(claims.take())
