"""A network on a large image in overlapping tiles, in memory that depends on the tile."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from affinitynet.ops._arguments import check_count

# What a tile sees around what is kept of it: the fields of view of ResNet-38 (278 pixels to each
# side), ResNet-50 and MobileNetV2 (less), and the pairs of an affinity's cell (40 pixels).
SURROUNDINGS = 320
STEP = 32  # tiles begin at multiples of a network's largest stride, or their cells would lie apart
_LARGEST = 10**6


class Tile(NamedTuple):
    """Of one axis: the pixels that are seen, and those that are kept."""

    seen: slice
    kept: slice


def in_tiles(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    tile: int,
    surroundings: int = SURROUNDINGS,
) -> Tensor:
    """Apply a network to images tile by tile, each with its surroundings, and join its maps.

    A cell of the result is the whole image's where the network's field of view lies within the
    tile: cells look farther, but what lies far off weighs little. What a network averages over the
    whole image (squeeze and excitation, group normalization, the pooling of DeepLab's ASPP) it
    averages over a tile. Where it resizes maps by a ratio of sizes that its strides don't divide,
    the whole image's cells are shifted by less than one, and the tiles' are not.

    Args:
        network: (B, C, H, W) -> (B, D, h, w), h = ceil(H / stride) and w = ceil(W / stride), of a
            stride that divides 32; called with parts of the images.
        images: (B, C, H, W) of any type.
        tile: side in pixels of what is kept of a call, brought to a multiple of 32; 0, or one that
            holds the images, calls once for the whole.
        surroundings: pixels that a tile sees on each side beyond, brought to a multiple of 32.

    Returns:
        (B, D, h, w).

    Raises:
        ValueError: a tile or surroundings that are no whole numbers from 0, or a network of another
            stride.
    """
    check_count(tile, "tile", _LARGEST)
    check_count(surroundings, "surroundings", _LARGEST)
    height, width = images.shape[-2:]
    side = _up(tile)
    if not 0 < side < max(height, width):
        return network(images)
    margin = _up(surroundings)
    result = None
    for rows in cut(height, side, margin):
        for columns in cut(width, side, margin):
            part = network(images[..., rows.seen, columns.seen])
            if result is None:
                stride = _stride(rows.seen, part.shape[-2])
                size = (-(-height // stride), -(-width // stride))
                result = part.new_empty(*part.shape[:-2], *size)
            (y, inside_y), (x, inside_x) = _cells(rows, stride), _cells(columns, stride)
            result[..., y, x] = part[..., inside_y, inside_x]
    assert result is not None  # there is a tile where there is an image
    return result


def cut(length: int, side: int, margin: int) -> Iterator[Tile]:
    """Cut an axis into tiles that keep `side` pixels, the last one the rest."""
    for start in range(0, length, side):
        stop = min(start + side, length)
        seen = slice(max(0, start - margin), min(length, stop + margin))
        yield Tile(seen, slice(start, stop))


def _cells(tile: Tile, stride: int) -> tuple[slice, slice]:
    """Return where what is kept lies in the result, and in the tile's own map."""
    first, own = tile.kept.start // stride, tile.seen.start // stride
    last = -(-tile.kept.stop // stride)
    return slice(first, last), slice(first - own, last - own)


def _stride(seen: slice, cells: int) -> int:
    """Return the stride at which a network makes so many cells of what it sees."""
    length = seen.stop - seen.start
    for stride in (1, 2, 4, 8, 16, 32):
        if -(-length // stride) == cells:
            return stride
    raise ValueError(f"the network makes {cells} cells of {length} pixels, at no stride up to 32")


def _up(pixels: int) -> int:
    return -(-pixels // STEP) * STEP
