"""Multi-scale CAMs against a forward for each picture, and the file they are kept in."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from affinitynet.models.backbone import TimmBackbone
from affinitynet.models.classifier import Classifier
from affinitynet.models.vgg16 import VGG16
from affinitynet.stages.compute_cams import multi_scale_cams, scale_maps

SCALES = (1.0, 0.5, 1.5, 2.0)  # the original code's order
Bilinear = Callable[[Tensor, int, int], Tensor]


def classifier(name: str = "test_resnet", classes: int = 4) -> Classifier:
    torch.manual_seed(0)
    backbone = VGG16(width=1 / 16) if name == "vgg16" else TimmBackbone(name, 8, frozen=False)
    return Classifier(backbone, classes).eval()


def picture(height: int, width: int) -> Tensor:
    """Blocks of color with noise: (3, H, W) uint8."""
    generator = torch.Generator().manual_seed(1)
    blocks = torch.rand(3, -(-height // 8), -(-width // 8), generator=generator)
    blocks = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width]
    return (200 * blocks + 50 * torch.rand(3, height, width, generator=generator)).byte()


def cams(
    model: Classifier, image: Tensor, tags: Sequence[int], scales: Sequence[float], flip: bool
) -> Tensor:
    with torch.inference_mode():
        maps = multi_scale_cams(
            model.cams,
            model.backbone.normalization,  # type: ignore[arg-type]
            image,
            tags,
            scales,
            flip,
        )
        return scale_maps(maps, tags, {})


@torch.inference_mode()
def slow_cams(
    model: Classifier,
    image: Tensor,
    tags: Sequence[int],
    scales: Sequence[float],
    flip: bool,
    bilinear: Bilinear,
) -> Tensor:
    """Steps b.1 to b.4 of the original code: one picture a forward, PIL's bicubic."""
    height, width = image.shape[1:]
    photograph = Image.fromarray(image.permute(1, 2, 0).numpy())
    sums = [torch.zeros(height, width, dtype=torch.float64) for _ in tags]
    for scale in scales:
        size = (round(width * scale), round(height * scale))
        scaled = photograph.resize(size, Image.Resampling.BICUBIC)
        for mirrored in (False, True)[: 1 + flip]:
            pixels = np.array(scaled)[:, ::-1] if mirrored else np.array(scaled)
            tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
            normalized = model.backbone.normalization.apply(tensor)  # type: ignore[union-attr, operator]
            features = model.backbone(normalized[None])[-1][0]
            for k, tag in enumerate(tags):
                weight = model.head.class_weights[tag]
                raw = sum(weight[d] * features[d] for d in range(len(features)))
                raw = raw.clamp(min=0)  # type: ignore[union-attr]
                raw = raw.sqrt() if isinstance(model.backbone, VGG16) else raw
                full = bilinear(raw, height, width)
                sums[k] += full.flip(1) if mirrored else full
    return torch.stack([m / (m.max() + 1e-5) for m in sums]).float()


@pytest.mark.parametrize(
    ("name", "size", "scales", "flip", "tolerance"),
    [
        ("test_resnet", (37, 45), SCALES, True, 0.01),
        ("test_resnet", (37, 45), (1.0,), True, 1e-5),
        ("test_byobnet", (32, 48), (1.0, 1.0), False, 1e-5),
        ("vgg16", (45, 31), (1.0, 1.5), True, 0.01),
    ],
)
def test_maps_are_those_of_single_forwards(
    name: str,
    size: tuple[int, int],
    scales: Sequence[float],
    flip: bool,
    tolerance: float,
    bilinear: Bilinear,
) -> None:
    """PIL rounds between its two passes: a pixel in 200 is a grey level off, a map at most 0.01."""
    model, image, tags = classifier(name), picture(*size), (0, 2, 3)
    expected = slow_cams(model, image, tags, scales, flip, bilinear)
    assert expected.std() > 0.05  # the case has something to see
    result = cams(model, image, tags, scales, flip)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=0, atol=tolerance)


def test_maps_come_in_the_order_of_the_tags() -> None:
    model, image = classifier(), picture(32, 40)
    single = {tag: cams(model, image, (tag,), (1.0,), False) for tag in range(4)}
    assert torch.equal(cams(model, image, (3, 1), (1.0,), False), torch.cat([single[3], single[1]]))


def test_each_class_is_divided_by_its_own_maximum() -> None:
    maps = cams(classifier(), picture(40, 40), range(4), (1.0,), True)
    assert maps.min() >= 0
    peaks = maps.amax((1, 2))
    assert peaks.max() < 1
    assert ((peaks == 0) | (peaks > 0.99)).all()
    assert (peaks > 0).any()


def test_a_mirrored_image_gives_mirrored_maps() -> None:
    """True of a sum over flips only, and only if the flipped map is flipped back."""
    model, image = classifier(), picture(37, 45)
    maps = cams(model, image.flip(-1), (0, 1), (1.0, 1.5), True)
    torch.testing.assert_close(maps.flip(-1), cams(model, image, (0, 1), (1.0, 1.5), True))
    alone = cams(model, image.flip(-1), (0, 1), (1.0, 1.5), False)
    assert not torch.allclose(
        alone.flip(-1), cams(model, image, (0, 1), (1.0, 1.5), False), atol=0.01
    )


@pytest.mark.parametrize(
    ("size", "scale", "seen"),
    [
        ((45, 47), 0.5, (22, 24)),  # 22.5 and 23.5, halves to even
        ((45, 47), 1.5, (68, 70)),  # 67.5 and 70.5
        ((33, 35), 0.75, (25, 26)),  # 24.75 and 26.25
        ((1, 40), 0.25, (1, 10)),  # never 0
    ],
)
def test_sizes_are_rounded_half_to_even(
    size: tuple[int, int], scale: float, seen: tuple[int, int]
) -> None:
    model = classifier()
    shapes: list[tuple[int, ...]] = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    assert cams(model, picture(*size), (1,), (scale,), True).shape == (1, *size)
    assert shapes == [(2, 3, *seen)]


def test_a_class_with_a_range_is_measured_by_it_and_others_by_their_maximum() -> None:
    maps = torch.tensor([[[0.0, 2.0], [3.0, 7.0]], [[0.0, 1.0], [2.0, 4.0]]])
    scaled = scale_maps(maps, (5, 2), {5: (1.0, 3.0)})
    # 0.2 s^2 with s of 0, 1/2, 1 and 3, at most one.
    torch.testing.assert_close(scaled[0], torch.tensor([[0.0, 0.05], [0.2, 1.0]]))
    torch.testing.assert_close(scaled[1], maps[1] / (4 + 1e-5))
