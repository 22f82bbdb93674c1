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
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from affinitynet.engine.place import Place
from affinitynet.engine.ray_worker import MARK, Job, Outcome, Worker
from affinitynet.engine.stopping import MESSAGE, Stopped, check_stop, stop_asked
from affinitynet.errors import UserError
from affinitynet.progress import detail, say, warn
from affinitynet.run_folder.folder import atomic_write

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
