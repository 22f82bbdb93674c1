"""Final scores of a tagged image: what a segmentation network says, given all that is known of it.

    P'_k = P_k o^[k is the label that taught the network] / sum over background and tags

Known are the tags, and the mask that the network learned from, whose label counts as evidence with
odds of o against any other.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def restrict(probabilities: Tensor, tags: Iterable[int]) -> Tensor:
    """Keep the background and the tagged classes: (C + 1, H, W) -> (K + 1, H, W), summing to one.

    P'_k = P_k / sum_j P_j over background and tags: what is left when the tags are known.
    """
    return _scaled(probabilities[[0, *(tag + 1 for tag in tags)]])


def with_evidence(scores: Tensor, labels: Tensor, tags: Sequence[int], odds: float) -> Tensor:
    """Let labels speak with the network: P'_k = P_k o^[k is the pixel's label] / sum.

    Args:
        scores: (K + 1, H, W), of the background and the K classes `tags`.
        labels: (H, W), 0 for the background, tag + 1 for a class; others say nothing.
        tags: numbers of the classes.
        odds: o, at least 1; with 1 the labels say nothing.

    Returns:
        (K + 1, H, W), summing to one.
    """
    known = torch.tensor([0, *(tag + 1 for tag in tags)], device=labels.device)
    said = labels == known.view(-1, 1, 1)
    return _scaled(torch.where(said.to(scores.device), scores * odds, scores))


def _scaled(scores: Tensor) -> Tensor:
    # Where no label has any probability, 0 / 0 would be NaN.
    return scores / scores.sum(0, keepdim=True).clamp(min=1e-12)
