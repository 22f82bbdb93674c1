"""CAM files of a run, `cams/<id>.npz`: one byte per pixel, finer where the map is near zero.

    classes (K,) int64, cams (K, H, W) uint8 codes q, scale (K,) float32
    value = scale * (q / 255)^2, scale = the map's largest value

The background's score is (1 - max)^alpha with alphas up to 300, so what counts is how exact a map
is near zero. Codes in equal steps, q / 255, move that score by up to 0.45 at alpha 300; the squares
move it by 0.03 and cost 51 kB an image instead of 45 (VOC; 431 kB as float16).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from affinitynet.data.npz import Npz, open_npz, write_npz

_ADVICE = "make all CAMs again with --redo compute_cams"
_LEVEL = 6  # a quarter smaller than level 1, for 20 ms an image
_SQUARES = (np.arange(256) / 255) ** 2


def save_cams(path: Path, classes: Sequence[int], cams: npt.NDArray[np.floating[Any]]) -> None:
    """Write one image's CAMs, atomically; the same maps give the same bytes.

    Args:
        path: the file, `.npz`.
        classes: K sorted class indices.
        cams: (K, H, W), finite and at least 0; values above one have room.

    Raises:
        ValueError: other shapes or values.
        UserError: the file can't be written.
    """
    maps = np.asarray(cams, np.float32)
    if maps.ndim != 3 or len(maps) != len(classes):
        raise ValueError(f"cams are (K, H, W) with K = {len(classes)}, not {maps.shape}")
    if not np.isfinite(maps).all() or (maps < 0).any():
        raise ValueError("cams must be finite and at least 0")
    # A scale for each map: a weak one keeps all of its 256 values.
    scale = maps.max((1, 2), initial=0)
    # A map of zeros has no scale to divide by.
    shares = maps / np.where(scale > 0, scale, 1)[:, None, None]
    # rint, as the cast alone would cut off and make every map darker.
    codes = np.rint(np.sqrt(shares) * 255).astype(np.uint8)
    write_npz(path, {"classes": np.array(classes, np.int64), "cams": codes, "scale": scale}, _LEVEL)


def load_cams(
    path: Path, *, classes: int | None = None, size: tuple[int, int] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Read what `save_cams` wrote: classes (K,) and cams (K, H, W) as float32.

    Args:
        path: the file.
        classes: how many classes the data set has, to check the indices against.
        size: (H, W) of the image, to check the maps against.

    Raises:
        UserError: the file is not there, damaged, or not such a file (version 0.1 wrote another).
    """
    with open_npz(path, _ADVICE) as archive:
        indices = read_classes(archive, classes)
        scale = archive.array("scale", np.float32, (len(indices),))
        if not np.isfinite(scale).all() or (scale < 0).any():
            raise archive.error("scale", "holds values that are not finite or below 0")
        codes = archive.array("cams", np.uint8, (len(indices), *(size or (None, None))))
    # The 256 values that a map can have, looked up: no arithmetic for each pixel.
    tables = (_SQUARES * scale[:, None].astype(np.float64)).astype(np.float32)
    cams = np.empty(codes.shape, np.float32)
    for table, code, cam in zip(tables, codes, cams, strict=True):
        np.take(table, code, out=cam)
    return indices, cams


def load_peaks(
    path: Path, *, classes: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Read classes (K,) and the largest value of each map (K,), without the maps.

    Raises:
        UserError: as `load_cams`.
    """
    with open_npz(path, _ADVICE) as archive:
        indices = read_classes(archive, classes)
        return indices, archive.array("scale", np.float32, (len(indices),))


def read_classes(archive: Npz, classes: int | None) -> npt.NDArray[np.int64]:
    """Read `classes` (K,): sorted class indices, each once, below `classes`; UserError if not."""
    indices = archive.array("classes", np.int64, (None,))
    if (np.diff(indices) <= 0).any():
        raise archive.error("classes", "is not sorted, or holds a class twice")
    wrong = indices[(indices < 0) | (indices >= (np.inf if classes is None else classes))]
    if wrong.size:
        raise archive.error("classes", f"holds {wrong[0]}, which is none of the classes")
    return indices
