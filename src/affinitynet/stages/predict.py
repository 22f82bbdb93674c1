"""Masks of photographs outside the data set, by a trained segmenter."""

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from affinitynet.channels import three_channels
from affinitynet.data import Sample, load_image, voc_palette, write_labels
from affinitynet.data.labels import ignore_index
from affinitynet.errors import NotFiniteError, UserError
from affinitynet.hardware import Hardware, inference
from affinitynet.models.segmenter import Segmenter
from affinitynet.report.pictures import draw_labels
from affinitynet.run_folder.folder import atomic_write, output_path
from affinitynet.run_folder.settings_base import InputSettings
from affinitynet.stages.images import for_each

MASK, OVERLAY, SCORES = ".png", ".overlay.jpg", ".scores.npz"  # what an image's files end with


class Predicted(NamedTuple):
    """The samples that have a mask now, why others have none, the labels' classes, the reading."""

    samples: tuple[Sample, ...]
    faults: list[str]
    classes: tuple[str, ...]
    reading: InputSettings | None = None


def predict(
    model: Path,
    samples: Sequence[Sample],
    out: Path,
    device: str,
    *,
    overlay: bool = False,
    scores: bool = False,
) -> Predicted:
    """Write a palette PNG into `out` for each image; go on after a bad image.

    What an earlier call made of an image goes first, so that all files beside its mask are of it,
    and a bad image has none.

    overlay: also ``<id>.overlay.jpg``. scores: also ``<id>.scores.npz``.

    Raises:
        UserError: no model, or no such device.
    """
    segmenter = Segmenter.load(model)
    hardware = Hardware(device, fold=segmenter.settings.norm == "trained")
    faults: dict[str, str] = {}
    inputs = {sample.image.resolve() for sample in samples}

    def load(sample: Sample) -> Tensor | None:
        _remove_earlier(out, sample, inputs)
        try:
            return torch.from_numpy(load_image(sample.image, segmenter.reading))
        except UserError as error:
            faults[sample.id] = str(error)
            return None

    def compute(sample: Sample, image: Tensor | None) -> tuple[Tensor, Tensor] | None:
        if image is None:
            return None
        try:
            return image, segmenter.scores(image.to(place))
        except NotFiniteError as error:
            faults[sample.id] = f"{sample.image}: {error}"
            return None

    def finish(sample: Sample, result: tuple[Tensor, Tensor] | None) -> None:
        if result is None:
            return
        try:
            labels = segmenter.decide(*result)
        except NotFiniteError as error:
            faults[sample.id] = f"{sample.image}: {error}"
            return
        if overlay:
            _write_overlay(output_path(out, sample.id, OVERLAY), result[0], labels)
        if scores:
            _write_scores(output_path(out, sample.id, SCORES), result[1], segmenter.classes)
        write_labels(output_path(out, sample.id, MASK), labels, voc_palette())

    with inference(segmenter.net, hardware) as place:
        for_each("predict", samples, load=load, compute=compute, finish=finish, workers=2)
    done = tuple(sample for sample in samples if sample.id not in faults)
    in_order = [faults[sample.id] for sample in samples if sample.id in faults]
    return Predicted(done, in_order, segmenter.classes, segmenter.reading)


def _remove_earlier(out: Path, sample: Sample, inputs: Set[Path]) -> None:
    """Delete the files that an earlier call wrote of an image, but none that is an image to read.

    Raises:
        UserError: one can't be deleted, or a symbolic link leads out of `out`.
    """
    for suffix in (MASK, OVERLAY, SCORES):
        file = output_path(out, sample.id, suffix)
        # An image that is given by a symbolic link may lie here. Of a link here the link goes.
        if file.is_dir() or file.parent.resolve() / file.name in inputs:
            continue
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{file}: can't be deleted ({error.strerror or error})") from error


def _write_overlay(file: Path, image: Tensor, labels: np.ndarray[Any, Any]) -> None:
    picture = draw_labels(
        three_channels(image.cpu().numpy()), labels, ignore_index(int(labels.max()))
    )
    with atomic_write(file) as temporary:
        Image.fromarray(picture).save(temporary, format="JPEG", quality=90)


def _write_scores(file: Path, scores: Tensor, classes: Sequence[str]) -> None:
    # Half precision: a third of a percent of a probability matters to nobody, and the file halves.
    values = scores.cpu().numpy().astype(np.float16)
    with atomic_write(file) as temporary:
        np.savez_compressed(temporary, probabilities=values, classes=np.array(classes))
