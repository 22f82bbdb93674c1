"""The losses the stages train with, against formulas written out."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from affinitynet.ops.affinity import neighbor_offsets
from affinitynet.ops.crf import dense_crf
from affinitynet.ops.normalization import IMAGENET
from affinitynet.ops.segmentation_loss import lovasz_softmax_loss, soft_dice_loss
from affinitynet.run_folder.settings import AffinitySettings, SegmenterSettings
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


def test_the_gradient_of_classification_is_score_minus_tag() -> None:
    """d/dz of the mean over classes and batch of BCE(sigmoid(z), t) is (sigmoid(z) - t) / (B C)."""
    generator = torch.Generator().manual_seed(0)
    model = Fixed(3 * torch.randn(4, 20, generator=generator))
    tags = (torch.rand(4, 20, generator=generator) < 0.1).float()
    classification_losses(model, (torch.zeros(4, 3, 8, 8), tags))["loss"].backward()
    expected = (1 / (1 + torch.exp(-model.output.detach())) - tags) / (4 * 20)
    torch.testing.assert_close(model.output.grad, expected)


def slow_pair_loss(affinity: Tensor, labels: Tensor, radius: int) -> Tensor:
    """L_bg / 4 + L_fg / 4 + L_neg / 2, sums and counts over the whole batch."""
    batch, height, width = labels.shape
    logs: dict[str, list[Tensor]] = {"background": [], "foreground": [], "negative": []}
    for p, (dy, dx) in enumerate(neighbor_offsets(radius).tolist()):
        for b in range(batch):
            for y in range(height - dy):
                for x in range(max(0, -dx), min(width, width - dx)):
                    first, second = int(labels[b, y, x]), int(labels[b, y + dy, x + dx])
                    if 255 in (first, second):
                        continue
                    w = affinity[b, p, y, x]
                    if first != second:
                        logs["negative"].append(torch.log(1 + 1e-5 - w))
                    else:
                        kind = "foreground" if first else "background"
                        logs[kind].append(torch.log(w + 1e-5))
    parts = {kind: -sum(terms) / (len(terms) + 1e-5) for kind, terms in logs.items()}
    total: Tensor = parts["background"] / 4 + parts["foreground"] / 4 + parts["negative"] / 2
    return total


def test_the_gradient_of_the_affinity_loss_is_the_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(2, 6, 7, dtype=torch.long)
    labels[0, :, 3:] = 2
    labels[0, 4:, 5:] = 255
    labels[1, 2:] = 255  # the images have unlike numbers of pairs
    labels[1, 0, :2] = 1
    model = Fixed(0.05 + 0.9 * torch.rand(2, 12, 6, 7, generator=generator))
    parts = pair_losses(
        model, (torch.zeros(1), labels), settings=AffinitySettings(radius=3), ignore_index=255
    )
    parts["loss"].backward()
    affinity = model.output.detach().double().requires_grad_()
    loss = slow_pair_loss(affinity, labels, 3)
    loss.backward()
    assert parts["loss"].item() == pytest.approx(loss.item())
    assert affinity.grad is not None
    assert model.output.grad is not None
    torch.testing.assert_close(model.output.grad.double(), affinity.grad, rtol=1e-4, atol=1e-7)


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


def test_the_gradient_of_the_boundary_loss_is_the_formulas() -> None:
    """Cross entropy over labelled pixels + weight KL(CRF || network) over all, the CRF constant."""
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (2, 3, 10, 12), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (2, 10, 12), generator=generator)
    labels[0, 3:] = 255
    model = Fixed(torch.randn(2, 3, 10, 12, generator=generator))
    parts = segmentation_losses(
        model,
        (IMAGENET.apply(pixels), labels),
        settings=SegmenterSettings(boundary_weight=0.7),
        normalization=IMAGENET,
        ignore_index=255,
    )
    parts["loss"].backward()

    logits = model.output.detach().clone().requires_grad_()
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    with torch.no_grad():  # one image at a time
        q = torch.stack([dense_crf(pixels[b].permute(1, 2, 0), p[b]) for b in range(2)])
    entropy, pixel_count = torch.zeros(()), 0
    for b, y, x in (labels != 255).nonzero().tolist():
        entropy = entropy - p[b, labels[b, y, x], y, x].log()
        pixel_count += 1
    kl = (q * (q.clamp(min=1e-30).log() - p.log())).sum() / (2 * 10 * 12)
    (entropy / pixel_count + 0.7 * kl).backward()
    assert parts["entropy"].item() == pytest.approx((entropy / pixel_count).item(), rel=1e-5)
    assert parts["boundary"].item() == pytest.approx(kl.item(), rel=1e-3)
    torch.testing.assert_close(model.output.grad, logits.grad, rtol=1e-3, atol=1e-6)


def test_a_loss_beside_the_entropy_is_added_and_named() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 3, (2, 10, 12), generator=generator)
    model = Fixed(torch.randn(2, 3, 10, 12, generator=generator))
    batch = (torch.zeros(2, 3, 10, 12), labels)

    def losses(**settings: Any) -> dict[str, Tensor]:
        return segmentation_losses(
            model,
            batch,
            settings=SegmenterSettings(**settings),
            normalization=IMAGENET,
            ignore_index=255,
        )

    entropy = losses()["loss"].item()
    for name, loss in (("dice", soft_dice_loss), ("lovasz", lovasz_softmax_loss)):
        parts = losses(loss=name)
        assert set(parts) == {"loss", "entropy", name}
        assert parts["entropy"].item() == entropy
        expected = entropy + loss(model.output, labels).item()
        assert parts["loss"].item() == pytest.approx(expected)
    assert set(losses(loss="dice", boundary_weight=0.5)) == {"loss", "entropy", "dice", "boundary"}


def test_weights_make_the_entropy_a_weighted_mean() -> None:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(1, 3, 2, 2, generator=generator)
    labels, weights = torch.tensor([[[0, 1], [2, 255]]]), torch.tensor([1.0, 4.0, 10.0])

    def loss(labels: Tensor) -> float:
        return segmentation_losses(
            Fixed(logits),
            (torch.zeros(1, 3, 2, 2), labels),
            settings=SegmenterSettings(),
            normalization=IMAGENET,
            ignore_index=255,
            weights=weights,
        )["loss"].item()

    p = logits.softmax(1)[0]
    wrong = [-p[0, 0, 0].log(), -4 * p[1, 0, 1].log(), -10 * p[2, 1, 0].log()]
    assert loss(labels) == pytest.approx(float(sum(wrong)) / 15)
    assert loss(torch.full_like(labels, 255)) == 0
