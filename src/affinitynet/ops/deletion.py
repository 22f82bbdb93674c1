"""Deletion: is what a map points at what the classifier needs? A measure that needs no truth."""

import torch
import torch.nn.functional as F
from torch import Tensor

_KEPT = 1e-3  # share of a window that must be left to fill a pixel from it


def strongest_pixels(cam: Tensor, share: float = 0.02) -> Tensor:
    """Return where a map is strongest: as many pixels as `share` of the image, none that are zero.

    Args:
        cam: (H, W), at least 0.
        share: of the image's pixels, in (0, 1]; one pixel at least.

    Returns:
        (H, W) bool.
    """
    count = max(1, round(share * cam.numel()))
    flat = cam.flatten()
    found = torch.zeros_like(flat, dtype=torch.bool)
    found[flat.topk(count).indices] = True
    return (found & (flat > 0)).view_as(cam)


def fill_from_surroundings(image: Tensor, hole: Tensor) -> Tensor:
    """Paint over the pixels of a hole with a blurred image of the rest.

    A filled pixel is the mean of the pixels around it that are not in the hole, each weighed by a
    triangle as wide as a sixteenth of the image; twice as wide, and so on, where nothing is left.

    Args:
        image: (3, H, W), any floating type.
        hole: (H, W) bool; if it is everything, the image's mean color is painted.

    Returns:
        (3, H, W).
    """
    if hole.all():
        return image.mean((1, 2), keepdim=True).expand_as(image).clone()
    kept = (~hole).to(image.dtype)[None]
    sums, weights = image * kept, kept
    filled, open_ = image.clone(), hole.clone()
    # Squares of 2 r + 1 pixels: the triangle of two of them is that wide at half its height.
    radius = max(1, max(image.shape[1:]) // 32)
    while open_.any():
        colors, share = _blur(sums, radius), _blur(weights, radius)
        now = open_ & (share[0] > _KEPT)
        # The hole and all outside of the image are 0 in the sums: dividing by the share that is
        # left takes them out of the mean.
        filled[:, now] = (colors / share.clamp(min=_KEPT))[:, now]
        open_ &= ~now
        radius *= 2
    return filled


def _blur(maps: Tensor, radius: int) -> Tensor:
    """Average (C, H, W) twice over squares, with zeros around the image: a triangle's weights."""
    for side in (-2, -1):  # a square is two lines, which takes far fewer steps
        # Odd, to have a middle, and no longer than it takes for each pixel to see all others.
        length = min(2 * radius + 1, 2 * maps.shape[side] - 1)
        kernel = (length, 1) if side == -2 else (1, length)
        padding = (length // 2, 0) if side == -2 else (0, length // 2)
        for _ in range(2):
            maps = _mean_of_line(maps, kernel, padding)
    return maps


def _mean_of_line(maps: Tensor, kernel: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    padded = F.pad(maps, (padding[1], padding[1], padding[0], padding[0]))
    return F.avg_pool2d(padded[None], kernel, 1)[0]
