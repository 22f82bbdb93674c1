"""A worker of `engine/ray.py`: an actor that takes part in a run, and keeps what it has to say."""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import ray

from affinitynet import __version__
from affinitynet.engine.leading import LostError
from affinitynet.engine.place import Place, placed
from affinitynet.engine.stopping import Stopped, ask_stop
from affinitynet.errors import UserError
from affinitynet.progress import logger
from affinitynet.run_folder.folder import BusyError

MARK = ".engine"  # in the run folder, while workers are at it: they show that they see it


class Outcome(NamedTuple):
    """How a worker's work ended: done, stopped, lost, wrong or died; what it said last."""

    kind: str
    message: str = ""
    lines: Sequence[tuple[int, str]] = ()


@dataclass
class Job:
    """What all workers of a run are told."""

    work: Callable[..., object]  # takes `until`
    out: Path
    mark: str
    folder: str = field(default_factory=os.getcwd)
    level: int = field(default_factory=lambda: logger.getEffectiveLevel())
    version: str = __version__


class Worker:
    """One process of a run, on a node of the cluster."""

    def __init__(self) -> None:
        """Have nothing to say yet."""
        self._lines: deque[tuple[int, str]] = deque()
        self._node: str = ray.get_runtime_context().get_node_id()

    def meet(self) -> tuple[str, int]:
        """Return where the workers of a training meet: this node, and a port that is free."""
        address = ray.util.get_node_ip_address()
        with socket.socket() as free:
            free.bind(("", 0))
            return address, free.getsockname()[1]

    def work(self, job: Job, until: str, place: Place, address: tuple[str, int] | None) -> Outcome:
        """Take part in a run up to a stage."""
        logger.handlers, logger.propagate = [_Keeping(self._lines)], False
        logger.setLevel(job.level)
        kind, message = self._work(job, until, place, address)
        return Outcome(kind, message, list(self._lines))

    def _work(
        self, job: Job, until: str, place: Place, address: tuple[str, int] | None
    ) -> tuple[str, str]:
        try:
            self._check(job)
            if address:
                os.environ.update(_launcher(place, address))
            with placed(None if address else place):
                job.work(until=until)
        except (LostError, BusyError) as error:
            return "lost", str(error)
        except UserError as error:
            return "wrong", str(error)
        except Stopped:
            return "stopped", ""
        return "done", ""

    def said(self) -> tuple[str, list[tuple[int, str]]]:
        """Return the id of its node, and the messages since the last call: level and text."""
        return self._node, [self._lines.popleft() for _ in range(len(self._lines))]

    def stop(self) -> None:
        """Finish the image or step at hand, and save."""
        ask_stop()

    def _check(self, job: Job) -> None:
        host = socket.gethostname()
        if job.version != __version__:
            raise UserError(
                f"{host} has affinitynet {__version__}, the command {job.version}; install one"
            )
        if os.path.isdir(job.folder):  # noqa: PTH112 - relative paths are the command's
            os.chdir(job.folder)
        mark = job.out / MARK
        if not mark.is_file() or mark.read_text(encoding="utf-8") != job.mark:
            raise UserError(
                f"{host} does not see the run folder {job.out} of this command; all nodes have to "
                "share it, and the data set, under the same path"
            )


class _Keeping(logging.Handler):
    """Keeps records until the command asks for them."""

    def __init__(self, lines: deque[tuple[int, str]]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append((record.levelno, self.format(record)))


def _launcher(place: Place, address: tuple[str, int]) -> dict[str, str]:
    """Return what torchrun would say. A worker sees one card, its own: it is the first there."""
    numbers = {"RANK": place.index, "WORLD_SIZE": place.count}
    numbers |= {"LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": address[1]}
    return {"MASTER_ADDR": address[0], **{name: str(value) for name, value in numbers.items()}}
