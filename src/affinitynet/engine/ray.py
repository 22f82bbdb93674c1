"""Ray: the stages of a run over the nodes of a cluster, from one command.

Every worker is an actor that does what a process started with `--shard` or by torchrun does: the
run folder's locks share out the work, so a worker that dies needs no repair, and one more needs no
word. This module only starts workers, starts others for those that died, and brings back what they
say.

Not Ray Train: its trainer brings checkpoints, retries and a storage of its own, which `fit()` has
already, and no node could join. Workers are linked as torchrun's are, by a common meeting place.
"""

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from affinitynet import __version__
from affinitynet.engine.leading import LostError
from affinitynet.engine.place import Place, placed
from affinitynet.engine.stopping import MESSAGE, Stopped, ask_stop, check_stop, stop_asked
from affinitynet.errors import UserError
from affinitynet.progress import detail, logger, say, warn
from affinitynet.run_folder.folder import BusyError, atomic_write

MARK = ".engine"  # in the run folder, while workers are at it: they show that they see it
TICK = 0.5  # seconds between two looks at the workers
PATIENCE = 60.0  # seconds for workers that end by themselves
LONGEST = 3600.0  # for the image or step at hand
MOST_DEATHS = 10  # of workers in one phase, on nodes that live; a node may die at any time
DEATHS = (RayActorError, WorkerCrashedError, OutOfMemoryError)


class Phase(NamedTuple):
    """Stages that are done in one go: up to and with `until`; together: a training."""

    until: str
    training: bool


