"""What every stage is given, and the loop over images that the stages share."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from affinitynet.data import Manifest, Sample, load_image, read_labels
from affinitynet.data.sample import output_path
from affinitynet.data.transforms import LabelMap, Pixels
from affinitynet.errors import UserError
from affinitynet.hardware import Hardware
from affinitynet.progress import task
from affinitynet.run_folder.recipe import Recipe

Loaded = TypeVar("Loaded")
Computed = TypeVar("Computed")


@dataclass(frozen=True)
class Context:
    """A run as its stages see it: settings, data, and where things lie."""

    recipe: Recipe
    manifest: Manifest
    root: Path

    @property
    def hardware(self) -> Hardware:
        """Where and how networks are trained."""
        return self.hardware_at(self.recipe.precision)

    def hardware_at(self, precision: str) -> Hardware:
        """Where networks run, in a precision of a stage's own."""
        return Hardware(self.recipe.device, precision, self.recipe.workers)

    def samples(self, *roles: str) -> tuple[Sample, ...]:
        """Return the samples of the roles `train`, `val`, `figures`, each image once."""
        found: dict[str, Sample] = {}
        for role in roles:
            split = getattr(self.recipe.dataset, role)
            if split in self.manifest.splits or (split and role == "train"):
                found |= {sample.id: sample for sample in self.manifest.split(split)}
        return tuple(found.values())

    def file(self, folder: str, sample: Sample, suffix: str = ".png") -> Path:
        """Return where a stage keeps an image's result."""
        return output_path(self.root / folder, sample.id, suffix)


def each_image(
    name: str,
    samples: Sequence[Sample],
    output: Callable[[Sample], Path] | None,
    *,
    load: Callable[[Sample], Loaded],
    compute: Callable[[Sample, Loaded], Computed],
    finish: Callable[[Sample, Computed], None],
    workers: int,
) -> dict[str, int]:
    """Make the missing outputs: load and finish in threads, compute (the network) in between.

    An image whose `output` exists is skipped, so `finish` must write that file last; without
    `output` all are made. Returns the counts `total` and `done` (done in this call).

    Raises:
        UserError: the first image that fails, by stage and name; what is done stays.
    """
    todo = [sample for sample in samples if output is None or not output(sample).exists()]
    ahead = 2 * max(1, workers)
    with (
        ThreadPoolExecutor(max(1, workers)) as pool,
        task(name, len(samples), len(samples) - len(todo)) as progress,
    ):
        loading: deque[Future[Loaded]] = deque()
        finishing: deque[tuple[Sample, Future[None]]] = deque()
        try:
            for index, sample in enumerate(todo):
                for next_sample in todo[index + len(loading) : index + ahead]:
                    loading.append(pool.submit(load, next_sample))
                with blaming(name, sample):
                    computed = compute(sample, loading.popleft().result())
                finishing.append((sample, pool.submit(finish, sample, computed)))
                while len(finishing) > ahead or (finishing and finishing[0][1].done()):
                    _settle(name, *finishing.popleft())
                    progress.advance()
            while finishing:
                _settle(name, *finishing.popleft())
                progress.advance()
        finally:
            for unread in loading:  # after an error: what is computed is still written
                unread.cancel()
    return {"total": len(samples), "done": len(todo)}


def _settle(name: str, sample: Sample, future: Future[None]) -> None:
    with blaming(name, sample):
        future.result()


@contextmanager
def blaming(name: str, sample: Sample) -> Iterator[None]:
    """Put the stage's and the image's name before a user's error."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{name}, image {sample.id}: {error}") from error
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
            "was replaced; put the old one back, or make all anew with --redo compute_cams"
        )


def load_labelled(stage: str, sample: Sample, file: Path) -> tuple[Pixels, LabelMap]:
    """Load an image (H, W, 3) and the labels (H, W) that an earlier stage made of it.

    Raises:
        UserError: one can't be read or they do not fit each other, by stage and name.
    """
    with blaming(stage, sample):
        image, labels = load_image(sample.image), read_labels(file)
        check_size(image.shape[:2], labels.shape, file)
    return image, labels
