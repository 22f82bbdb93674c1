"""Masks of photographs outside the data set, by a trained segmenter."""

from pathlib import Path

import torch

from affinitynet.data import Sample, load_image, voc_palette, write_labels
from affinitynet.data.images import IMAGE_SUFFIXES
from affinitynet.data.sample import output_path
from affinitynet.errors import UserError
from affinitynet.models.segmenter import Segmenter
from affinitynet.stages.context import each_image


def predict_folder(model: Path, images: Path, out: Path, device: str = "cpu") -> Path:
    """Write a palette PNG into `out` for each image that has none there; returns `out`.

    Raises:
        UserError: no model, no images, or an image that can't be read (the others' masks stay).
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is usable here")
    segmenter = Segmenter.load(model, device)
    samples = find_images(images)
    with torch.inference_mode():
        each_image(
            "predict",
            samples,
            lambda sample: output_path(out, sample.id),
            load=lambda sample: torch.from_numpy(load_image(sample.image)),
            compute=lambda sample, image: (image, segmenter.scores(image.to(device))),
            finish=lambda sample, result: write_labels(
                output_path(out, sample.id), segmenter.decide(*result), voc_palette()
            ),
            workers=2,
        )
    return out


def find_images(path: Path) -> list[Sample]:
    """List an image, or the images below a folder, in the order of their names.

    Raises:
        UserError: there is none, or two would have the same mask name.
    """
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    files = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise UserError(f"{path}: no image here ({', '.join(sorted(IMAGE_SUFFIXES))})")
    base = path.parent if path.is_file() else path
    samples = [Sample(f.relative_to(base).with_suffix("").as_posix(), f, ()) for f in files]
    names = [sample.id for sample in samples]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path}: two images are named {twice}; their masks would be one file")
    return samples
