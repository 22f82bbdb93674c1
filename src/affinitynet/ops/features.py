"""Affinities out of features that nobody trained for it: cosines of a frozen network's maps."""

import torch
import torch.nn.functional as F
from torch import Tensor

from affinitynet.ops._arguments import check_exponent, check_values
from affinitynet.ops.affinity import displacements, overlap


def feature_affinity(features: Tensor, radius: float = 5, gamma: float = 1) -> Tensor:
    """Say of each pixel and its neighbors how alike their features are.

    a_ij = max(0, cos(f_i, f_j))^gamma with i = (y, x) and j = (y + dy, x + dx); 0 where j falls
    outside the grid, or where a feature is 0. The walk's beta is a further exponent.

    Args:
        features: (B, D, h, w) floating point, any h and w from 1. Half precision is converted to
            float32, and so is the result.
        radius: as in `neighbor_offsets`.
        gamma: exponent above 0.

    Returns:
        (B, P, h, w) in [0, 1], float32 or float64, pairs ordered as in `neighbor_offsets`.

    Raises:
        ValueError: features of another shape, not floating point or not finite; a gamma that is
            not above 0, a radius under 1.

    Source: as the edges of Wang et al., CVPR 2022 (TokenCut), which join all cells and not
    neighbors alone.
    """
    if features.ndim != 4:
        raise ValueError(f"features are (B, D, h, w), not {tuple(features.shape)}")
    check_exponent(gamma, "gamma")
    check_values(features, "features")
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    directions = F.normalize(features, dim=1)
    height, width = features.shape[-2:]
    offsets = displacements(radius)
    planes = []
    for dy, dx in offsets:
        (y1, y2), (x1, x2) = overlap(height, dy), overlap(width, dx)
        cosine = (directions[..., y1, x1] * directions[..., y2, x2]).sum(1)
        # Rounding may carry the cosine of equal features past 1.
        inside = cosine.clamp(0, 1) ** gamma
        left, right = (x1.start, width - x1.stop) if inside.shape[2] else (0, width)
        plane = F.pad(inside, (left, right, 0, height - inside.shape[1]))
        planes.append(plane)
    if not planes:
        return features.new_zeros(len(features), 0, height, width)
    return torch.stack(planes, 1)
