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
        if environment.get(count, "1") in ("", "1"):
            continue
        try:
            start = int(environment.get(first, "0")) if first else 0
            index, total = int(environment[number]) - start, int(environment[count])
        except (KeyError, ValueError):
            index, total = -1, 0
        if not 0 <= index < total:
            raise UserError(
                f"{number} = {environment.get(number)!r}, {count} = {environment[count]!r}: not "
                "the number of a process below their count; unset them, or say it with --shard i/N"
            )
        linked = number == "RANK" and {"MASTER_ADDR", "MASTER_PORT"} <= environment.keys()
        return Place(index, total, linked)
    return ALONE


def local_number() -> int | None:
    """Return this process's number on its machine, None where no launcher counts them."""
    for name in _LOCAL:
        if (text := os.environ.get(name, "")).isdecimal():
            return int(text)
    return None
