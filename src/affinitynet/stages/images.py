"""The loop over images that the stages share, and what they check of each image."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from affinitynet.data import Sample, load_image, write_labels
from affinitynet.data.corrections import correct_labels
from affinitynet.data.labels import read_made
from affinitynet.data.transforms import LabelMap, Pixels
from affinitynet.engine.place import here
from affinitynet.engine.shards import Claims, Helped
from affinitynet.engine.stopping import Wait, check_stop, stop_asked
from affinitynet.errors import NotFiniteError, UserError
from affinitynet.progress import task
from affinitynet.run_folder.artifacts import CORRECTED, Artifact
from affinitynet.run_folder.records import StageFolder, shards_of
from affinitynet.run_folder.store import is_there, pack, remove_empty
from affinitynet.stages.context import Context

Loaded = TypeVar("Loaded")
Computed = TypeVar("Computed")


class Shown:
    """The labels that each mask of an artifact shows, noted while the masks are written.

    Masks of an earlier call are read when they are asked for.
    """

    def __init__(self, context: Context, artifact: Artifact) -> None:
        """Know of no mask yet."""
        self._context, self._artifact = context, artifact
        self._found: dict[str, set[int]] = {}

    def write(self, sample: Sample, labels: NDArray[np.integer[Any]]) -> None:
        """Write an image's mask, and note what it shows."""
        file = self._context.file(self._artifact, sample)
        write_labels(file, labels, self._context.manifest.palette)
        self._found[sample.id] = set(np.unique(labels).tolist())

    def __call__(self, sample: Sample) -> set[int]:
        """Return the labels of an image's mask.

        Raises:
            UserError: it can't be read.
        """
        if sample.id not in self._found:
            labels = self._context.labels(self._artifact, sample)
            self._found[sample.id] = set(np.unique(labels).tolist())
        return self._found[sample.id]


def make_each(
    context: Context,
    name: str,
    artifact: Artifact,
    samples: Sequence[Sample],
    *,
    load: Callable[[Sample], Loaded],
    compute: Callable[[Sample, Loaded], Computed],
    finish: Callable[[Sample, Computed], None],
) -> dict[str, Any]:
    """Make the missing files of an artifact, and record each run of consecutive images.

    An image whose file is there is skipped, so `finish` must write that file last. Such runs of
    images are shards: each is made by one process at a time, of several that work on a run. Returns
    `counts`: how many images there are (`total`), and how many were made in this call (`done`).

    Raises:
        UserError: the first image that fails, by stage and name; what is done stays.
        Helped: another process leads, which waits for all shards and completes the stage.
        Stopped: SIGTERM came; what is done stays.
    """
    folder = StageFolder(context.folder(artifact), name)
    shards = shards_of([sample.id for sample in samples])
    starts = [0, *accumulate(len(ids) for ids in shards)]
    # Who helps leaves that to the one that leads: so many looks of so many processes take hours.
    there = [context.leads and is_there(context.file(artifact, sample)) for sample in samples]
    numbers = {sample.id: number for number, sample in enumerate(samples)}
    made = 0
    packed = _packed(context, artifact)

    def settled(sample: Sample) -> None:
        nonlocal made
        made += 1
        claims.settle(numbers[sample.id])

    def record(shard: int) -> None:
        for folder_, suffix in packed:
            names = [f"{sample_id}{suffix}" for sample_id in shards[shard]]
            pack(folder_, shard, names, context.recipe.store.removeprefix("tar"))
        folder.finish_shard(shard, shards[shard])

    with Claims(
        context.root,
        artifact.folder,
        [range(start, end) for start, end in pairwise(starts)],
        place=here(),
        is_there=lambda number: is_there(context.file(artifact, samples[number])),
        is_recorded=lambda shard: folder.has_shard(shard, shards[shard]),
        record=record,
        recorded=None if context.leads else folder.listed_shards,
        is_current=context.is_current,
    ) as claims:
        for _ in rounds(claims, name, leads=context.leads):
            for_each(
                name,
                (samples[number] for number in claims.take()),
                total=len(samples),
                done=sum(there) + made,
                load=load,
                compute=compute,
                finish=finish,
                settled=settled,
                workers=context.recipe.workers,
            )
    for folder_, _ in packed:
        remove_empty(folder_)
    return {"counts": {"total": len(samples), "done": made}}


