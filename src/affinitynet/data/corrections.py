"""Masks that people corrected, `corrections/<id>.png` in a run folder; no stage writes there.

A correction has a label for each pixel in the data set's numbers: 0 background, c + 1 class c. The
neutral label (255, or 65535 from 255 classes on) means "not corrected": there the mask that a
stage made stays. So a correction may be a few strokes or a whole mask.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from affinitynet.data.labels import Labels, ignore_index, read_labels, write_labels
from affinitynet.data.manifest import Manifest
from affinitynet.data.sample import Sample
from affinitynet.errors import UserError
from affinitynet.run_folder.artifacts import CORRECTIONS
from affinitynet.run_folder.folder import output_path


def correction_file(root: Path, sample_id: str) -> Path:
    """Return where the correction of an image of the run folder `root` lies, or would lie."""
    return output_path(root / CORRECTIONS, sample_id)


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
    labels = read_labels(file)
    check_labels(labels, classes, str(file))
    return labels


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
