"""Shards of consecutive images, each worked on by one process at a time, under a lock.

No process talks to another. A process takes its own shards first, every N-th, and then those that
nobody works on: a job that never started or a host that died leaves nothing undone. Locks are the
system's (`run_folder.locks`), so that they end with the process that holds them.
"""

import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock

from affinitynet.engine.place import Place
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import output_path
from affinitynet.run_folder.locks import take
from affinitynet.run_folder.store import forget

LISTED_EVERY = 30.0  # seconds
LOCKS = ".locks"  # in a run folder, while a stage is worked on


class Helped(Exception):  # noqa: N818 - no error: how a helper leaves a stage
    """A process that does not lead has done its share of a stage; the leading one completes it."""


class Claims:
    """The shards of a stage that this process takes, one after another.

    Args:
        root: the run folder. name: of what is made, for the locks' names; also of its folder, where
            tars may keep it.
        shards: the numbers of the items of each shard.
        is_there: tells whether an item is made.
        is_recorded, record: of a shard whose items are all made.
        recorded: lists the shards that are, where no more is to be asked: a look at each image of a
            large set, by each of many processes, is more than a shared disk answers in an hour.
            None looks at the items of a recorded shard.
        is_current: tells, with a shard's lock held, whether its items are still to be made as this
            process makes them. Another one may have begun the stage anew, with other settings.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        shards: Sequence[Sequence[int]],
        *,
        place: Place,
        is_there: Callable[[int], bool],
        is_recorded: Callable[[int], bool],
        record: Callable[[int], None],
        recorded: Callable[[], Container[int]] | None = None,
        is_current: Callable[[], bool] = lambda: True,
    ) -> None:
        """Look at nothing yet."""
        self._is_current = is_current
        self._recorded, self._listed = recorded, -LISTED_EVERY
        self._known: Container[int] = ()
        self._root, self._name, self._shards = root, name, shards
        self._is_there, self._is_recorded, self._record = is_there, is_recorded, record
        # Its own first, then those of the process behind it, and so on.
        self.open = sorted(
            range(len(shards)), key=lambda shard: ((shard - place.index) % place.count, shard)
        )
        self._held: dict[int, tuple[FileLock, set[int]]] = {}
        self._shard_of: dict[int, int] = {}

    def __enter__(self) -> Self:
        """Give the claims."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of what is not finished."""
        for lock, _ in self._held.values():
            lock.release()
        self._held.clear()

    def take(self) -> Iterator[int]:
        """Yield the items to make of every shard that no other process works on now.

        At the end `open` are the shards that others still work on.

        Raises:
            Helped: the stage is no longer the one that this process began.
        """
        coming, self.open = self.open, []
        for shard in coming:
            if self._is_done(shard):
                continue
            lock = take(_lock_file(self._root, f"{self._name}-{shard:06d}"))
            if lock is None:
                self.open.append(shard)
                continue
            self._held[shard] = lock, set()  # let go of, whatever comes
            # Not before: who begins a stage anew asks that no lock is held.
            if not self._is_current():
                self._held.pop(shard)[0].release()
                raise Helped
            # Again, as another may have made them meanwhile, and brought them into a tar.
            forget(self._root / self._name)
            missing = self._missing(shard)
            self._held[shard] = lock, set(missing)
            self._shard_of |= dict.fromkeys(missing, shard)
            if not missing:
                self._finish(shard)
            yield from missing

    def settle(self, item: int) -> None:
        """Note that an item is made; record its shard if it was the last one."""
        shard = self._shard_of[item]
        self._held[shard][1].discard(item)
        if not self._held[shard][1]:
            self._finish(shard)

    def _is_done(self, shard: int) -> bool:
        # In this order: a shard that is not recorded costs no look at its items.
        if self._recorded is None:
            return self._is_recorded(shard) and not self._missing(shard)
        if shard in self._known:
            return True
        # Others go on meanwhile; who is behind them finds many done in a row.
        if (now := time.monotonic()) - self._listed >= LISTED_EVERY:
            self._known, self._listed = self._recorded(), now
        return self._is_recorded(shard)

    def _finish(self, shard: int) -> None:
        if not self._is_recorded(shard):
            self._record(shard)
        self._held.pop(shard)[0].release()

    def _missing(self, shard: int) -> list[int]:
        return [item for item in self._shards[shard] if not self._is_there(item)]


def check_idle(root: Path) -> None:
    """Refuse to make room for new files while other processes still write the old ones.

    Raises:
        UserError: a shard is being worked on.
    """
    for file in sorted((root / LOCKS).glob("*.lock")):
        lock = take(_lock_file(root, file.stem))
        if lock is None:
            raise UserError(
                f"{root}: another process works on {file.stem.rpartition('-')[0]} here; wait until "
                "it has ended"
            )
        lock.release()


def forget_locks(root: Path) -> None:
    """Delete the locks of finished stages: with all recorded nobody asks for one."""
    for file in (root / LOCKS).glob("*.lock"):
        with suppress(OSError):  # one that is open, on Windows
            file.unlink()
    with suppress(OSError):
        (root / LOCKS).rmdir()


def _lock_file(root: Path, name: str) -> Path:
    """Return the file that locks a part of a run folder; no link leads out of the folder."""
    return output_path(root, f"{LOCKS}/{name}", ".lock")
