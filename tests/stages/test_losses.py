"""The losses the stages train with, against formulas written out."""

import pytest
import torch
from torch import Tensor, nn

from affinitynet.models.normalization import IMAGENET
from affinitynet.recipe import AffinitySettings, SegmenterSettings
from affinitynet.stages.train_affinity import pair_losses
from affinitynet.stages.train_classifier import classification_losses
from affinitynet.stages.train_segmenter import segmentation_losses


class Fixed(nn.Module):
    """A network whose output is a parameter, whatever it sees."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, images: Tensor) -> Tensor:
        return self.output


def test_classification_is_the_mean_of_binary_cross_entropies() -> None:
    logits, tags = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 1.0]])
    p = logits.sigmoid()
    expected = -(p[0, 0].log() + (1 - p[0, 1]).log() + p[0, 2].log()) / 3
    loss = classification_losses(Fixed(logits), (torch.zeros(1, 3, 8, 8), tags))["loss"]
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)


def test_pairs_of_the_crop_border_count_only_with_the_grid_setting() -> None:
    labels = torch.zeros(1, 12, 12, dtype=torch.long)
    labels[:, :, 6:] = 1
    affinity = torch.full((1, 34, 12, 12), 0.5)
    affinity[:, :, :, :4] = 0.9  # columns that the original code leaves out
    losses = {
        pairs: pair_losses(
            Fixed(affinity),
            (torch.zeros(1), labels),
            settings=AffinitySettings(pairs=pairs),
            ignore_index=255,
        )
        for pairs in ("grid", "cropped")
    }
    assert losses["cropped"]["background"].item() == pytest.approx(0.6931, abs=1e-3)
    assert losses["grid"]["background"].item() < 0.6


def segmentation(weight: float, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (1, 3, 10, 12)).float()
    return segmentation_losses(
        Fixed(logits),
        (IMAGENET.apply(pixels), labels),
        settings=SegmenterSettings(boundary_weight=weight),
        normalization=IMAGENET,
        ignore_index=255,
    )


def test_segmentation_ignores_neutral_pixels() -> None:
    logits = torch.randn(1, 3, 10, 12)
    labels = torch.full((1, 10, 12), 255)
    labels[0, 2, 3] = 1
    expected = -logits[0, :, 2, 3].log_softmax(0)[1]
    assert segmentation(0.0, logits, labels)["loss"].item() == pytest.approx(float(expected))


def test_a_crop_without_labels_has_loss_zero_not_nan() -> None:
    logits, labels = torch.randn(1, 3, 10, 12), torch.full((1, 10, 12), 255)
    assert segmentation(0.0, logits, labels)["loss"].item() == 0.0


def test_the_boundary_loss_adds_its_weighted_part_and_its_gradient() -> None:
    torch.manual_seed(1)
    logits, labels = torch.randn(1, 3, 10, 12), torch.zeros(1, 10, 12, dtype=torch.long)
    parts = segmentation(0.5, logits, labels)
    total = parts["entropy"] + 0.5 * parts["boundary"]
    assert parts["loss"].item() == pytest.approx(total.item())
    assert parts["boundary"].item() > 0
    assert parts["loss"].requires_grad
