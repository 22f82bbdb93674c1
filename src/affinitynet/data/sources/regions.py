"""Regions of no class in particular that another program made, as label maps.

PNG        8 or 16 bits of gray: a number for each region, 0 for none
.npy       an array (H, W) of whole numbers
.npz       the same as its only array
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from affinitynet.data.images import open_image
from affinitynet.data.npy import read_header, read_values
from affinitynet.data.npz import open_npz
from affinitynet.data.sources.enlarge import Size
from affinitynet.data.truth import check_unturned
from affinitynet.errors import UserError

_ADVICE = "write it again, a whole number for each region and 0 for none"


def read_regions(path: Path, size: Size) -> npt.NDArray[np.int64]:
    """Read an image's regions: (H, W) int64, 0 where there is none.

    Args:
        path: a `.png`, `.npy` or `.npz` file.
        size: (H, W) of the image.

    Raises:
        UserError: the file is damaged, has another size, or holds no whole numbers from 0 on.
    """
    values = _from_png(path) if path.suffix == ".png" else _from_array(path, size)
    _check(path, values.dtype, values.shape, size)
    if values.size and values.min() < 0:
        raise UserError(f"{path}: holds the number {values.min()}; {_ADVICE}")
    return values.astype(np.int64)


def _check(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], size: Size) -> None:
    if dtype.kind not in "iu" or len(shape) != 2:
        raise UserError(
            f"{path}: is {dtype} of shape {shape}, not (H, W) of whole numbers; {_ADVICE}"
        )
    if shape != size:
        raise UserError(
            f"{path}: is {shape[0]} x {shape[1]}, the image {size[0]} x {size[1]}; save one number "
            "a pixel of the image"
        )


def _from_array(path: Path, size: Size) -> npt.NDArray[Any]:
    # The header is checked before the values take memory: a small file can claim a large array.
    if path.suffix == ".npz":
        with open_npz(path, _ADVICE) as archive:
            if len(archive.names) != 1:
                raise UserError(f"{path}: holds {len(archive.names)} arrays, not one; {_ADVICE}")
            header = archive.header(archive.names[0])
            _check(path, header.dtype, header.shape, size)
            return archive.array(archive.names[0])
    try:
        with path.open("rb") as stream:
            header = read_header(stream)
            _check(path, header.dtype, header.shape, size)
            return read_values(stream, header)
    except (OSError, ValueError, EOFError, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: can't be read ({error}); {_ADVICE}") from error


def _from_png(path: Path) -> npt.NDArray[Any]:
    check_unturned(path)
    with open_image(path) as image:
        if image.format != "PNG":
            raise UserError(f"{path}: is a {image.format}, which may blur numbers; save it as PNG")
        if image.mode not in ("L", "P", "I", "I;16"):
            raise UserError(f"{path}: is a {image.mode} image, not one of gray; {_ADVICE}")
        return np.array(image)
