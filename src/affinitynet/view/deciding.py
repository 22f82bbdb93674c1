"""The walk decided again for one image, with other settings: the steps of `propagate`, from files.

With the recipe's own settings the answer is the file in `pseudo/`, to the pixel.
"""

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from affinitynet.data.labels import to_labels
from affinitynet.data.verdicts import without_failed
from affinitynet.errors import UserError
from affinitynet.run_folder.artifacts import AFFINITIES, CAMS, CLASSIFIER, CONFIDENT, PSEUDO
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import PLAN, RECORD
from affinitynet.run_folder.settings import WalkSettings
from affinitynet.view.applying import with_changes
from affinitynet.view.viewed import Viewed

if TYPE_CHECKING:
    from torch import Tensor

    from affinitynet.tuning.decide import Case

Stamps = tuple[tuple[int, int] | None, ...]
_KEPT = 4  # images whose maps and affinities are kept in memory
# The stages whose files decide: the maps, the affinities, and which classes fail.
_READ = tuple(a.folder for a in (CLASSIFIER, CAMS, CONFIDENT, AFFINITIES, PSEUDO))
# Of the CRF while a slider is dragged: on every second pixel, and of a large image on fewer.
DRAFT_ITERATIONS, DRAFT_PIXELS = 3, 100_000


class Spread(NamedTuple):
    """What a pixel's cell is tied to, on the grid (h, w) in [0, 1].

    near: the affinities of its neighbors, to the power beta; reach: what the walk carries from it,
    as a share of the largest value. stride: pixels of a cell's side.
    """

    near: NDArray[np.float32]
    reach: NDArray[np.float32]
    stride: int


@dataclass
class Ready:
    """An image with all that the walk needs, and the scores of its last walk by their settings."""

    case: "Case"
    scores: dict[Any, "Tensor"] = field(default_factory=dict)


class Kept:
    """What is kept in memory of the stages before the walk's decision, while they stay the same."""

    def __init__(self, viewed: Viewed) -> None:
        """Have read nothing yet."""
        self._viewed = viewed
        self._ready: OrderedDict[int, Ready] = OrderedDict()

    @cached_property
    def background(self) -> str:
        """The kind of background that the maps decide."""
        return self._viewed.walk.background

    @cached_property
    def failed(self) -> tuple[int, ...]:
        """The classes whose maps are no use."""
        from affinitynet.stages.context import Context

        viewed = self._viewed
        return Context(viewed.recipe, viewed.manifest, viewed.root).failed

    def ready(self, index: int) -> Ready:
        """Return an image with all that the walk needs.

        Raises:
            UserError: its affinities were not kept, or a file is damaged.
        """
        if index in self._ready:
            self._ready.move_to_end(index)
            return self._ready[index]
        from affinitynet.tuning.decide import load_case

        viewed, sample = self._viewed, self._viewed.sample(index)
        if not viewed.has_affinities(sample):
            raise UserError(
                f"{sample.id}: its affinities were not kept; set walk.keep = [affinities, scores] "
                "and run with --redo propagate"
            )
        ready = Ready(load_case(viewed.recipe, viewed.manifest, sample))
        self._ready[index] = ready
        while len(self._ready) > _KEPT:
            self._ready.popitem(last=False)
        return ready


