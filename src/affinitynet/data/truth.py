"""Ground truth in the manifest's labels, whatever file holds it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from affinitynet.data.coco_masks import render_truth
from affinitynet.data.images import read_orientation
from affinitynet.data.labels import Labels, read_labels
from affinitynet.data.manifest import ONLY_TAG, Manifest
from affinitynet.data.sample import Sample
from affinitynet.errors import UserError


def load_truth(manifest: Manifest, sample: Sample) -> Labels:
    """Ground truth of a sample as (H, W) labels: 0 background, c + 1 class c, `ignore_index` void.

    uint8, or uint16 with 255 or more classes. A mask that is a COCO annotation file is rendered
    (the file is read once a process and kept).

    Raises:
        UserError: the sample has no ground truth, or it holds a value that stands for no class, or
            its EXIF orientation turns it and the image not; names the file and the value.
    """
    if sample.mask is None:
        raise UserError(f"the image {sample.id!r} has no ground truth; add its mask")
    if sample.mask.suffix.lower() == ".json":
        return render_truth(sample.mask, sample.image, manifest.classes)
    _check_turn(sample.mask, sample.image)
    raw = read_labels(sample.mask)
    table = manifest.truth_values
    if table is None:
        table = {v: v for v in (*range(len(manifest.classes) + 1), manifest.ignore_index)}
    size = 256 if raw.dtype == np.uint8 else 65536
    # A table of all values: one lookup a pixel, instead of a pass over the image for each label.
    known = np.zeros(size, dtype=bool)
    lookup = np.zeros(size, dtype=np.uint16)
    for value, label in table.items():
        # A table with 65535 for void may meet a mask of 8 bits, which cannot hold that value.
        if value < size:
            known[value] = True
            lookup[value] = _only_label(sample) if label == ONLY_TAG else label
    present = np.flatnonzero(np.bincount(raw.ravel(), minlength=size))
    # `present` by bincount: np.unique would sort all pixels for it.
    unknown = present[~known[present]]
    if unknown.size:
        raise UserError(
            f"{sample.mask}: holds the value {int(unknown[0])}, which stands for no class; its "
            f"values may be {_ranges(sorted(table))}"
        )
    if len(manifest.classes) < 255:
        return lookup.astype(np.uint8)[raw]
    return lookup[raw]


def check_size(sample: Sample, truth: tuple[int, ...], image: tuple[int, int]) -> None:
    """Refuse ground truth of another size than its image, both (H, W).

    Raises:
        UserError: the two sizes.
    """
    if truth != image:
        raise UserError(
            f"{sample.mask}: is {truth[1]} x {truth[0]}, but its image is {image[1]} x {image[0]} "
            "(upright, by its EXIF orientation); save one label a pixel"
        )


def is_binary(truth: NDArray[np.integer]) -> bool:
    """Whether a map holds 0 and 255 and nothing between, as masks of one class in black and white.

    With fewer than 255 classes it then says background and void: nothing of the class.
    """
    return bool(truth.dtype == np.uint8 and np.isin(truth, (0, 255)).all() and (truth == 255).any())


def check_unturned(map_: Path) -> None:
    """Refuse a map (a mask, regions, CAMs) that EXIF turns: programs read it as it is stored.

    Raises:
        UserError: the file, and what to do.
    """
    if read_orientation(map_) != 1:
        raise UserError(f"{map_}: its EXIF orientation turns it; save it without EXIF")


def _only_label(sample: Sample) -> int:
    if len(sample.tags) != 1:
        raise UserError(
            f"{sample.mask}: shows one class, but its image has {len(sample.tags)} tags; write the "
            "classes' numbers into the mask"
        )
    return sample.tags[0] + 1


def _check_turn(mask: Path, image: Path) -> None:
    turn = read_orientation(mask)
    # Masks are read as they are stored, images upright: a turned mask fits only if both are turned.
    if turn != 1 and turn != read_orientation(image):
        raise UserError(
            f"{mask}: its EXIF orientation turns it, but its image {image.name} is not turned so; "
            "save the mask without EXIF"
        )


def _ranges(values: list[int]) -> str:
    """Sorted integers as text, runs shortened: 0-6, 255."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
