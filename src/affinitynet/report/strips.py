"""Strips: one image and what each stage made of it, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from affinitynet.data import (
    Manifest,
    Sample,
    load_picture,
    load_truth,
    read_labels,
)
from affinitynet.data.cams import load_cams
from affinitynet.data.corrections import correct_labels
from affinitynet.errors import UserError
from affinitynet.report.pictures import (
    Pixels,
    draw_labels,
    draw_maps,
    fit,
    resize_image,
    resize_labels,
    resize_maps,
)
from affinitynet.report.sampling import Scored
from affinitynet.run_folder.artifacts import ARTIFACTS, CAMS, CORRECTED, PREDICTIONS
from affinitynet.run_folder.folder import output_path
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.stages import stages_of
from affinitynet.run_folder.store import is_there

IMAGE, TRUTH = "image", "truth"
# Title of a column and what it shows: the image, its ground truth, or a folder of the run.
Column = tuple[str, str]
PREDICTION_COLUMNS: tuple[Column, ...] = (
    ("Image", IMAGE),
    (PREDICTIONS.title, PREDICTIONS.folder),
    ("Ground truth", TRUTH),
)


def training_columns(recipe: Recipe) -> tuple[Column, ...]:
    """Return the columns of a training image: what this recipe's stages make of it, in order."""
    made = {artifact for stage in stages_of(recipe) for artifact in stage.artifacts}
    shown = (a for a in ARTIFACTS if a in made and a.title and a != PREDICTIONS)
    return (("Image", IMAGE), *((a.title, a.folder) for a in shown), ("Ground truth", TRUTH))


_CORRECTED = [artifact.folder for artifact in CORRECTED]


@dataclass(frozen=True)
class Panel:
    """One cell of a strip: a picture (H, W, 3), or None where `missing` says why.

    ``labels``: the classes in it (1 is the first class).
    """

    title: str
    picture: Pixels | None
    alt: str
    missing: str = ""
    labels: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Strip:
    """One image's row of panels."""

    scored: Scored
    panels: tuple[Panel, ...]

    @property
    def labels(self) -> frozenset[int]:
        """The classes that occur in any panel (1 is the first class)."""
        return frozenset().union(*(panel.labels for panel in self.panels))


class _MissingError(Exception):
    """A panel can't be drawn; the message is what its cell says."""


def draw_strip(
    run_folder: Path,
    manifest: Manifest,
    scored: Scored,
    columns: Sequence[Column],
    *,
    side: int,
) -> Strip:
    """Draw a sample's panels, each `side` pixels on its long side (`fit`).

    What is missing or can't be read leaves a panel without a picture; it is never an error.
    """
    sample = scored.sample
    try:
        image = load_picture(sample.image, sample.reading)
    except UserError:
        image = None
    panels = []
    for title, source in columns:
        try:
            if source == IMAGE:
                picture, labels = _draw_image(image, sample, side)
            elif source == CAMS.folder:
                path = output_path(run_folder / source, sample.id, CAMS.suffix)
                picture, labels = _draw_cams(image, path, len(manifest.classes), side)
            else:
                mask = _read_mask(run_folder, manifest, sample, source)
                picture, labels = _draw_mask(image, mask, manifest.ignore_index, side)
        except _MissingError as reason:
            panels.append(Panel(title, None, f"{title} of {sample.id}: {reason}", str(reason)))
            continue
        names = ", ".join(manifest.classes[label - 1] for label in sorted(labels))
        alt = f"{title} of {sample.id}: {names or 'background only'}"
        panels.append(Panel(title, picture, alt, labels=frozenset(labels)))
    return Strip(scored, tuple(panels))


def _draw_image(image: Pixels | None, sample: Sample, side: int) -> tuple[Pixels, set[int]]:
    if image is None:
        raise _MissingError("image not readable" if is_there(sample.image) else "image not found")
    return resize_image(image, fit(image.shape[0], image.shape[1], side)), {
        tag + 1 for tag in sample.tags
    }


def _draw_cams(
    image: Pixels | None, path: Path, classes: int, side: int
) -> tuple[Pixels, set[int]]:
    if not is_there(path):
        raise _MissingError("not made")
    try:
        indices, maps = load_cams(path, classes=classes)
    except UserError:
        raise _MissingError("not readable") from None
    # Drawn at the cell's size, not the image's: a report holds many of them.
    back = _backdrop(image, maps.shape[1:], side)
    drawn = draw_maps(back, indices, resize_maps(maps, back.shape[:2]))
    return drawn, {int(index) + 1 for index in indices}


def _draw_mask(
    image: Pixels | None, mask: npt.NDArray[np.integer], ignore_index: int, side: int
) -> tuple[Pixels, set[int]]:
    back = _backdrop(image, mask.shape, side)
    drawn = draw_labels(back, resize_labels(mask, back.shape[:2]), ignore_index)
    return drawn, {int(label) for label in np.unique(mask)} - {0, ignore_index}


def _read_mask(
    run_folder: Path, manifest: Manifest, sample: Sample, source: str
) -> npt.NDArray[np.integer]:
    mask: npt.NDArray[np.integer]
    path = output_path(run_folder / source, sample.id)
    if source == TRUTH:
        if sample.mask is None:
            raise _MissingError("none given")
    elif not is_there(path):
        raise _MissingError("not made")
    try:
        mask = load_truth(manifest, sample) if source == TRUTH else read_labels(path)
        if source in _CORRECTED:
            mask = correct_labels(mask, run_folder, sample.id, len(manifest.classes))
    except UserError:
        raise _MissingError("not readable") from None
    # Files may have been changed since; a color for such a label would claim a class.
    if ((mask > len(manifest.classes)) & (mask != manifest.ignore_index)).any():
        raise _MissingError("labels of other classes")
    return mask


def _backdrop(image: Pixels | None, shape: tuple[int, ...], side: int) -> Pixels:
    """Give the image to draw over; where it is gone an even gray of the mask's `shape`."""
    if image is None:
        return np.full((*fit(shape[0], shape[1], side), 3), 96, dtype=np.uint8)
    return resize_image(image, fit(image.shape[0], image.shape[1], side))
