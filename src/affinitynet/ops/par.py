"""Refinement of class maps by the colors of nearby pixels: cheaper and coarser than a dense CRF."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from numpy import generic
from numpy.typing import NDArray
from torch import Tensor

from affinitynet.ops._arguments import check_count, check_values
from affinitynet.ops.crf import as_tensor

DILATIONS = (1, 2, 4, 8, 12, 24)
_AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
_MOST_ITERATIONS = 1000


def pixel_adaptive_refinement(
    image: Tensor | NDArray[generic],
    maps: Tensor,
    *,
    iterations: int = 10,
    dilations: Sequence[int] = DILATIONS,
    color_width: float = 0.3,
    position_weight: float = 0.01,
) -> Tensor:
    """Replace each value by an average over neighbors of like color, again and again (PAR).

    A pixel i has 8 neighbors j at each dilation d. With s_c and s_p the standard deviations, over
    all its neighbors, of their color c and of their distance,

        k_ij = softmax_j(-mean_c ((I_jc - I_ic) / (s_c w))^2)
             + v softmax_j(-(|j - i| / (s_p w))^2)

    and every iteration is M_i <- sum_j k_ij M_j. Beyond the image's border its last pixels go on.
    The pixel itself has no part in it. The weights sum to 1 + v, as in the public code, so that
    only the maps' proportions mean something.

    Args:
        image: (H, W, 3) uint8 or float; any range, as colors are divided by their deviation.
        maps: (K, H, W) floating point, any K.
        iterations: from 0.
        dilations: distances of the neighbors in pixels, each at least 1, at least one.
        color_width: w, above 0.
        position_weight: v, at least 0.

    Returns:
        (K, H, W), float64 where the maps are, else float32. Differentiable in the maps.

    Raises:
        ValueError: shapes that do not fit each other, maps or an image not finite, settings out of
            range.

    Source: Ru et al., CVPR 2022 (AFA), section 3.4; constants from its public code.
    """
    pixels = as_tensor(image).to(maps.device)
    if maps.ndim != 3 or pixels.shape != (*maps.shape[1:], 3):
        raise ValueError(
            f"image {tuple(pixels.shape)} and maps {tuple(maps.shape)} do not fit: they are "
            "(H, W, 3) and (K, H, W)"
        )
    check_values(maps, "maps")
    check_count(iterations, "iterations", _MOST_ITERATIONS)
    if not dilations or min(dilations) < 1:
        raise ValueError(f"dilations are at least 1, one or more, not {tuple(dilations)}")
    if pixels.is_floating_point():
        check_values(pixels, "image")
    if not color_width > 0 or not 0 <= position_weight < math.inf:
        raise ValueError(
            "color_width must be above 0 and position_weight at least 0, not "
            f"{color_width} and {position_weight}"
        )
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    if not maps.numel():
        return maps
    colors = pixels.to(maps.dtype).permute(2, 0, 1)
    weights = _weights(colors, dilations, color_width, position_weight)
    for _ in range(iterations):
        # Neighbor after neighbor: all of them together would be 48 times the maps.
        total = torch.zeros_like(maps)
        for weight, moved in zip(weights, _neighbors(maps, dilations), strict=True):
            total = total + weight * moved
        maps = total
    return maps


def _neighbors(maps: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Yield what stands at each neighbor of each pixel: (K, H, W), 8 for each dilation."""
    height, width = maps.shape[1:]
    for dilation in dilations:
        framed = F.pad(maps[None], (dilation,) * 4, mode="replicate")[0]
        for dy, dx in _AROUND:
            y, x = (1 + dy) * dilation, (1 + dx) * dilation
            yield framed[:, y : y + height, x : x + width]


def _weights(colors: Tensor, dilations: Sequence[int], width: float, share: float) -> Tensor:
    """Return k of every neighbor: (8 * dilations, H, W)."""
    nearby = torch.stack(list(_neighbors(colors, dilations)))
    spread = nearby.std(0) + 1e-8  # a flat surface has none
    likeness = -(((nearby - colors) / spread / width) ** 2).mean(1)
    distances = colors.new_tensor([d * math.hypot(dy, dx) for d in dilations for dy, dx in _AROUND])
    nearness = -((distances / (distances.std() + 1e-8) / width) ** 2)
    return likeness.softmax(0) + share * nearness.softmax(0)[:, None, None]
