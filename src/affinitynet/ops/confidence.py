"""Which pixels the class activation maps are sure of: foreground, background, or neutral."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from affinitynet.ops._arguments import check_exponent, check_values
from affinitynet.ops.crf import as_tensor, dense_crf

NEUTRAL = 255
CERTAIN = 0.7  # IRN's probability of a pixel's own label


def background_map(cams: Tensor, alpha: float) -> Tensor:
    """Score the background by what the classes leave.

    M_bg = (1 - max_c M_c)^alpha; a smaller alpha makes the background stronger. Without a class
    everything is background: 1.

    Args:
        cams: (..., C, H, W) in [0, 1], any C from 0.
        alpha: exponent above 0.

    Returns:
        (..., 1, H, W).

    Raises:
        ValueError: maps of fewer than three dimensions, not floating point or not finite; an
            alpha that is not above 0.

    Source: Ahn & Kwak, CVPR 2018, equation 2.
    """
    if cams.ndim < 3:
        raise ValueError(f"cams are (..., C, H, W), not {tuple(cams.shape)}")
    check_exponent(alpha, "alpha")
    check_values(cams, "cams")
    if cams.shape[-3] == 0:  # amax refuses an axis of no length
        return cams.new_ones((*cams.shape[:-3], 1, *cams.shape[-2:]))
    # Calibrated maps may pass one, and a negative number has no fractional power: NaN.
    return (1 - cams.amax(-3, keepdim=True)).clamp(min=0) ** alpha


def confident_labels(
    image: Tensor | NDArray[np.generic],
    cams: Tensor | NDArray[np.generic],
    low_alpha: float = 4,
    high_alpha: float = 32,
    *,
    background_priority: bool = True,
    thresholds: tuple[float, float] | None = None,
    iterations: int = 10,
    gaussian_sxy: float = 3,
    gaussian_compat: float = 3,
    bilateral_sxy: float = 80,
    bilateral_srgb: float = 13,
    bilateral_compat: float = 10,
    origin: tuple[int, int] = (0, 0),
) -> Tensor:
    """Label the pixels that stay foreground or background under both a strong and a weak rival.

    The dense CRF refines [M_bg, M_1 .. M_C] twice. What is class c although a low alpha makes
    the background strong becomes c; what is background although a high alpha makes it weak
    becomes 0; all else is neutral. Both CRFs run in one pass over shared lattices.

    With thresholds (f, b) the rivals are constant, as in IRN: a pixel's label is that of its
    largest map where that is over the threshold, else the background, and the CRF starts from
    labels: 0.7 for a pixel's own one, 0.3 shared by the others. What is class c against f becomes
    c; what is background against b becomes 0.

    Args:
        image: (H, W, 3) uint8.
        cams: (C, H, W) in [0, 1], any C from 0 to 254.
        low_alpha: exponent of the background that confident foreground has to beat.
        high_alpha: exponent of the background that has to win to be confident background.
        background_priority: which wins where both hold, which the CRF makes possible: the
            background as in the paper's code, or the foreground as in IRN's.
        thresholds: (f, b) of foreground and background, in place of both alphas; IRN has (0.30,
            0.05).

    The other arguments are those of `dense_crf`.

    Returns:
        (H, W) int64: 0 background, 1 .. C the classes in the order of `cams`, 255 neutral.

    Raises:
        ValueError: shapes that do not fit each other, more than 254 classes, maps outside of
            [0, 1] or not floating point, thresholds outside of it or the wrong way round, or what
            `dense_crf` refuses.

    Source: Ahn & Kwak, CVPR 2018, section 3.2, and their public code; thresholds: Ahn et al., CVPR
    2019 (IRN), and its public code.
    """
    maps = as_tensor(cams)
    if maps.ndim != 3 or len(maps) >= NEUTRAL:
        raise ValueError(f"cams must be (C, H, W) with C below {NEUTRAL}, not {tuple(maps.shape)}")
    check_values(maps, "cams", 0, 1)
    maps = maps.float()
    if thresholds is None:
        # (2, C + 1, H, W), not normalized: the CRF takes them as the public code gives them.
        rivals = [background_map(maps, alpha) for alpha in (low_alpha, high_alpha)]
        scores = torch.stack([torch.cat([rival, maps]) for rival in rivals])
    else:
        if not 0 <= thresholds[1] <= thresholds[0] <= 1:
            raise ValueError(f"thresholds (f, b) are 0 <= b <= f <= 1, not {thresholds}")
        scores = torch.stack([_from_labels(maps, threshold) for threshold in thresholds])
    refined = dense_crf(
        image,
        scores,
        iterations=iterations,
        gaussian_sxy=gaussian_sxy,
        gaussian_compat=gaussian_compat,
        bilateral_sxy=bilateral_sxy,
        bilateral_srgb=bilateral_srgb,
        bilateral_compat=bilateral_compat,
        origin=origin,
    )
    # The largest label by comparisons of bytes: torch's argmax takes several times as long.
    low, high = refined
    # Where the background wins against the low alpha, the pixel stays neutral; of equal labels
    # the first wins, as with argmax.
    labels = torch.full(low.shape[1:], NEUTRAL, dtype=torch.uint8, device=low.device)
    best = low[0]
    for label in range(1, len(low)):
        labels.masked_fill_(low[label] > best, label)
        best = torch.maximum(best, low[label])
    background = high[0] >= high.amax(0)
    if not background_priority:
        background &= labels == NEUTRAL
    return labels.masked_fill_(background, 0).long()


def _from_labels(maps: Tensor, threshold: float) -> Tensor:
    """Return probabilities (C + 1, H, W) of labels: CERTAIN for a pixel's own, the rest shared."""
    rival = maps.new_full((1, *maps.shape[1:]), threshold)
    labels = torch.cat([rival, maps]).max(0).indices  # of equal ones the first
    own = F.one_hot(labels, len(maps) + 1).permute(2, 0, 1).to(maps.dtype)
    share = (1 - CERTAIN) / max(len(maps), 1)
    return own * (CERTAIN - share) + share
