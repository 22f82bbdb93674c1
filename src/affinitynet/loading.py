"""The batches of a training: their order, and the processes that load them.

One loader serves all epochs, so processes start once, and load the next epoch while the last one
is written. What a sample is depends on (seed, epoch, index) alone, not on who loads it.

Processes that load are a danger to a program that is stopped: forked while Ctrl-C is sent, they
have hung with it, and orphaned they hold what they inherited. So Ctrl-C is held back while they
start, they ignore it as they do SIGTERM, and each ends at once when it is told to or its parent is
gone.

They hand batches over in shared memory, of which a container has 64 MB unless it is told otherwise:
a batch for which it may not last goes through a pipe.
"""

import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from affinitynet.engine.linked import ALONE, Team
from affinitynet.errors import UserError

End = Any  # of a pipe: Windows has a class of its own for it
SHARED = "/dev/shm"  # where torch puts what processes share, on Linux
PATIENCE = 0.3  # seconds that a process which loads has for the image it is at, when all end

# Of more processes than cores, as on one core of the usual two: their number is the user's.
warnings.filterwarnings("ignore", message="This DataLoader will create")


class EpochDataset(Protocol):
    """A data set whose random augmentation depends on (seed, epoch, index) alone.

    Whoever loads sets `epoch` before asking for a sample. With weights it is asked for images
    again in an epoch: index i + k len is image i once more, in another augmentation.
    """

    epoch: int

    def __len__(self) -> int:
        """Count the samples."""

    def __getitem__(self, index: int) -> Any:
        """Return one augmented sample."""


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of all that is drawn in one epoch."""
    return seed * 1_000_003 + epoch


@dataclass(frozen=True)
class Order(Sampler[list[tuple[int, int]]]):
    """The batches of some epochs, each sample by (epoch, index).

    Args:
        images: how many there are.
        batch: images of a batch; with fewer images than that, all of them are one batch.
        epochs: those to go through.
        steps: the number of batches of an epoch.
        weights: draw each image with a chance in proportion to its own, with replacement; without,
            an epoch has each image once.
        team: the processes that train together; this one gets its part of each batch.
        skip: batches of the first epoch that are done already.
    """

    images: int
    batch: int
    seed: int
    epochs: range
    steps: Callable[[int], int]
    weights: Sequence[float] | None = None
    team: Team = ALONE
    skip: int = 0

    def __len__(self) -> int:
        """Count the batches."""
        return sum(self.steps(epoch) for epoch in self.epochs) - self.skip

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield batch after batch, epoch after epoch."""
        for epoch in self.epochs:
            order = self._draw(epoch)
            first = self.skip if epoch == self.epochs.start else 0
            for step in range(first, self.steps(epoch)):
                chosen = order[step * self.batch : (step + 1) * self.batch]
                yield [(epoch, index) for index in self.team.part(chosen)]

    def _draw(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, epoch))
        # A loader draws a seed before its order: this keeps the order of loaders made each epoch.
        torch.empty((), dtype=torch.int64).random_(generator=generator)
        if self.weights is None:
            return torch.randperm(self.images, generator=generator).tolist()
        chances = torch.tensor(self.weights, dtype=torch.float64)
        drawn = torch.multinomial(chances, self.images, True, generator=generator)
        seen: Counter[int] = Counter()
        order = []
        for image in drawn.tolist():
            order.append(image + seen[image] * self.images)
            seen[image] += 1
        return order


@contextmanager
def loading(
    name: str, dataset: EpochDataset, order: Order, workers: int, device: torch.device
) -> Iterator[Iterator[Any]]:
    """Give the batches of an order on a device, loaded by so many processes; 0 loads here.

    The processes live until the end of the context, however that comes.

    Raises:
        UserError: that of a sample, as it is; or a process that loads was ended from outside.
    """
    told, tell = multiprocessing.Pipe(duplex=False)
    # Copies that do not block need pinned memory.
    pinned = device.type == "cuda"
    source: Dataset[Any] = _Handing(dataset)  # type: ignore[assignment]
    loader = DataLoader(
        source,
        batch_sampler=order,
        generator=torch.Generator(),  # its own, so that it draws nothing of the dropout's
        collate_fn=_collate,
        num_workers=workers if len(order) else 0,
        pin_memory=pinned,
        worker_init_fn=partial(_begin, told),
    )
    batches: Any = None
    try:
        with _interrupts_held_back():
            batches = _start(name, loader)
        yield _each(batches, device)
    except (RuntimeError, OSError, EOFError) as error:
        if not (_tells_of_an_end(error) or _was_ended(batches)):
            raise
        raise UserError(
            f"{name}: a process that loads images was ended from outside, as when memory or "
            "/dev/shm is full; go on with fewer --workers (0 loads without processes)"
        ) from error
    finally:
        with _interrupts_held_back():
            _end(batches, tell)
            told.close()
            tell.close()


