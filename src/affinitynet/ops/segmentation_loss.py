"""Losses of a segmentation network in which a small class weighs as much as a large one."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Share of the pixels below which a class is small. Against the commonest class in its place, which
# weighs lesions of a hundredth of the pixels by 10 instead of 3, leaves of val had 49.9 mIoU after
# 200 steps where they had 42.4, and each class was better (one seed; docs/stages.md).
SMALL = 0.1
MOST_WEIGHT = 10.0  # a class of a millionth of the pixels must not drown all others


def root_weights(counts: Sequence[int], most: float = MOST_WEIGHT) -> Tensor:
    """Weigh small classes by the inverse root of their share of the pixels; 1 from a tenth on.

    w_c = min(most, max(1, sqrt(SMALL sum_k n_k / n_c))). The root is halfway between pixels that
    all count alike and classes that all count alike; the latter makes a network say rare classes
    far too often. A class without a pixel has weight 1, which nothing is multiplied by.

    Args:
        counts: pixels of each class, background first.
        most: the largest weight, at least 1.

    Returns:
        (C + 1,) float32.
    """
    # Pixels of a whole data set: float32 counts exactly only to 16.8 million.
    pixels = torch.tensor(counts, dtype=torch.float64)
    weights = (SMALL * pixels.sum() / pixels.clamp(min=1)).sqrt().clamp(min=1, max=most)
    return torch.where(pixels > 0, weights, 1.0).float()


def soft_dice_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Soft Dice loss, the mean over the classes that the labels of the batch have.

    1 - 2 sum_i p_ic y_ic / sum_i (p_ic + y_ic) for class c, over the labelled pixels of the whole
    batch (Milletari et al., V-Net, 3DV 2016). Classes without a label say nothing here: theirs
    would be 1 however little the network says of them.

    Args:
        logits: (B, C + 1, H, W), any floating type.
        labels: (B, H, W), any integer type.
        ignore_index: label of the pixels that don't count.

    Returns:
        A float32 scalar in [0, 1]; 0 where no pixel is labelled.
    """
    probabilities, targets = _labelled(logits, labels, ignore_index)
    overlap = (probabilities * targets).sum((0, 2))
    sizes = targets.sum((0, 2))
    both = probabilities.sum((0, 2)) + sizes
    present = sizes > 0
    # The clamp keeps 0 / 0 out of the branch that `where` drops: its gradient would still be NaN.
    losses = torch.where(present, 1 - 2 * overlap / both.clamp(min=1e-6), 0.0)
    return losses.sum() / present.sum().clamp(min=1)


def lovasz_softmax_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Lovasz-Softmax: a surrogate of 1 - IoU, the mean over the classes that the labels have.

    The errors |y_ic - p_ic| of a class are sorted, the largest first, and the k-th is weighted by
    how much the Jaccard loss grows when its pixel is wrong as well as those before it (Berman et
    al., CVPR 2018, algorithm 1).

    Args:
        logits: (B, C + 1, H, W), any floating type.
        labels: (B, H, W), any integer type.
        ignore_index: label of the pixels that don't count.

    Returns:
        A float32 scalar in [0, 1]; 0 where no pixel is labelled.
    """
    probabilities, targets = _labelled(logits, labels, ignore_index)
    losses = [probabilities.sum() * 0]  # a batch without a label still has a gradient
    for label in targets.sum((0, 2)).nonzero().flatten().tolist():
        truth = targets[:, label].flatten()
        # Where nothing is labelled both are 0: no error, so sorted behind all that count.
        errors = (truth - probabilities[:, label].flatten()).abs()
        ordered, order = errors.sort(descending=True, stable=True)
        losses.append(torch.dot(ordered, _jaccard_steps(truth[order])))
    return torch.stack(losses).sum() / max(1, len(losses) - 1)


def _jaccard_steps(truth: Tensor) -> Tensor:
    """Return what each pixel of (N,) adds to the Jaccard loss when all before it are wrong."""
    size = truth.sum()
    # If the first k pixels are wrong, those of the class among them leave the intersection, and the
    # others join the union.
    loss = 1 - (size - truth.cumsum(0)) / (size + (1 - truth).cumsum(0))
    return torch.diff(loss, prepend=loss.new_zeros(1))


def _labelled(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return probabilities and 0/1 targets, both (B, C + 1, H W), 0 where nothing is labelled."""
    labelled = (labels != ignore_index).flatten(1)[:, None]
    # float32 also under autocast: sums over a batch's pixels in half precision lose the small ones.
    probabilities = logits.float().softmax(1).flatten(2) * labelled
    classes = torch.arange(logits.shape[1], device=labels.device)[None, :, None]
    targets = (labels.flatten(1)[:, None] == classes) & labelled
    return probabilities, targets.to(probabilities.dtype)
