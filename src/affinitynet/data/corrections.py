"""Masks that people corrected, `corrections/<id>.png` in a run folder; no stage writes there.

A correction has a label for each pixel in the data set's numbers: 0 background, c + 1 class c. The
neutral label (255, or 65535 from 255 classes on) means "not corrected": there the mask that a
stage made stays. So a correction may be a few strokes or a whole mask.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from affinitynet.data.images import is_image_name, read_size, walk_files
from affinitynet.data.labels import (
    Labels,
    has_palette,
    ignore_index,
    read_labels,
    write_labels,
)
from affinitynet.data.manifest import Manifest
from affinitynet.data.sample import Sample
from affinitynet.data.truth import check_unturned, is_binary
from affinitynet.errors import UserError
from affinitynet.run_folder.artifacts import CORRECTIONS
from affinitynet.run_folder.folder import output_path


def correction_file(root: Path, sample_id: str) -> Path:
    """Return where the correction of an image of the run folder `root` lies, or would lie.

    Raises:
        UserError: a symbolic link leads out of the run folder.
    """
    return output_path(root, f"{CORRECTIONS}/{sample_id}")


def corrected_samples(root: Path, samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples that have a correction."""
    if not (root / CORRECTIONS).is_dir():
        return []
    return [sample for sample in samples if correction_file(root, sample.id).is_file()]


def read_correction(root: Path, sample_id: str, classes: int) -> Labels | None:
    """Return an image's correction (H, W), None where it has none.

    Raises:
        UserError: the file can't be read, or holds a label that is none of the `classes`.
    """
    file = correction_file(root, sample_id)
    if not file.is_file():
        return None
    return read_drawn(file, classes)


def read_drawn(file: Path, classes: int) -> Labels:
    """Read labels (H, W) that a person or another program drew, in the data set's numbers.

    Raises:
        UserError: the file can't be read, is turned by EXIF, holds a label that is none of the
            `classes`, or is black and white: that would say background and not corrected, and
            never a class.
    """
    check_unturned(file)
    labels = read_labels(file)
    check_labels(labels, classes, str(file))
    # A palette shows that its writer thinks in labels: so write strokes of background.
    if classes < 255 and is_binary(labels) and not has_palette(file):
        raise UserError(
            f"{file}: is black and white (0 and 255), which says background and not corrected; "
            "write the class's number (1 for the first class) in place of 255, or save it with a "
            "palette if it is meant so"
        )
    return labels


def check_corrections(root: Path, manifest: Manifest) -> None:
    """Read all corrections of a run folder; each must be of an image, of its size and labels.

    Raises:
        UserError: the first that is not, and what to do.
    """
    folder = root / CORRECTIONS
    if not folder.is_dir():
        return
    files = {correction_file(root, sample.id): sample for sample in manifest.samples}
    # A run folder may be received, and nothing is read through links that lead out of it.
    for file in walk_files(folder, links=False):
        if not is_image_name(file):
            continue
        sample = files.get(file)
        if sample is None:
            raise UserError(
                f"{file}: is the correction of no image; name it as the image's id with .png, or "
                "take it out"
            )
        # First its size: a small file may hold 100 million pixels.
        size, own = read_size(sample.image, sample.reading), read_size(file)
        if own != size:
            raise UserError(
                f"{file}: is {own[1]} x {own[0]}, its image {size[1]} x {size[0]}; delete it, or "
                "correct the image again"
            )
        read_drawn(file, len(manifest.classes))


def check_labels(labels: NDArray[np.integer], classes: int, where: str) -> None:
    """Refuse labels (H, W) that are neither 0 to `classes` nor neutral; `where` names them.

    Raises:
        UserError: the first such label.
    """
    neutral = ignore_index(classes)
    strange = labels[(labels > classes) & (labels != neutral)]
    if strange.size:
        raise UserError(
            f"{where}: holds the label {strange[0]}, which stands for no class: labels may be 0 to "
            f"{classes}, and {neutral} for not corrected; correct it, or delete it"
        )


def correct_labels(
    labels: NDArray[np.integer], root: Path, sample_id: str, classes: int
) -> NDArray[np.integer]:
    """Lay an image's correction over its mask (H, W); the mask itself where there is none.

    Raises:
        UserError: the correction can't be read, has another size or a label of no class.
    """
    correction = read_correction(root, sample_id, classes)
    if correction is None:
        return labels
    if correction.shape != labels.shape:
        raise UserError(
            f"{correction_file(root, sample_id)}: is {correction.shape[0]} x "
            f"{correction.shape[1]}, the mask {labels.shape[0]} x {labels.shape[1]}; delete it, or "
            "correct the image again"
        )
    # The file may hold 8 bits where the mask has 16: its type would not take the mask's labels.
    kept = correction != ignore_index(classes)
    corrected: NDArray[np.integer] = np.where(kept, correction, labels)
    return corrected.astype(np.promote_types(labels.dtype, correction.dtype), copy=False)


def write_correction(
    root: Path, manifest: Manifest, sample: Sample, labels: NDArray[np.integer]
) -> None:
    """Write an image's correction; one that corrects no pixel is deleted.

    Raises:
        UserError: a label stands for no class, or the file can't be written.
    """
    check_labels(labels, len(manifest.classes), f"the correction of {sample.id}")
    file = correction_file(root, sample.id)
    if (labels == manifest.ignore_index).all():
        file.unlink(missing_ok=True)
    else:
        write_labels(file, labels, manifest.palette)
