"""Masks of photographs outside the data set, by a trained segmenter."""

from collections import Counter
from pathlib import Path

import torch

from affinitynet.data import Sample, load_image, voc_palette, write_labels
from affinitynet.data.images import IMAGE_SUFFIXES, is_image_name
from affinitynet.data.sample import output_path
from affinitynet.errors import UserError
from affinitynet.hardware import find_device
from affinitynet.models.segmenter import Segmenter
from affinitynet.stages.context import each_image


def predict_folder(model: Path, images: Path, out: Path, device: str = "cpu") -> Path:
    """Write a palette PNG into `out` for each image, over what is there; returns `out`.

    Images below `out`, where that lies inside the folder of images, are masks and left out.

    Raises:
        UserError: no model, no images, `out` is the folder of the images, or no
            such device, or an image can't be read (the masks of those before it stay).
    """
    place = find_device(device)
    segmenter = Segmenter.load(model, place)
    samples = find_images(images, out)
    with torch.inference_mode():
        each_image(
            "predict",
            samples,
            None,  # what is there may be an older network's, or another image's
            load=lambda sample: torch.from_numpy(load_image(sample.image)),
            compute=lambda sample, image: (image, segmenter.scores(image.to(place))),
            finish=lambda sample, result: write_labels(
                output_path(out, sample.id), segmenter.decide(*result), voc_palette()
            ),
            workers=2,
        )
    return out


def find_images(path: Path, out: Path) -> list[Sample]:
    """List an image, or the images below a folder but not below `out`, in order of their names.

    Raises:
        UserError: there is none, two would have the same mask name, or `out` is their folder.
    """
    base = path.parent if path.is_file() else path
    if out.resolve() == base.resolve():
        raise UserError(f"--out {out}: is the folder of the images; name another one for the masks")
    files = [path] if path.is_file() else _files_below(path, out)
    files = [file for file in files if is_image_name(file)]
    if not files:
        raise UserError(f"{path}: no image here ({', '.join(sorted(IMAGE_SUFFIXES))})")
    samples = [Sample(f.relative_to(base).with_suffix("").as_posix(), f, ()) for f in files]
    names = Counter(sample.id for sample in samples)
    if twice := next((name for name, count in names.items() if count > 1), None):
        raise UserError(f"{path}: two images are named {twice}; their masks would be one file")
    return samples


def _files_below(folder: Path, out: Path) -> list[Path]:
    masks = out.resolve()
    found = (file for file in folder.rglob("*") if file.is_file())
    return sorted(file for file in found if masks not in file.resolve().parents)
