"""Contrast: how unlike a patch is to the patches of images that lack a class.

    patch features -> distance to the k nearest of a bank -> zero and one, by images without it

Patch features, bank and nearest neighbors are those of PatchCore (Roth et al., Towards Total Recall
in Industrial Anomaly Detection, CVPR 2022). A bank for each tag, and a scale that images without
the tag set, are this project's.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

_ENTRIES = 1 << 24  # distances held at once: 64 MB
# A map's value where a patch passes one: the usual border between a class and the background
# (`evaluate.cam_background`).
BORDER = 0.2
_FEWEST_ROWS = 64  # of patches that are compared at once, however large the bank
_GROUP = 8  # columns that are looked at through their minimum first


def patch_features(maps: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
    """Describe each patch of an image by several feature maps at once.

    Each map is averaged over 3 x 3 cells (fewer at the border), brought to one grid (bilinear where
    it gets finer, the mean of cells where it gets coarser) and put on top of the others.

    Args:
        maps: (B, D_i, h_i, w_i), from one network.
        size: (h, w) of the grid; None takes that of the first map.

    Returns:
        (B, sum D_i, h, w) float32.

    Source: PatchCore, section 3.1 (neighborhoods of 3, maps of two depths).
    """
    height, width = size or tuple(maps[0].shape[2:])
    parts = []
    for features in maps:
        part = F.avg_pool2d(features.float(), 3, 1, 1, count_include_pad=False)
        if part.shape[2] > height or part.shape[3] > width:
            part = F.adaptive_avg_pool2d(part, (height, width))
        elif part.shape[2:] != (height, width):
            part = F.interpolate(part, (height, width), mode="bilinear", align_corners=False)
        parts.append(part)
    return torch.cat(parts, 1)


def patch_statistics(patches: Tensor, channels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return what makes maps of different size count alike in a distance.

    mean_d over the patches, and for all channels of one map the same scale, the length of the
    vector of their standard deviations: each map's patches then spread by 1 around zero.

    Args:
        patches: (N, D), N at least 2.
        channels: how many of the D channels each map has, in order.

    Returns:
        mean (D,) and scale (D,), the scale above 0.
    """
    mean, deviation = patches.mean(0), patches.std(0)
    # A map that is the same everywhere has no deviation: its patches stay at zero.
    lengths = [part.norm().clamp(min=1e-6) for part in torch.split(deviation, list(channels))]
    scale = [length.expand(count) for length, count in zip(lengths, channels, strict=True)]
    return mean, torch.cat(scale)


def nearest_distance(patches: Tensor, bank: Tensor, neighbors: int = 3) -> Tensor:
    """Return each patch's mean Euclidean distance to its nearest patches of a bank.

    d_i = mean over the k smallest of |p_i - b_j|. Works on rows at a time, so that the memory does
    not grow with the number of patches.

    Args:
        patches: (N, D) float32.
        bank: (M, D), M at least 1.
        neighbors: k; all M where the bank holds fewer.

    Returns:
        (N,).
    """
    neighbors = min(neighbors, len(bank))
    squares, columns = (bank * bank).sum(1), bank.T
    rows = max(_FEWEST_ROWS, _ENTRIES // len(bank))
    found = []
    for part in torch.split(patches, rows):
        # |p|^2 is the same for a whole row: it is not needed to find the nearest.
        distances = torch.addmm(squares, part, columns, alpha=-2)
        nearest = _smallest(distances, neighbors) + (part * part).sum(1, keepdim=True)
        # Rounding can bring the square of a short distance below zero.
        found.append(nearest.clamp(min=0).sqrt().mean(1))
    return torch.cat(found) if found else patches.new_zeros(0)


def _smallest(rows: Tensor, count: int) -> Tensor:
    """Return the smallest values of each row, in order: `topk` in less than half of its time.

    Of groups of columns, only the `count` with the smallest minima can hold one of the smallest
    values: any other has `count` values before its own.
    """
    groups = rows.shape[1] // _GROUP
    if groups < 4 * count:  # too few columns to leave any out
        return rows.topk(count, 1, largest=False).values
    # A group is every groups-th column, not a run of them: the minima are then of whole lines.
    whole = rows[:, : groups * _GROUP].view(len(rows), _GROUP, groups)
    near = whole.amin(1).topk(count, 1, largest=False, sorted=False).indices
    candidates = whole.gather(2, near[:, None].expand(-1, _GROUP, -1)).flatten(1)
    rest = rows[:, groups * _GROUP :]
    return torch.cat([candidates, rest], 1).topk(count, 1, largest=False).values


def coreset(patches: Tensor, count: int, generator: Generator, *, dimensions: int = 32) -> Tensor:
    """Choose rows that cover all: each next one is the farthest from those before.

    The distances are measured in `dimensions` random directions, which keeps their order nearly
    (Johnson and Lindenstrauss). Takes N x count x dimensions steps.

    Args:
        patches: (N, D).
        count: of the rows to choose; all are where there are fewer.
        generator: of the directions and the first row; on the CPU.
        dimensions: of the space in which distances are measured.

    Returns:
        (min(N, count),) int64, the rows' numbers.

    Source: PatchCore, algorithm 1 (greedy minimax facility location).
    """
    if len(patches) <= count:
        return torch.arange(len(patches))
    # Drawn on the CPU, so that the same rows are chosen on every device.
    directions = torch.randn(patches.shape[1], dimensions, generator=generator)
    points = patches @ directions.to(patches)
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    distance = (points - points[chosen[0]]).square().sum(1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen)


def calibration(scores: Sequence[Tensor], quantile: float = 0.99) -> tuple[float, float]:
    """Return the scores that become zero and one: of a usual image, the median and a quantile.

    Both are taken in each image, and of the images the one in the middle: a few that are unlike all
    others, or that show the class although their tags don't say so, move nothing.

    Args:
        scores: (N_i,) of each of the images without the class, N_i at least 1.
        quantile: the share of a usual image's patches that stay below one.

    Returns:
        zero and one, with one above zero.
    """
    shares = torch.tensor([0.5, quantile], dtype=torch.float64)
    rows = [
        image.sort().values[(shares * (len(image) - 1)).round().long().to(image.device)].cpu()
        for image in scores
    ]
    zero, one = torch.stack(rows).quantile(0.5, dim=0).tolist()
    return zero, max(one, zero + 1e-6)  # all scores may be equal


def calibrate(scores: Tensor, zero: float, one: float) -> Tensor:
    """Bring scores to the scale on which images without the class stay below one.

    (s - zero) / (one - zero), 0 where that is negative.
    """
    return ((scores - zero) / (one - zero)).clamp(min=0)


def as_cams(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Make maps in [0, 1] of an image's size (H, W) out of calibrated scores (K, h, w).

    M = min(1, 0.2 s^2): a score of one becomes `BORDER`. The square sets the two sides apart, as
    the exponents of confident areas and walk want it: with alphas of 4 and 32 foreground begins at
    1.17 and background ends at 0.62, the walk's border (alpha 16) is 0.78.
    """
    enlarged = F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
    return (BORDER * enlarged**2).clamp(max=1)