def _start(name: str, loader: DataLoader[Any]) -> Iterator[Any]:
    try:
        return iter(loader)
    except OSError as error:  # no room for a semaphore, or no process more
        raise UserError(
            f"{name}: no processes that load images can be started ({error.strerror or error}), as "
            f"where {SHARED} is full or missing; use --workers 0, which loads without processes"
        ) from error


def _each(batches: Iterator[Any], device: torch.device) -> Iterator[Any]:
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        if isinstance(batch, _Packed):
            batch = default_collate(batch.unpack())
        yield _put(batch, device)


def _put(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: _put(part, device) for key, part in batch.items()}
    return [_put(part, device) for part in batch] if isinstance(batch, list | tuple) else batch


def _end(batches: Any, tell: End) -> None:
    """End the processes: those that wait at once, those at work when they had their time.

    Left to itself torch gives each five seconds.
    """
    shut_down = getattr(batches, "_shutdown_workers", None)
    if shut_down is None:  # no processes
        return
    if _any_gone(batches._workers):
        # What died while it looked at torch's event has left that locked: nobody can set it.
        batches._workers_done_event = threading.Event()
        with suppress(OSError):
            tell.send_bytes(b"end")
    # Only afterwards: a process that is ended while it looks at torch's event leaves that locked.
    late = threading.Timer(PATIENCE, partial(tell.send_bytes, b"end"))
    late.daemon = True
    late.start()
    try:
        shut_down()
    except RuntimeError as error:
        if not _tells_of_an_end(error):
            raise
        # It came while torch waited for the others, and torch waits for none of them any more.
        with suppress(OSError):
            tell.send_bytes(b"end")
        for process in batches._workers:
            process.join(5)
    finally:
        late.cancel()
        late.join()


def _tells_of_an_end(error: BaseException) -> bool:
    """Tell torch's error of a process that was ended; its handler raises it anywhere, but once."""
    return isinstance(error, RuntimeError) and "DataLoader worker" in str(error)


def _any_gone(processes: Iterable[BaseProcess]) -> bool:
    try:
        return not all(process.is_alive() for process in processes)
    except RuntimeError as error:
        if not _tells_of_an_end(error):
            raise
        return True


def _was_ended(batches: Any) -> bool:
    """Tell whether a process that loads has ended badly: in the middle of a batch, a pipe broke."""
    processes = getattr(batches, "_workers", ())
    if not processes:
        return False
    try:
        gone = wait([process.sentinel for process in processes], 1)
        # Its files are closed before the system knows how it ended: wait for that as well.
        for process in processes:
            if process.sentinel in gone:
                process.join()
        return any(process.exitcode for process in processes)
    except RuntimeError as error:
        if not _tells_of_an_end(error):
            raise
        return True


def _begin(told: End, worker: int) -> None:
    """Prepare a process that loads, before its first sample."""
    # A terminal sends Ctrl-C to all processes, and SLURM its warning; the one that started this
    # one ends it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _say_unless_left
    threading.Thread(target=_end_with_parent, args=(told,), daemon=True).start()


def _say_unless_left(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Show an error of the thread that hands batches over, unless nobody takes them any more."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _end_with_parent(told: End) -> None:
    """Wait for the word to end, or for the end of the parent, which torch looks for each 5 s."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    with suppress(OSError):
        wait([parent.sentinel, told])
    os._exit(0)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Have Ctrl-C wait, here and in processes that start here, which begin with it held back."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class _Handing:
    """Hands a user's error on as a value: a loading process would dress it in a traceback."""

    dataset: EpochDataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: tuple[int, int]) -> Any:
        self.dataset.epoch, index = place
        try:
            return self.dataset[index]
        except UserError as error:
            return error


def _collate(samples: list[Any]) -> Any:
    error = next((sample for sample in samples if isinstance(sample, UserError)), None)
    if error is not None:
        return error
    loader = get_worker_info()
    if loader is None or _has_room(loader.num_workers * sum(map(_size, samples))):
        return default_collate(samples)
    return _Packed.of(samples)


def _has_room(size: int) -> bool:
    """Tell whether shared memory has room for twice as much: a batch of each process, and more."""
    try:
        return shutil.disk_usage(SHARED).free >= 2 * size
    except OSError:  # another system, where there is no such folder
        return True


def _size(sample: Any) -> int:
    if isinstance(sample, Tensor):
        return sample.nbytes
    if isinstance(sample, dict):
        return sum(map(_size, sample.values()))
    return sum(map(_size, sample)) if isinstance(sample, list | tuple) else 0


@dataclass(frozen=True)
class _Packed:
    """Samples as bytes, which go through a pipe as they are; of tensors only a handle does."""

    content: bytes

    @classmethod
    def of(cls, samples: list[Any]) -> "_Packed":
        return cls(pickle.dumps(samples, pickle.HIGHEST_PROTOCOL))

    def unpack(self) -> list[Any]:
        samples: list[Any] = pickle.loads(self.content)
        return samples