def _packed(context: Context, artifact: Artifact) -> list[tuple[Path, str]]:
    """Return folder and suffix of what a stage makes with an artifact, where tars keep it."""
    if context.recipe.store == "files":
        return []
    stage = context.stage(context.maker(artifact))
    return [(context.folder(each), each.suffix) for each in stage.artifacts if each.suffix]


def rounds(claims: Claims, name: str, *, leads: bool, last: bool = True) -> Iterator[None]:
    """Go over a stage's shards again until all are made; who doesn't lead goes once.

    Raises:
        Helped: after that, where another process leads and this is the `last` of the stage's work.
    """
    wait = Wait(f"{name}: waits for shards that other processes work on")
    yield
    while leads and claims.open:
        wait.step()
        yield
    if last and not leads:
        raise Helped


def for_each(
    name: str,
    samples: Iterable[Sample],
    *,
    load: Callable[[Sample], Loaded],
    compute: Callable[[Sample, Loaded], Computed],
    finish: Callable[[Sample, Computed], None],
    workers: int,
    done: int = 0,
    total: int | None = None,
    settled: Callable[[Sample], None] = lambda sample: None,
) -> None:
    """Go through images: load and finish in threads, compute (the network) in between.

    `settled` is called in the main thread when an image is finished; `done` images before these
    are counted in the progress, up to `total`, which is needed where `samples` come one by one.

    Raises:
        UserError: the first image that fails, by stage and name.
        Stopped: SIGTERM came, and what had begun is finished.
    """
    if total is None:
        samples = tuple(samples)
        total = done + len(samples)
    coming = iter(samples)
    # Bounds memory: so many images wait to be computed, and so many to be written.
    ahead = 2 * max(1, workers)
    with ThreadPoolExecutor(max(1, workers)) as pool, task(name, total, done) as progress:
        loading: deque[tuple[Sample, Future[Loaded]]] = deque()
        finishing: deque[tuple[Sample, Future[None]]] = deque()

        def settle() -> None:
            sample, future = finishing.popleft()
            with blaming(name, sample):
                future.result()
            settled(sample)
            progress.advance()

        def fill() -> bool:
            for sample in islice(coming, ahead - len(loading)):
                loading.append((sample, pool.submit(load, sample)))
            return bool(loading)

        try:
            while fill():
                if stop_asked():
                    break
                sample, loaded = loading.popleft()
                with blaming(name, sample):
                    computed = compute(sample, loaded.result())
                finishing.append((sample, pool.submit(finish, sample, computed)))
                # In the order of the images, so that the first one that fails is the one named.
                while len(finishing) > ahead or (finishing and finishing[0][1].done()):
                    settle()
            while finishing:
                settle()
            check_stop()
        finally:
            for _, unread in loading:  # after an error: what is computed is still written
                unread.cancel()


@contextmanager
def blaming(name: str, sample: Sample) -> Iterator[None]:
    """Put the stage's and the image's name before a user's error."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{name}, image {sample.id}: {error}") from error
    except NotFiniteError as error:
        raise UserError(
            f"{name}, image {sample.id}: {error}: train with a lower learning rate, or "
            "compute with precision = float32"
        ) from error
    except Exception as error:
        error.add_note(f"in stage {name}, image {sample.id}")
        raise


def check_size(image: Sequence[int], made: Sequence[int], file: Path) -> None:
    """Refuse an image (H, W) that is not of the size of what an earlier stage made of it.

    Raises:
        UserError: the sizes differ, so the image was replaced in between.
    """
    if tuple(image) != tuple(made):
        raise UserError(
            f"the image is {image[0]} x {image[1]}, but {file} is {made[0]} x {made[1]}: the image "
            "was replaced; put the old one back, or make all again with --redo compute_cams"
        )


def read_mask(context: Context, artifact: Artifact, sample: Sample) -> LabelMap:
    """Read an image's mask, and lay its correction over it where it is one that people correct.

    Raises:
        UserError: mask or correction can't be read, or they do not fit each other.
    """
    labels = context.labels(artifact, sample)
    if artifact not in CORRECTED:
        return labels
    return correct_labels(labels, context.root, sample.id, len(context.manifest.classes))


def load_labeled(stage: str, sample: Sample, file: Path, maker: str) -> tuple[Pixels, LabelMap]:
    """Load an image (H, W, 3) and the labels (H, W) that the stage `maker` made of it.

    Raises:
        UserError: one can't be read or they do not fit each other, by stage and name.
    """
    with blaming(stage, sample):
        image, labels = load_image(sample.image, sample.reading), read_made(file, maker)
        check_size(image.shape[:2], labels.shape, file)
    return image, labels
