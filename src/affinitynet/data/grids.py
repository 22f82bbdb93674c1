"""Files at the walk's grid: `scores/<id>.npz` and `affinities/<id>.npz`, both float16.

With them the walk can be decided again (alpha, beta, steps, thresholds) without a network.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from affinitynet.data.cams import read_classes
from affinitynet.data.npz import open_npz, write_npz

_ADVICE = "make them again with --redo propagate"
# Deflated scores are a third smaller for a millisecond. Affinities would be a quarter smaller, but
# take 25 times as long to write and twice as long to read: their last bits are noise.
_SCORES_LEVEL = 1
_AFFINITY_LEVEL = 0
_LARGEST_RADIUS = 64


def half_disc(radius: int) -> int:
    """Count the displacements of `ops.neighbor_offsets`: half of 0 < dy² + dx² < radius²."""
    steps = np.arange(1 - radius, radius)
    inside = steps[:, None] ** 2 + steps**2 < radius**2
    return (int(inside.sum()) - 1) // 2


def radius_of(pairs: int) -> int | None:
    """Find the whole radius from 2 whose half disc has that many displacements, or None."""
    # The file holds no radius: the number of maps tells it, as it grows with every radius.
    counts = {half_disc(radius): radius for radius in range(2, _LARGEST_RADIUS + 1)}
    return counts.get(pairs)


def save_scores(path: Path, classes: Sequence[int], scores: npt.NDArray[np.floating[Any]]) -> None:
    """Write one image's walked maps, atomically; the same maps give the same bytes.

    Args:
        path: the file, `.npz`.
        classes: K sorted class indices.
        scores: (K + 1, h, w), background first, finite and at least 0.

    Raises:
        ValueError: other shapes or values.
        UserError: the file can't be written.
    """
    if scores.ndim != 3 or len(scores) != len(classes) + 1:
        raise ValueError(f"scores are (K + 1, h, w) with K = {len(classes)}, not {scores.shape}")
    # Too large a score becomes infinite in float16, which the check below reports in words.
    with np.errstate(over="ignore"):
        rounded = np.asarray(scores, np.float16)
    if not np.isfinite(rounded).all() or (rounded < 0).any():
        raise ValueError("scores must be at least 0 and at most float16's 65504")
    write_npz(path, {"classes": np.array(classes, np.int64), "scores": rounded}, _SCORES_LEVEL)


def load_scores(
    path: Path, *, classes: int | None = None, size: tuple[int, int] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Read what `save_scores` wrote: classes (K,) and scores (K + 1, h, w) as float32.

    Args:
        path: the file.
        classes: how many classes the data set has, to check the indices against.
        size: (h, w) of the grid, to check the maps against.

    Raises:
        UserError: the file is not there, damaged, or not such a file.
    """
    with open_npz(path, _ADVICE) as archive:
        indices = read_classes(archive, classes)
        shape = (len(indices) + 1, *(size or (None, None)))
        scores = archive.array("scores", np.float16, shape)
        if not np.isfinite(scores).all() or (scores < 0).any():
            raise archive.error("scores", "holds values that are not finite or below 0")
    # float16 is for the disk: on a CPU it is slow and too coarse to calculate with.
    return indices, scores.astype(np.float32)


def save_affinity(path: Path, affinity: npt.NDArray[np.floating[Any]]) -> None:
    """Write one image's affinities (P, h, w) in [0, 1], atomically; equal maps, equal bytes.

    Raises:
        ValueError: other values, or P is no half disc's number of displacements.
        UserError: the file can't be written.
    """
    if affinity.ndim != 3 or radius_of(len(affinity)) is None:
        raise ValueError(f"affinity is (P, h, w), P that of a half disc, not {affinity.shape}")
    if not ((affinity >= 0) & (affinity <= 1)).all():  # which NaN is not either
        raise ValueError("affinities must lie in [0, 1]")
    write_npz(path, {"affinity": affinity.astype(np.float16)}, _AFFINITY_LEVEL)


def load_affinity(
    path: Path, *, size: tuple[int, int] | None = None
) -> tuple[npt.NDArray[np.float32], int]:
    """Read what `save_affinity` wrote: (P, h, w) as float32, and the radius that P stands for.

    Args:
        path: the file.
        size: (h, w) of the grid, to check the maps against.

    Raises:
        UserError: the file is not there, damaged, or not such a file.
    """
    with open_npz(path, _ADVICE) as archive:
        affinity = archive.array("affinity", np.float16, (None, *(size or (None, None))))
        radius = radius_of(len(affinity))
        if radius is None:
            raise archive.error("affinity", f"has {len(affinity)} maps, as no whole radius has")
        if not ((affinity >= 0) & (affinity <= 1)).all():
            raise archive.error("affinity", "holds values outside of [0, 1]")
    return affinity.astype(np.float32), radius
