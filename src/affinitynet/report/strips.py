"""Strips: one image and what each stage made of it, side by side."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from affinitynet.data import (
    Manifest,
    Sample,
    load_image,
    load_truth,
    output_path,
    read_labels,
)
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

# Title of a column and what it shows, a folder of the run in most cases, in the method's order.
TRAINING_COLUMNS = (
    ("Image", "image"),
    ("CAM", "cams"),
    ("Confident", "confident"),
    ("Random walk", "walk"),
    ("Pseudo mask", "pseudo"),
    ("Ground truth", "truth"),
)
PREDICTION_COLUMNS = (("Image", "image"), ("Prediction", "predictions"), ("Ground truth", "truth"))


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
    columns: Sequence[tuple[str, str]],
    *,
    side: int,
) -> Strip:
    """Draw a sample's panels, each `side` pixels on its long side (`fit`).

    What is missing or can't be read leaves a panel without a picture; it is never an error.
    """
    sample = scored.sample
    try:
        image = load_image(sample.image)
    except UserError:
        image = None
    panels = []
    for title, source in columns:
        try:
            if source == "image":
                picture, labels = _draw_image(image, sample, side)
            elif source == "cams":
                path = output_path(run_folder / source, sample.id, ".npz")
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
        raise _MissingError("image not readable" if sample.image.is_file() else "image not found")
    return resize_image(image, fit(image.shape[0], image.shape[1], side)), {
        tag + 1 for tag in sample.tags
    }


def _draw_cams(
    image: Pixels | None, path: Path, classes: int, side: int
) -> tuple[Pixels, set[int]]:
    if not path.is_file():
        raise _MissingError("not made")
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            indices, maps = file["classes"], file["cams"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise _MissingError("not readable") from None
    if maps.ndim != 3 or len(maps) != len(indices) or not np.isin(indices, range(classes)).all():
        raise _MissingError("not readable")
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
    path = output_path(run_folder / source, sample.id)
    if source == "truth":
        if sample.mask is None:
            raise _MissingError("none given")
    elif not path.is_file():
        raise _MissingError("not made")
    try:
        mask = load_truth(manifest, sample) if source == "truth" else read_labels(path)
    except UserError:
        raise _MissingError("not readable") from None
    if ((mask > len(manifest.classes)) & (mask != manifest.ignore_index)).any():
        raise _MissingError("labels of other classes")
    return mask


def _backdrop(image: Pixels | None, shape: tuple[int, ...], side: int) -> Pixels:
    """Give the image to draw over; where it is gone an even grey of the mask's `shape`."""
    if image is None:
        return np.full((*fit(shape[0], shape[1], side), 3), 96, dtype=np.uint8)
    return resize_image(image, fit(image.shape[0], image.shape[1], side))
