"""Regions of no class in particular, such as those of a promptable network, that vote on labels."""

import torch
from torch import Tensor


def vote_regions(labels: Tensor, regions: Tensor, ignore_index: int = 255) -> Tensor:
    """Let a class take each region that it covers more than half of.

    Region r becomes the class c >= 1 with 2 |{i in r: Y_i = c}| > |r|, as a whole; where there is
    none, its pixels keep their labels. Neutral pixels are part of a region, but cover it with no
    class, and the background takes none: regions are parts of objects as often as objects.

    Args:
        labels: (H, W), any integer type: 0 background, 1 .. C classes.
        regions: (H, W), any integer type: a number from 1 on for each region, 0 for none.
        ignore_index: label of neutral pixels.

    Returns:
        (H, W), of the type of `labels`.

    Raises:
        ValueError: the two are not of one size.
    """
    if labels.shape != regions.shape or labels.ndim != 2:
        raise ValueError(f"labels {tuple(labels.shape)} and regions {tuple(regions.shape)} differ")
    numbers, place = torch.unique(regions, return_inverse=True)
    covers = (labels > 0) & (labels != ignore_index) & (regions > 0)
    found = torch.where(covers, labels, 0).long()
    wide = int(found.max()) + 1 if found.numel() else 1
    # Counts of (region, class) pairs; column 0 is all that covers with no class.
    counts = torch.bincount((place * wide + found).flatten(), minlength=len(numbers) * wide)
    counts = counts.view(len(numbers), wide)
    sizes = counts.sum(1)
    counts[:, 0] = 0
    most, winner = counts.max(1)
    taken = (2 * most > sizes)[place]
    return torch.where(taken, winner[place].to(labels.dtype), labels)
