"""Masks of photographs outside the data set, by a trained segmenter."""

from collections.abc import Sequence
from pathlib import Path

import torch

from affinitynet.data import Sample, load_image, voc_palette, write_labels
from affinitynet.hardware import find_device
from affinitynet.models.segmenter import Segmenter
from affinitynet.run_folder.folder import output_path
from affinitynet.stages.images import for_each


def predict(model: Path, samples: Sequence[Sample], out: Path, device: str) -> None:
    """Write a palette PNG into `out` for each image, over what is there.

    Raises:
        UserError: no model, no such device, or an image can't be read (the masks of those before
            it stay).
    """
    place = find_device(device)
    segmenter = Segmenter.load(model, place)
    with torch.inference_mode():
        for_each(
            "predict",
            samples,
            load=lambda sample: torch.from_numpy(load_image(sample.image)),
            compute=lambda sample, image: (image, segmenter.scores(image.to(place))),
            finish=lambda sample, result: write_labels(
                output_path(out, sample.id), segmenter.decide(*result), voc_palette()
            ),
            workers=2,
        )