class Decider:
    """Decides the walk again for the images of a run; keeps those of the last ones in memory."""

    def __init__(self, viewed: Viewed) -> None:
        """Decide for the images of this run."""
        self.viewed = viewed
        self._of: tuple[Recipe, Stamps] | None = None  # what `_last` was read of
        self._last = Kept(viewed)
        # One call at a time: the kernels keep their memory, and two threads that import torch for
        # the first time get in each other's way.
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Load torch and the compiled kernels, so that the first click is as fast as the others."""
        for index, sample in enumerate(self.viewed.samples):
            if self.viewed.has_affinities(sample):
                settings = self.viewed.recipe.walk
                self.decide(index, settings, draft=True)
                self.spread(index, 0, 0, settings)
                return

    def settings(self, changes: dict[str, Any]) -> WalkSettings:
        """Return the recipe's settings of the walk with changes, which the page sends.

        Raises:
            UserError: an unknown setting, or a value that does not fit.
        """
        return with_changes(self.viewed.recipe.walk, changes)

    def decide(self, index: int, settings: WalkSettings, draft: bool) -> NDArray[np.integer]:
        """Return the labels (H, W) that the walk makes of an image with these settings.

        draft: quickly, with few iterations of the CRF on some of the pixels.
        """
        with self._lock:
            kept = self._kept()
            if settings.background == "auto":
                settings = settings.model_copy(update={"background": kept.background})
            ready = kept.ready(index)
            local = _label(ready.case, settings, draft, _walk(ready, settings))
            failed = kept.failed
        manifest, sample = self.viewed.manifest, self.viewed.samples[index]
        labels = to_labels(local, np.array(ready.case.classes), manifest.ignore_index)
        return without_failed(labels, failed, manifest.ignore_index, sample.tags)

    def spread(self, index: int, x: int, y: int, settings: WalkSettings) -> Spread:
        """Return what the walk ties to the cell of a pixel.

        Raises:
            UserError: the pixel lies outside of the image, or there are no affinities.
        """
        with self._lock:
            import torch

            from affinitynet.ops.affinity import displacements
            from affinitynet.ops.random_walk import random_walk

            case = self._kept().ready(index).case
            height, width = case.image.shape[:2]
            if not (0 <= x < width and 0 <= y < height):
                raise UserError(f"the pixel {x}, {y} lies outside of {width} x {height}")
            affinity = case.affinity
            row, column = y // case.stride, x // case.stride
            h, w = affinity.shape[1:]
            near = np.zeros((h, w), np.float32)
            near[row, column] = 1
            for pair, (dy, dx) in enumerate(displacements(case.radius)):
                # Each pair is kept once, at the first of its two cells.
                for sign in (1, -1):
                    other = (row + sign * dy, column + sign * dx)
                    if 0 <= other[0] < h and 0 <= other[1] < w:
                        first = (row, column) if sign == 1 else other
                        near[other] = float(affinity[pair, first[0], first[1]]) ** settings.beta
            start = torch.zeros(1, 1, h, w)
            start[0, 0, row, column] = 1
            walked = random_walk(
                start,
                affinity[None],
                beta=settings.beta,
                steps=settings.steps,
                radius=case.radius,
            )[0, 0].clamp(min=0)
        reach = (walked / walked.max().clamp(min=1e-12)).numpy()
        return Spread(near, reach, case.stride)

    def _kept(self) -> Kept:
        """Return what is kept, nothing yet where a stage was made again or the recipe changed."""
        # Looked at before anything is read: what changes after that is seen the next time.
        now = self.viewed.recipe, _stamps(self.viewed.root)
        if now != self._of:
            self._of, self._last = now, Kept(self.viewed)
        return self._last


def _stamps(root: Path) -> Stamps:
    """Return the time and size of the plan and the record of each stage that is read here.

    A stage that is made again loses its record, and writes both anew. Their content is not read:
    a slider that is dragged asks often.
    """
    found: list[tuple[int, int] | None] = []
    for folder in _READ:
        for name in (PLAN, RECORD):
            try:
                stat = (root / folder / name).stat()
                found.append((stat.st_mtime_ns, stat.st_size))
            except OSError:
                found.append(None)
    return tuple(found)


def _walk(ready: Ready, settings: WalkSettings) -> "Tensor":
    """Return the walk's scores (K + 1, H, W) at image size, those of the last settings at once."""
    import torch

    from affinitynet.ops.propagation import enlarge_scores, label_scores
    from affinitynet.walking import guarded, score_key, seeds_of, walked

    case = ready.case
    key = (*score_key(settings), settings.guard)
    if key in ready.scores:
        return ready.scores[key]
    scores = walked(case.cams, case.affinity, settings, radius=case.radius, stride=case.stride)
    size = (case.image.shape[0], case.image.shape[1])
    # float16 between, as the stage keeps them: the masks must be the stage's own.
    spread = enlarge_scores(scores.to(torch.float16).float(), case.stride, size)
    if settings.guard:
        seeds = seeds_of(case.cams, settings)
        spread = guarded(spread, seeds, label_scores(seeds), label_scores(spread))
    ready.scores = {key: spread}
    return spread


def _label(
    case: "Case", settings: WalkSettings, draft: bool, scores: "Tensor"
) -> NDArray[np.uint8]:
    from affinitynet.ops.propagation import label_scores, refine_scores
    from affinitynet.walking import refined

    if not settings.refine:
        return label_scores(scores).numpy().astype(np.uint8)
    if not draft:
        return label_scores(refined(case.image, scores, settings)).numpy().astype(np.uint8)
    height, width = case.image.shape[:2]
    step = max(2, math.ceil(math.sqrt(height * width / DRAFT_PIXELS)))
    crf = settings.crf.model_dump()
    # On every n-th pixel widths are an n-th, and the work an n²-th.
    crf["iterations"] = min(crf["iterations"], DRAFT_ITERATIONS)
    for name in ("gaussian_sxy", "bilateral_sxy"):
        crf[name] /= step
    coarse = refine_scores(case.image[::step, ::step], scores[:, ::step, ::step], **crf)
    labels = label_scores(coarse).numpy().astype(np.uint8)
    return labels.repeat(step, 0).repeat(step, 1)[:height, :width]