class Needs(NamedTuple):
    """What a worker takes of a node."""

    cpus: int
    gpu: bool = False

    @property
    def resources(self) -> dict[str, float]:
        """By the names that Ray gives them."""
        return {"CPU": self.cpus, **({"GPU": 1} if self.gpu else {})}

    def fits(self, node: dict[str, float]) -> int:
        """Count the workers that a node of these resources has room for."""
        return int(min(node.get(name, 0) // amount for name, amount in self.resources.items()))


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


@dataclass
class Hired:
    """A worker as the command sees it."""

    actor: Any
    place: Place
    node: str = ""  # where it is, as soon as it answers
    asked: Any = None  # for its messages

    def listen(self) -> list[tuple[int, str]]:
        """Return what it said, if it answers; a worker that has no node yet does not."""
        if self.asked is None:
            self.asked = self.actor.said.remote()
        if not ray.wait([self.asked], timeout=0)[0]:
            return []
        asked, self.asked = self.asked, None
        try:
            node, lines = ray.get(asked)
        except DEATHS:
            return []
        if not self.node:
            self.node = node
            detail(f"process {self.place.index} is on node {node}")
        return list(lines)


class Crew:
    """The workers of one run, phase after phase."""

    def __init__(self, job: Job, needs: Needs, processes: int | None, ranks: int) -> None:
        """Have no worker yet; so many `processes` label (None: as many as there is room for).

        ranks: that many train together.
        """
        self._job, self._needs, self._processes, self._ranks = job, needs, processes, ranks
        self._team: dict[Any, Hired] = {}  # by what their work will return
        self._said: set[str] = set()
        self._deaths = self._numbers = 0
        self._stopping = False
        self._why = ""  # the last one was lost
        self._crowded = time.monotonic()

    def do(self, phase: Phase) -> None:
        """Have workers do a phase, until it is done.

        Raises:
            UserError: a worker met a mistake of the user's, or workers die again and again.
            Stopped: SIGTERM came, and all workers have saved.
        """
        self._deaths = self._numbers = 0
        try:
            if phase.training and self._ranks > 1:
                while not self._train(phase):
                    self._count_death(self._why)
            else:
                self._share(phase, 1 if phase.training else self._processes)
        finally:
            self._dismiss()

    def _share(self, phase: Phase, processes: int | None) -> None:
        """Keep workers at shards, each alone; whoever is first leads, and another after it."""
        while True:
            wanted = processes or max(1, sum(map(self._needs.fits, _living().values())))
            while len(self._team) < wanted and not self._stopping:
                # Two at least, so that one whose folder is held waits for it.
                place = Place(self._numbers, max(2, wanted, self._numbers + 1))
                self._numbers += 1
                self._hire(phase, place)
            kinds = {outcome.kind for outcome in self._look()}
            if "done" in kinds:
                break
            if "lost" in kinds:
                self._count_death(self._why)
        self._gather(PATIENCE)  # the others see that all is done

    def _train(self, phase: Phase) -> bool:
        """Have linked workers train; False if they lost one, and have to begin again."""
        group = placement_group([self._needs.resources] * self._ranks)
        try:
            while not group.wait(timeout_seconds=TICK):
                check_stop()
                self._await_room(False)
            self._await_room(True)
            options = {"scheduling_strategy": PlacementGroupSchedulingStrategy(group)}
            actors = [self._actor(**options) for _ in range(self._ranks)]
            try:
                address = ray.get(actors[0].meet.remote())
            except DEATHS:
                return False
            for number, actor in enumerate(actors):
                self._begin(actor, phase, Place(number, self._ranks, True), address)
            found: list[Outcome] = []
            while self._team:
                found += self._look()
                if any(outcome.kind in ("lost", "died") for outcome in found):
                    return False
            return True
        finally:
            self._dismiss()
            remove_placement_group(group)

    def _actor(self, **options: Any) -> Any:
        resources = {"num_cpus": self._needs.cpus, **({"num_gpus": 1} if self._needs.gpu else {})}
        # Threads: what is said, and the word to stop, come while it works.
        return ray.remote(Worker).options(max_concurrency=3, **resources, **options).remote()

    def _hire(self, phase: Phase, place: Place) -> None:
        self._begin(self._actor(), phase, place, None)

    def _begin(
        self, actor: Any, phase: Phase, place: Place, address: tuple[str, int] | None
    ) -> None:
        work = actor.work.remote(self._job, phase.until, place, address)
        self._team[work] = Hired(actor, place)

    def _look(self) -> list[Outcome]:
        """Wait a moment; print what was said; return how those ended that did.

        Raises:
            UserError: one met a mistake of the user's, or too many died.
            Stopped: all have, as they were asked to.
        """
        if stop_asked() and not self._stopping:
            self._stopping = True
            for hired in self._team.values():
                hired.actor.stop.remote()
        ended, _ = ray.wait(list(self._team), num_returns=1, timeout=TICK)
        self._listen()
        found = [self._end(work) for work in ended]
        for outcome in found:
            if outcome.kind == "wrong":
                raise UserError(outcome.message)
        if self._stopping:
            self._gather(LONGEST)
            raise Stopped(MESSAGE)
        return found

    def _end(self, work: Any) -> Outcome:
        """Return how a worker's work ended, and let the worker go."""
        hired = self._team.pop(work)
        try:
            outcome: Outcome = ray.get(work)
        except DEATHS as error:
            outcome = Outcome("died", " ".join(str(error).split()))
            where = hired.node and f" on node {hired.node[:8]}"
            warn(f"a process{where} has died; another takes its part")
            detail(outcome.message)
            if hired.node in _living():
                self._count_death(outcome.message)
        self._why = outcome.message or self._why
        self._print(outcome.lines)
        ray.kill(hired.actor)
        return outcome

    def _count_death(self, reason: str) -> None:
        self._deaths += 1
        if self._deaths >= MOST_DEATHS:
            raise UserError(
                f"{self._deaths} processes have died on nodes that live, the last one: {reason}; "
                "if memory was full, start fewer with --processes; the same command goes on"
            )

    def _gather(self, patience: float) -> None:
        """Wait for workers that are about to end; let go of those that have not begun, or don't."""
        for work in [work for work, hired in self._team.items() if not hired.node]:
            ray.kill(self._team.pop(work).actor)
        deadline = time.monotonic() + patience
        while self._team and time.monotonic() < deadline:
            ended, _ = ray.wait(list(self._team), num_returns=1, timeout=TICK)
            self._listen()
            for work in ended:
                self._end(work)

    def _dismiss(self) -> None:
        for hired in self._team.values():
            ray.kill(hired.actor)
        self._team.clear()

    def _listen(self) -> None:
        for hired in self._team.values():
            self._print(hired.listen())
        self._await_room(any(hired.node for hired in self._team.values()))

    def _await_room(self, found: bool) -> None:
        """Say once a minute that there is no room for a worker."""
        now = time.monotonic()
        if found:
            self._crowded = now
        elif now - self._crowded > PATIENCE:
            self._crowded = now
            wanted = " and ".join(f"{n} {name}" for name, n in self._needs.resources.items())
            say(f"waits for room on the cluster: each process takes {wanted} (--workers)")

    def _print(self, lines: Iterable[tuple[int, str]]) -> None:
        for level, text in lines:
            if text not in self._said:  # several workers say the same of one run
                self._said.add(text)
                (warn if level > logging.INFO else say if level == logging.INFO else detail)(text)


def run_over_ray(
    phases: Sequence[Phase],
    work: Callable[..., object],
    out: Path,
    *,
    cpus: int,
    gpu: bool,
    processes: int | None = None,
    ranks: int = 1,
) -> None:
    """Have the workers of a Ray cluster do phases of a run, one after another.

    Args:
        phases: what is to do. out: the run folder, which all nodes share.
        work: does what is left of a run, up to and with the stage `until`; it is pickled.
        cpus: that a worker takes. gpu: whether it takes a card, where the cluster has any.
        processes: workers that label; None: as many as there is room for, also later on.
        ranks: workers that train together.

    Raises:
        UserError: no cluster, a mistake of the user's that a worker met, or workers that die again
            and again.
        Stopped: SIGTERM came, and all workers have saved.
    """
    with _connected():
        nodes = _living()
        needs = Needs(max(1, cpus), gpu and any(node.get("GPU") for node in nodes.values()))
        say(f"Ray: {len(nodes)} nodes with room for {sum(map(needs.fits, nodes.values()))} workers")
        with _marked(out) as mark:
            crew = Crew(Job(work, out, mark), needs, processes, ranks)
            for phase in phases:
                crew.do(phase)


@contextmanager
def _connected() -> Iterator[None]:
    """Be part of the cluster of RAY_ADDRESS, else of this machine's, else of one of our own."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster of our own
    try:
        # Messages come from the workers themselves: without the prefixes of Ray's log.
        with _own_signals():
            ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        address = os.environ.get("RAY_ADDRESS", "here")
        raise UserError(f"no Ray cluster at {address} ({' '.join(str(error).split())})") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what SIGTERM does: Ray would have it end the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _marked(out: Path) -> Iterator[str]:
    mark, file = secrets.token_hex(8), out / MARK
    with atomic_write(file) as temporary:
        temporary.write_text(mark, encoding="utf-8")
    try:
        yield mark
    finally:
        with suppress(OSError):
            file.unlink()


def _living() -> dict[str, dict[str, float]]:
    """Return the resources of each node that lives, by its id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
