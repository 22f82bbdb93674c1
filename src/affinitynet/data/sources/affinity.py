"""Affinities of pairs of pixels that another program made, as `.npz` with `affinity` (P, h, w)."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from affinitynet.data.grids import radius_of
from affinitynet.data.npz import open_npz
from affinitynet.data.sources.enlarge import Size, grid_stride

_ADVICE = "write it again, as np.savez(path, affinity=...)"
_ROUNDING = 1e-6  # by which a cosine may pass 1


class SourceAffinity(NamedTuple):
    """One image's affinities from a file.

    affinity: (P, h, w) float32 in [0, 1], displacements ordered as in `ops.neighbor_offsets`.
    radius: whose half disc has P displacements.
    stride: the grid's, h = ceil(H / stride) and w = ceil(W / stride).
    """

    affinity: npt.NDArray[np.float32]
    radius: int
    stride: int


def read_affinity_source(path: Path, size: Size, stride: int = 8) -> SourceAffinity:
    """Read an image's affinities from a file of another program.

    Args:
        path: `.npz` with `affinity` (P, h, w), of floating point numbers in [0, 1].
        size: (H, W) of the image.
        stride: the grid's that is expected; another whole one from 2 to 32 is taken where only
            that fits.

    Raises:
        UserError: the file is damaged, P is no half disc's, the grid is none of the image's, or a
            value is not in [0, 1].
    """
    with open_npz(path, _ADVICE) as archive:
        dtype, shape, _ = archive.header("affinity")
        if dtype.kind != "f" or len(shape) != 3:
            raise archive.error("affinity", f"is {dtype} of shape {shape}, not (P, h, w) of floats")
        radius = radius_of(shape[0])
        if radius is None:
            raise archive.error(
                "affinity", f"has P = {shape[0]}, which no half disc has (radius 5 has 34)"
            )
        found = grid_stride((shape[1], shape[2]), size, stride)
        if found is None:
            raise archive.error(
                "affinity",
                f"is {shape[1]} x {shape[2]}, no grid of an image of {size[0]} x {size[1]}",
            )
        values = archive.array("affinity")
        if not ((values >= 0) & (values <= 1 + _ROUNDING)).all():  # which NaN is not either
            raise archive.error("affinity", "holds values outside of [0, 1]")
    return SourceAffinity(np.minimum(values.astype(np.float32), 1), radius, found)
