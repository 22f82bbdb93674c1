"""What an export's writer gets: classes, images with a mask, and what becomes of void pixels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from affinitynet.data import Sample, read_labels
from affinitynet.data.corrections import correct_labels, correction_file
from affinitynet.data.labels import ignore_index
from affinitynet.run_folder.folder import output_path

Mask = npt.NDArray[np.bool_]

# LabelMe's name for what is not to be counted, which our own readers know too.
VOID = "__ignore__"


@dataclass(frozen=True)
class Export:
    """Masks of images, ready to be written in any format.

    masks: the folder of label PNGs, ``<id>.png``. splits: name -> images, for lists; an image may
    be in several. parts: name -> images, each image once: for formats that keep a folder a part.
    keep_void: void pixels stay void, else they become background. polygons: outlines in place of
    run lengths or pictures of masks, where the format has both. corrections: the run folder whose
    corrections are laid over the masks; None: the masks as a stage made them.
    """

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    masks: Path
    splits: Mapping[str, tuple[Sample, ...]]
    parts: Mapping[str, tuple[Sample, ...]]
    keep_void: bool = False
    polygons: bool = False
    corrections: Path | None = None

    @property
    def void(self) -> int:
        """The label of void pixels."""
        return ignore_index(len(self.classes))

    def file(self, sample: Sample) -> Path:
        """Return the file of an image's mask."""
        return output_path(self.masks, sample.id)

    def is_corrected(self, sample: Sample) -> bool:
        """Say whether someone drew over the image's mask."""
        root = self.corrections
        return root is not None and correction_file(root, sample.id).is_file()

    def labels(self, sample: Sample) -> npt.NDArray[np.integer]:
        """Return an image's labels (H, W), with void pixels as they are to be written."""
        labels: npt.NDArray[np.integer] = read_labels(self.file(sample))
        if self.is_corrected(sample):
            assert self.corrections is not None
            labels = correct_labels(labels, self.corrections, sample.id, len(self.classes))
        if not self.keep_void:
            labels[labels == self.void] = 0
        return labels

    def regions(self, labels: npt.NDArray[np.integer]) -> Iterator[tuple[str, Mask]]:
        """Yield each class that labels (H, W) show, with its pixels (H, W); void comes last."""
        for value in np.unique(labels):
            if value:
                name = VOID if value == self.void else self.classes[value - 1]
                yield name, labels == value

    @property
    def names(self) -> tuple[str, ...]:
        """What regions are called: the classes, and void where it is kept."""
        return (*self.classes, VOID) if self.keep_void else self.classes


def bounds(mask: Mask) -> tuple[int, int, int, int]:
    """Return the box of a mask (H, W) that is not empty: left, top, and right, bottom exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def run_lengths(values: Mask) -> list[int]:
    """Return how long False and True last by turns in (N,) values, starting with False (maybe 0).

    >>> run_lengths(np.array([True, True, False]))
    [0, 2, 1]
    """
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    lengths = np.diff(np.concatenate(([0], changes, [len(values)]))).tolist()
    return [0, *lengths] if values[0] else lengths
