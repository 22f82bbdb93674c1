"""Losses of a segmentation network in which a small class weighs as much as a large one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Share of the pixels below which a class is small. Against the commonest class in its place, which
# weighs lesions of a hundredth of the pixels by 10 instead of 3, leaves of val had 49.9 mIoU after
# 200 steps where they had 42.4, and each class was better (one seed; docs/stages.md).
SMALL = 0.1
CLAMPED_PATCH = 120  # pixels, WeakTr's
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


def clamp_to_patches(
    losses: Tensor, labelled: Tensor, start: float, patch: int = CLAMPED_PATCH
) -> Tensor:
    """Clamp each pixel's loss at the mean around it, so that isolated wrong labels teach little.

    l'_i = min(l_i, max(m_p(i), m)): m is the mean over all labelled pixels, m_p that over the patch
    of i in its image. A clamped pixel has no gradient. While m is above `start` nothing is clamped:
    a network that knows nothing yet can't tell wrong labels from those still to be learned.

    Args:
        losses: (B, H, W), not negative, any floating type.
        labelled: (B, H, W) bool, the pixels that count.
        start: the mean loss from which on it clamps.
        patch: side of a patch in pixels.

    Returns:
        (B, H, W), of the type of `losses`.

    Source: WeakTr (Zhu et al., arXiv 2304.01184), which averages patches over the batch too.
    """
    with torch.no_grad():
        counted = labelled.to(losses.dtype)
        known = losses.where(labelled, 0.0)
        mean = known.sum() / counted.sum().clamp(min=1)
        # Patches at the right and bottom edge are smaller; the padding counts as unlabelled.
        rows, columns = losses.shape[1:]
        sides = (0, -columns % patch, 0, -rows % patch)
        sums, counts = (
            F.avg_pool2d(F.pad(part, sides)[:, None], patch)[:, 0] for part in (known, counted)
        )
        around = (sums / counts.clamp(min=torch.finfo(losses.dtype).eps)).maximum(mean)
        limit = around.repeat_interleave(patch, 1).repeat_interleave(patch, 2)
        limit = limit[:, :rows, :columns].masked_fill(mean > start, float("inf"))
    return losses.minimum(limit)


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
