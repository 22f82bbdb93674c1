"""Maps at a network's grid brought to the size of their image."""

import numpy as np
import numpy.typing as npt

Size = tuple[int, int]
# Powers of two first: a small map fits several strides, and these are the usual ones.
_STRIDES = (4, 8, 16, 32, 2, *(s for s in range(3, 32) if s & (s - 1)))


def grid_stride(grid: Size, size: Size, first: int = 4) -> int | None:
    """Find the stride s in 2..32 with grid = ceil(size / s), the usual ones first, or None.

    first: is tried before all others.
    """
    for stride in (first, *_STRIDES):
        if grid == (-(-size[0] // stride), -(-size[1] // stride)):
            return stride
    return None


def enlarge(maps: npt.NDArray[np.float32], stride: int, size: Size) -> npt.NDArray[np.float32]:
    """Enlarge maps by a whole factor, bilinearly, and cut them to an image's size.

    The value at pixel x comes from x' = (x + 1/2) / stride - 1/2 on the grid, the border's value
    beyond it: `torch.nn.functional.interpolate` with align_corners=False.

    Args:
        maps: (K, h, w) float32.
        stride: the factor.
        size: (H, W), at most stride * h and stride * w.

    Returns:
        (K, H, W) float32.
    """
    first, second, share = _neighbors(maps.shape[1], stride, size[0])
    share = share[:, None]
    tall: npt.NDArray[np.float32] = maps[:, first] * (1 - share)
    tall += maps[:, second] * share
    first, second, share = _neighbors(maps.shape[2], stride, size[1])
    wide: npt.NDArray[np.float32] = tall[:, :, first] * (1 - share)
    wide += tall[:, :, second] * share
    return wide


def _neighbors(
    cells: int, stride: int, pixels: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """For each pixel the cell before, the cell behind, and the share of the latter."""
    place = np.maximum((np.arange(pixels) + 0.5) / stride - 0.5, 0)
    first = place.astype(np.int64)
    return first, np.minimum(first + 1, cells - 1), (place - first).astype(np.float32)
