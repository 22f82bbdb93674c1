"""The loop over images that the stages share, and what they check of each image."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from affinitynet.data import Sample, load_image, write_labels
from affinitynet.data.corrections import correct_labels
from affinitynet.data.labels import read_made
from affinitynet.data.transforms import LabelMap, Pixels
from affinitynet.errors import NotFiniteError, UserError
from affinitynet.progress import task
from affinitynet.run_folder.records import SHARD_IMAGES, StageFolder, shards_of
from affinitynet.run_folder.stages import CORRECTED, Artifact
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

    An image whose file is there is skipped, so `finish` must write that file last. Returns
    `counts`: how many images there are (`total`), and how many were made in this call (`done`).

    Raises:
        UserError: the first image that fails, by stage and name; what is done stays.
    """
    folder = StageFolder(context.folder(artifact), name)
    shards = shards_of([sample.id for sample in samples])
    todo = [
        (number, sample)
        for number, sample in enumerate(samples)
        if not context.file(artifact, sample).is_file()
    ]
    left = Counter(number // SHARD_IMAGES for number, _ in todo)
    for shard, ids in enumerate(shards):
        # All files are there, but a run was stopped before it recorded them.
        if not left[shard] and not folder.has_shard(shard, ids):
            folder.finish_shard(shard, ids)
    numbers = {sample.id: number for number, sample in todo}

    def settled(sample: Sample) -> None:
        shard = numbers[sample.id] // SHARD_IMAGES
        left[shard] -= 1
        if not left[shard]:
            folder.finish_shard(shard, shards[shard])

    for_each(
        name,
        [sample for _, sample in todo],
        done=len(samples) - len(todo),
        load=load,
        compute=compute,
        finish=finish,
        settled=settled,
        workers=context.recipe.workers,
    )
    return {"counts": {"total": len(samples), "done": len(todo)}}


def for_each(
    name: str,
    samples: Sequence[Sample],
    *,
    load: Callable[[Sample], Loaded],
    compute: Callable[[Sample, Loaded], Computed],
    finish: Callable[[Sample, Computed], None],
    workers: int,
    done: int = 0,
    settled: Callable[[Sample], None] = lambda sample: None,
) -> None:
    """Go through images: load and finish in threads, compute (the network) in between.

    `settled` is called in the main thread when an image is finished; `done` images before these
    are counted in the progress.

    Raises:
        UserError: the first image that fails, by stage and name.
    """
    # Bounds memory: so many images wait to be computed, and so many to be written.
    ahead = 2 * max(1, workers)
    with (
        ThreadPoolExecutor(max(1, workers)) as pool,
        task(name, done + len(samples), done) as progress,
    ):
        loading: deque[Future[Loaded]] = deque()
        finishing: deque[tuple[Sample, Future[None]]] = deque()

        def settle() -> None:
            sample, future = finishing.popleft()
            with blaming(name, sample):
                future.result()
            settled(sample)
            progress.advance()

        try:
            for index, sample in enumerate(samples):
                for next_sample in samples[index + len(loading) : index + ahead]:
                    loading.append(pool.submit(load, next_sample))
                with blaming(name, sample):
                    computed = compute(sample, loading.popleft().result())
                finishing.append((sample, pool.submit(finish, sample, computed)))
                # In the order of the images, so that the first one that fails is the one named.
                while len(finishing) > ahead or (finishing and finishing[0][1].done()):
                    settle()
            while finishing:
                settle()
        finally:
            for unread in loading:  # after an error: what is computed is still written
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
        image, labels = load_image(sample.image), read_made(file, maker)
        check_size(image.shape[:2], labels.shape, file)
    return image, labels
