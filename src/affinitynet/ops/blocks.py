"""The dense CRF of a large image in overlapping blocks, in memory that depends on the block."""

import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from affinitynet.ops._arguments import check_count

DEVIATIONS = 3  # of the wider kernel: how far a block looks beyond itself
_LARGEST = 10**6


class Refinement(Protocol):
    """`dense_crf` or what is made of it: image (h, w, channels), maps (L, h, w) -> (..., h, w)."""

    def __call__(self, image: Tensor, maps: Tensor, /, *, origin: tuple[int, int]) -> Tensor:
        """Refine maps of a part of an image that begins at origin (y, x)."""


class Block(NamedTuple):
    """A part of an image: what is calculated, what is kept of it, and where that lies in it."""

    seen: tuple[slice, slice]
    kept: tuple[slice, slice]
    inside: tuple[slice, slice]


def in_blocks(
    refine: Refinement, image: Tensor, maps: Tensor, *, block: int, bilateral_sxy: float
) -> Tensor:
    """Refine an image block by block, each with its surroundings, and put the blocks together.

    Every pixel is calculated with all that lies within 3 deviations of the wider kernel, in
    lattices that lie as those of the whole image do. That is an approximation: over the iterations
    a pixel also hears of what is farther away. On generated images of 4096 x 4096 in blocks of
    1024 over 99.9 % of the labels are those of the whole, see docs/performance.md.

    Args:
        refine: called with parts of both, and where they begin.
        image: (H, W, channels).
        maps: (L, H, W).
        block: side in pixels of what is kept of a call; 0, or one that holds the image, calls
            once for the whole.
        bilateral_sxy: deviation of the wider kernel in pixels.

    Returns:
        (..., H, W), as `refine` returns its parts.

    Raises:
        ValueError: a block that is not a whole number from 0; what `refine` refuses.
    """
    check_count(block, "block", _LARGEST)
    H, W = image.shape[:2]
    if not 0 < block < max(H, W):
        return refine(image, maps, origin=(0, 0))
    result = None
    for seen, kept, inside in blocks(H, W, block, math.ceil(DEVIATIONS * bilateral_sxy)):
        begin = seen[0].start, seen[1].start
        part = refine(image[seen], maps[:, *seen], origin=begin)
        if result is None:
            result = part.new_empty(*part.shape[:-2], H, W)
        result[..., *kept] = part[..., *inside]
    assert isinstance(result, torch.Tensor)  # there is a block where there is an image
    return result


def blocks(height: int, width: int, block: int, margin: int) -> Iterator[Block]:
    """Cut an image into blocks of at most that side, each seen with a margin around it."""
    for rows in _cuts(height, block, margin):
        for columns in _cuts(width, block, margin):
            yield Block(*zip(rows, columns, strict=True))


def _cuts(length: int, block: int, margin: int) -> Iterator[tuple[slice, slice, slice]]:
    # Of equal length, so that no last one is a strip whose margin costs more than itself.
    count = -(-length // block)
    for number in range(count):
        start, stop = number * length // count, (number + 1) * length // count
        first = max(0, start - margin)
        yield (
            slice(first, min(length, stop + margin)),
            slice(start, stop),
            slice(start - first, stop - first),
        )
