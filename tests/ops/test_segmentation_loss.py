"""Losses that weigh classes alike, against segmentation-models-pytorch's and by their meaning."""

import math

import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss, LovaszLoss
from torch import Tensor

from affinitynet.ops.segmentation_loss import lovasz_softmax_loss, root_weights, soft_dice_loss

LOSSES = [soft_dice_loss, lovasz_softmax_loss]


def batch(seed: int = 0, ignored: float = 0.2) -> tuple[Tensor, Tensor]:
    """Logits of five classes and labels of three of them, some ignored."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (2, 9, 11), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = 255
    return torch.randn(2, 5, 9, 11, generator=generator, requires_grad=True), labels


def test_lovasz_is_the_librarys_and_has_its_gradient() -> None:
    logits, labels = batch()
    theirs = LovaszLoss("multiclass", ignore_index=255)(logits, labels)
    (expected,) = torch.autograd.grad(theirs, logits)
    ours = lovasz_softmax_loss(logits, labels)
    (found,) = torch.autograd.grad(ours, logits)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_dice_is_the_librarys_over_the_classes_present() -> None:
    """Theirs divides by all classes: with twenty a batch of two would say next to nothing."""
    logits, labels = batch()
    theirs = DiceLoss("multiclass", ignore_index=255)(logits, labels) * 5 / 3
    (expected,) = torch.autograd.grad(theirs, logits)
    ours = soft_dice_loss(logits, labels)
    (found,) = torch.autograd.grad(ours, logits)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
def test_ignored_pixels_change_nothing(loss) -> None:
    logits, labels = batch()
    other = torch.where(labels[:, None] == 255, 7.0, logits.detach())
    assert loss(other, labels).item() == pytest.approx(loss(logits, labels).item(), rel=1e-5)
    beside = labels.masked_fill(labels == 255, 65535)
    assert loss(logits, beside, 65535).item() == loss(logits, labels).item()


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_labelled_is_zero_with_a_gradient(loss) -> None:
    logits, labels = batch(ignored=1.1)
    found = loss(logits, labels)
    found.backward()
    assert found.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_class_of_two_pixels_counts_as_much_as_the_rest(loss) -> None:
    labels = torch.zeros(1, 40, 40, dtype=torch.long)
    labels[0, 20, 20:22] = 1
    right = 50.0 * torch.nn.functional.one_hot(labels, 2).permute(0, 3, 1, 2)
    background = torch.tensor([50.0, 0.0])[None, :, None, None].expand(1, 2, 40, 40)
    assert loss(right, labels).item() == pytest.approx(0, abs=1e-5)
    assert loss(background, labels).item() == pytest.approx(0.5, abs=1e-2)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_float32_whatever_the_networks_precision(loss) -> None:
    logits, labels = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(logits.bfloat16(), labels)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(logits, labels).item(), rel=1e-2)


def test_root_weights() -> None:
    weights = root_weights([90_000, 9_600, 400, 1, 0])
    assert weights.tolist() == pytest.approx([1, math.sqrt(10_000.1 / 9_600), 5, 10, 1], rel=1e-5)
    assert weights.dtype == torch.float32
    assert root_weights([996, 4], most=1.5).tolist() == [1, 1.5]
    assert root_weights([100, 400]).tolist() == [1, 1]  # none is small
    assert root_weights([0, 0]).tolist() == [1, 1]
