"""The affinity network: affinities of the head's features, on the grid it says."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from affinitynet.models.affinity_net import AffinityNet
from affinitynet.models.backbone import TimmBackbone
from affinitynet.models.vgg16 import VGG16
from affinitynet.ops.affinity import pairwise_affinity


def network(output_stride: int = 8, **settings: Any) -> AffinityNet:
    """Equal weights for equal strides, whatever the settings."""
    torch.manual_seed(0)
    return AffinityNet(TimmBackbone("test_resnet", output_stride), **settings).eval()


def images(height: int = 40, width: int = 56) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("distance", ["mean", "sum"])
@pytest.mark.parametrize(("radius", "pairs"), [(5, 34), (3, 12)])
def test_affinities_are_those_of_the_heads_features(distance: Any, radius: int, pairs: int) -> None:
    net = network(radius=radius, distance=distance)
    features = net.head(net.backbone(images()))
    affinity = net(images())
    assert affinity.shape == (2, pairs, 5, 7)
    assert torch.equal(affinity, pairwise_affinity(features, radius, distance))
    y, x = 1, 2  # the first pair is that of a cell and its right neighbor
    norm = (features[:, :, y, x] - features[:, :, y, x + 1]).abs().sum(1)
    expected = torch.exp(-norm / (448 if distance == "mean" else 1))
    torch.testing.assert_close(affinity[:, 0, y, x], expected)


@torch.no_grad()
@pytest.mark.parametrize("output_stride", [8, 16])
def test_the_grid_has_stride_8(output_stride: int) -> None:
    net = network(output_stride)
    assert net.stride == 8
    assert net(images(48, 64)).shape[2:] == (6, 8)
    assert net(images(41, 63)).shape[2:] == (6, 8)


@torch.no_grad()
@pytest.mark.parametrize(("scale", "stride"), [(1, 8), (2, 4), (4, 2)])
def test_enlarged_images_make_a_finer_grid(scale: int, stride: int) -> None:
    net = network(scale=scale)
    assert net.stride == stride
    affinity = net(images(16, 24))
    assert affinity.shape[2:] == (16 // stride, 24 // stride)
    large = F.interpolate(
        images(16, 24), (16 * scale, 24 * scale), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(affinity, network()(large))


@torch.no_grad()
def test_vgg16_with_group_norm() -> None:
    torch.manual_seed(0)
    net = AffinityNet(VGG16(fc6_dilation=4, width=1 / 16), group_norm=True).eval()
    affinity = net(images())
    assert net.stride == 8
    assert affinity.shape == (2, 34, 5, 7)
    assert torch.equal(affinity, pairwise_affinity(net.head(net.backbone(images()))))
    assert affinity[:, 0, :, :-1].min() < 0.999
    assert net.head.norm is not None
    assert network().head.norm is None
