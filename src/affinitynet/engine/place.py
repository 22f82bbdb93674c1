"""Which of several processes this one is: given by `--shard`, a launcher or a scheduler."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from affinitynet.errors import UserError

# How launchers and schedulers number their processes: number, count, and the number of the first.
_NUMBERS = (
    ("RANK", "WORLD_SIZE", None),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", None),
    ("PMI_RANK", "PMI_SIZE", None),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", None),
    ("SLURM_PROCID", "SLURM_NTASKS", None),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
)
# On one machine, from 0: which of its graphics cards a process takes.
_LOCAL = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")
# By which accelerate and torch would join processes that don't know of each other.
LAUNCHER = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    *(name for names in _NUMBERS[1:4] for name in names[:2]),
)


@dataclass(frozen=True)
class Place:
    """One of `count` processes, by its number from 0.

    linked: they can send each other tensors, as torchrun's do, so they train together.
    """

    index: int = 0
    count: int = 1
    linked: bool = False

    @property
    def follows(self) -> bool:
        """Tell whether another process leads whatever happens: rank 0 of those that are linked."""
        return self.linked and self.index > 0


ALONE = Place()
_given: Place | None = None


def here() -> Place:
    """Return this process's place: the one given, else as its environment says.

    Raises:
        UserError: the environment holds numbers that don't fit each other.
    """
    return _given or place_of(os.environ)


@contextmanager
def placed(place: Place | None) -> Iterator[None]:
    """Give this process a place meanwhile, whatever its environment says; None leaves it."""
    global _given
    before = _given
    _given = place or before
    try:
        yield
    finally:
        _given = before


def read_place(text: str) -> Place:
    """Read `i/N`, as `--shard` takes it: number i of N processes, counted from 0.

    Raises:
        UserError: it is something else.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
    if not found or int(found[1]) >= int(found[2]):
        raise UserError(f"--shard {text}: give it as i/N with i from 0 to N - 1, such as 0/4")
    return Place(int(found[1]), int(found[2]))


def place_of(environment: Mapping[str, str]) -> Place:
    """Return the place that a launcher or a scheduler wrote into the environment.

    The first of torchrun's, MPI's and SLURM's variables that name more than one process counts.
    With the address of a common meeting place, as torchrun and accelerate launch give it, the
    processes are linked.

    Raises:
        UserError: a number is none, or not below the count.
    """
    for number, count, first in _NUMBERS:
        # A count of one means nothing by itself: a job that SLURM started may run torchrun.
        if environment.get(count, "") in ("", "1") and not _lacks_count(environment, number, first):
            continue
        start = _number(environment.get(first, "0")) if first else 0
        index, total = _number(environment.get(number, "")), _number(environment.get(count, ""))
        if index is None or total is None or start is None or not 0 <= index - start < total:
            raise UserError(
                f"{number} = {environment.get(number)!r}, {count} = {environment.get(count)!r}: "
                "not the number of a process below their count; unset them, or say it with "
                "--shard i/N"
            )
        linked = number == "RANK" and {"MASTER_ADDR", "MASTER_PORT"} <= environment.keys()
        return Place(index - start, total, linked)
    return ALONE


def _lacks_count(environment: Mapping[str, str], number: str, first: str | None) -> bool:
    """Tell whether a process that is said to be no first one lacks a count, or has a count of one.

    Each of such processes would take itself for the only one. In an array a task's number may be
    anything: one task of it is alone.
    """
    return first is None and environment.get(number, "") not in ("", "0")


def _number(text: str) -> int | None:
    """Read a whole number from 0, as launchers write it; None if it is something else."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def local_number() -> int | None:
    """Return this process's number on its machine, None where no launcher counts them."""
    found = (_number(os.environ.get(name, "")) for name in _LOCAL)
    return next((number for number in found if number is not None), None)


def local_count(count: int) -> int:
    """Return how many of `count` processes are on this machine: all, unless torchrun says."""
    return _number(os.environ.get("LOCAL_WORLD_SIZE", "")) or count
