"""The images of an export: copies that every program shows as our masks lie on them."""

import contextlib
from pathlib import Path

from PIL import Image

from affinitynet.data import Sample, load_picture
from affinitynet.data.images import orientation
from affinitynet.run_folder.folder import output_path
from affinitynet.run_folder.store import copy_to, source

_SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",)}  # the first is for other names


def place(folder: Path, sample_id: str, suffix: str) -> Path:
    """Return where the file of an image goes below `folder`, whose folders are made."""
    path = output_path(folder, sample_id, suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def copy_picture(sample: Sample, folder: Path) -> str:
    """Copy an upright JPEG or PNG byte for byte, write others as PNG; return its name in `folder`.

    Programs differ in whether they turn an image by its EXIF data, and a mask fits one way only.
    """
    image, sample_id = sample.image, sample.id
    kind = _plain_kind(sample)
    if kind:
        suffix = image.suffix
        if suffix.lower() not in _SUFFIXES[kind]:
            suffix = _SUFFIXES[kind][0]
        target = place(folder, sample_id, suffix)
        copy_to(image, target)
    else:
        target = place(folder, sample_id, ".png")
        Image.fromarray(load_picture(image, sample.reading)).save(target, format="PNG")
    return target.relative_to(folder).as_posix()


def write_jpeg(sample: Sample, target: Path) -> None:
    """Copy an upright JPEG byte for byte; write any other image as JPEG (quality 95)."""
    if _plain_kind(sample) == "JPEG":
        copy_to(sample.image, target)
    else:
        picture = Image.fromarray(load_picture(sample.image, sample.reading))
        # subsampling=0 keeps the colors' resolution, which JPEG halves otherwise.
        picture.save(target, format="JPEG", quality=95, subsampling=0)


def _plain_kind(sample: Sample) -> str:
    """Return JPEG or PNG if that is what a file is: upright, gray or RGB, and opaque; else ""."""
    # What can't be opened here is reported by load_image, in words.
    with (
        contextlib.suppress(OSError),
        Image.open(source(sample.image), formats=tuple(_SUFFIXES)) as image,
    ):
        # CMYK too is a JPEG, but readers expect gray or RGB.
        plain = image.mode in ("RGB", "L") and "transparency" not in image.info
        if plain and orientation(image) == 1:
            return image.format or ""
    return ""
