"""CAMs, affinities and predictions of large images in tiles are the whole image's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from affinitynet.models.affinity_net import AffinityNet, image_affinity
from affinitynet.models.backbone import Backbone, TimmBackbone
from affinitynet.models.boundary_net import BoundaryNet
from affinitynet.models.classifier import Classifier
from affinitynet.models.feature_net import FeatureNet
from affinitynet.models.resnet38 import ResNet38
from affinitynet.models.segmenter import LargeFov, SegmentationNet, segment
from affinitynet.models.vgg16 import VGG16
from affinitynet.ops.tiles import in_tiles
from affinitynet.stages.compute_cams import multi_scale_cams, scale_maps

TILE = 256
NETWORKS: dict[str, Callable[[], Backbone]] = {
    "resnet38": lambda: ResNet38(1 / 16),
    "vgg16": lambda: VGG16(width=1 / 16),
    "mobilenetv2_100": lambda: TimmBackbone("mobilenetv2_100", 16, frozen=False),
    "resnet50": lambda: TimmBackbone("resnet50", 16, frozen=False),
}


def backbone(output_stride: int = 8) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone("test_resnet", output_stride, frozen=False).eval()


def picture(height: int, width: int) -> Tensor:
    """Blocks of color: (3, H, W) uint8."""
    generator = torch.Generator().manual_seed(1)
    blocks = torch.rand(3, -(-height // 16), -(-width // 16), generator=generator)
    blocks = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :height, :width]
    return (255 * blocks).byte()


@torch.inference_mode()
@pytest.mark.parametrize("name", NETWORKS)
def test_the_surroundings_hold_the_field_of_view(name: str) -> None:
    torch.manual_seed(0)
    net: Any = NETWORKS[name]()
    pixels = torch.randn(1, 3, 32, 1088)
    whole = net.eval()(pixels)
    for number in range(3):
        maps = in_tiles(lambda part, n=number: net(part)[n], pixels, tile=320)
        largest = whole[number].abs().max()
        assert (maps - whole[number]).abs().max() < 1e-4 * largest


@torch.inference_mode()
@pytest.mark.parametrize(("height", "width"), [(128, 1216), (97, 1203)])
def test_cams_of_tiles_have_one_maximum_and_are_the_wholes(height: int, width: int) -> None:
    model = Classifier(backbone(), 4).eval()
    image, tags = picture(height, width), (0, 3)
    maps = [
        scale_maps(
            multi_scale_cams(
                model.cams, model.backbone.normalization, image, tags, (0.5, 1.0), True, tile=tile
            ),
            tags,
            {},
        )
        for tile in (0, TILE)
    ]
    assert maps[1].amax((1, 2)).tolist() == pytest.approx([1, 1], abs=1e-3)
    assert (maps[0] - maps[1]).abs().max() < 1e-3


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["affinity", "enlarged", "boundary", "features"])
def test_affinities_of_tiles_are_the_wholes(kind: str) -> None:
    nets = {
        "affinity": lambda: AffinityNet(backbone()),
        "enlarged": lambda: AffinityNet(backbone(), scale=2),
        "features": lambda: FeatureNet(backbone()),
        "boundary": lambda: BoundaryNet(backbone()),
    }
    model = nets[kind]().eval()
    image, place = picture(96, 1216).permute(1, 2, 0), torch.device("cpu")
    whole = image_affinity(model, image, place).float()
    tiled = image_affinity(model, image, place, TILE).float()
    assert whole.shape == tiled.shape
    # Group normalization of the boundary head averages over what it sees.
    allowed = 0.2 if kind == "boundary" else 2e-3  # of float16, 1e-3
    assert (whole - tiled).abs().max() < allowed


@torch.inference_mode()
@pytest.mark.parametrize("flip", [False, True])
def test_predictions_of_tiles_are_the_wholes(flip: bool) -> None:
    body = backbone()
    net = SegmentationNet(LargeFov(body, body.channels[-1], 3), body.normalization, 1, True).eval()
    image = picture(96, 1184)
    whole = segment(net, image, (0.5, 1.0), flip)
    tiled = segment(net, image, (0.5, 1.0), flip, TILE)
    assert (whole - tiled).abs().max() < 1e-3
    assert (whole.argmax(0) == tiled.argmax(0)).double().mean() > 0.999
