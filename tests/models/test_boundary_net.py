"""The boundary network: a frozen backbone, a map of boundaries, affinities on a finer grid."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from affinitynet.models.affinity_net import (
    AffinityNet,
    build_affinity_net,
    image_affinity,
    load_affinity_net,
)
from affinitynet.models.backbone import TimmBackbone, every_map
from affinitynet.models.boundary_net import BoundaryNet, describe_boundary_net
from affinitynet.models.saved import save_model
from affinitynet.models.vgg16 import VGG16
from affinitynet.ops import boundary_affinity
from affinitynet.run_folder.settings import AffinitySettings, BackboneSettings

SMALL = BackboneSettings(name="test_resnet", weights="none")


def network(**settings: Any) -> BoundaryNet:
    torch.manual_seed(0)
    return BoundaryNet(TimmBackbone("test_resnet", 16), **settings).eval()


def images(height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_backbone_gives_a_map_of_each_stride() -> None:
    backbone = TimmBackbone("test_resnet", 16).eval()
    maps = every_map(backbone, images())
    assert [64 // features.shape[2] for features in maps] == [2, 4, 8, 16, 16]
    for features, known in zip(maps[-3:], backbone(images()), strict=True):
        assert torch.equal(features, known)


@torch.no_grad()
def test_the_boundary_is_the_heads_formula_written_out() -> None:
    net = network()
    for norm in net.head.groups:
        torch.nn.init.normal_(norm.weight)  # so that it counts
    mixed = torch.zeros(2, 0, 16, 24)
    maps = every_map(net.backbone, images())  # type: ignore[arg-type]
    for features, reduce, norm in zip(maps, net.head.reduce, net.head.groups, strict=True):
        x = torch.einsum("od,bdhw->bohw", reduce.weight[:, :, 0, 0], features)
        groups = x.reshape(2, 4, -1)
        spread = groups.var(2, correction=0, keepdim=True)
        x = ((groups - groups.mean(2, keepdim=True)) / (spread + 1e-5).sqrt()).view_as(x)
        x = (x * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
        x = F.interpolate(x, (16, 24), mode="bilinear", align_corners=False)
        mixed = torch.cat([mixed, x], 1)
    logits = (mixed * net.head.score.weight[0]).sum(1) + net.head.score.bias
    boundary = net.boundary(images())
    torch.testing.assert_close(boundary, logits.sigmoid(), rtol=1e-4, atol=1e-5)
    assert torch.equal(net(images()), boundary_affinity(boundary, 5))
    assert torch.equal(net(images(), 10), boundary_affinity(boundary, 10))


@torch.no_grad()
@pytest.mark.parametrize(("stride", "scale"), [(4, 1), (8, 1), (2, 2), (4, 2)])
def test_the_grid_has_the_stride_that_it_says(stride: int, scale: int) -> None:
    net = network(stride=stride, scale=scale)
    assert net(images(41, 63)).shape == (2, 34, -(-41 // stride), -(-63 // stride))
    # Padding is the only thing that odd sizes add: a padded image is the same network's answer.
    padded = F.pad(images(41, 63), (0, 1, 0, 23))
    rows, columns = -(-41 // stride), -(-63 // stride)
    assert torch.equal(net.boundary(images(41, 63)), net.boundary(padded)[:, :rows, :columns])


def test_only_the_head_learns_and_the_backbone_keeps_its_statistics() -> None:
    net = network().train()
    before = {name: tensor.clone() for name, tensor in net.backbone.state_dict().items()}
    net(images(), 3).mean().backward()
    learning = {name for name, p in net.named_parameters() if p.requires_grad}
    assert learning
    assert all(name.startswith("head.") for name in learning)
    assert all(p.grad is not None for p in net.head.parameters())
    for name, tensor in net.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@torch.no_grad()
def test_the_papers_networks_give_their_three_maps() -> None:
    net = BoundaryNet(VGG16(fc6_dilation=4, width=1 / 16)).eval()
    assert len(net.head.reduce) == 3
    assert net(images()).shape == (2, 34, 16, 24)


@pytest.mark.parametrize("stride", [None, 8])
def test_it_is_built_from_what_was_saved_alone(tmp_path: Path, stride: Any) -> None:
    settings = AffinitySettings(source="boundary", stride=stride, radius=3, output_stride=16)
    net = build_affinity_net(SMALL, settings).eval()
    save_model(tmp_path, net, describe_boundary_net(SMALL, settings))
    loaded = load_affinity_net(tmp_path)
    assert isinstance(loaded, BoundaryNet)
    assert (loaded.stride, loaded.radius) == (stride or 4, 3)
    image = torch.randint(0, 256, (37, 50, 3), dtype=torch.uint8)
    with torch.no_grad():
        found = image_affinity(loaded, image, torch.device("cpu"))
        assert torch.equal(found, image_affinity(net, image, torch.device("cpu")))
    assert found.shape == (12, -(-37 // loaded.stride), -(-50 // loaded.stride))


@torch.no_grad()
@pytest.mark.parametrize("size", [(40, 56), (41, 63), (44, 52)])
def test_the_papers_affinity_on_a_finer_grid(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = AffinityNet(TimmBackbone("test_resnet", 16), stride=4).eval()
    affinity = net(images(*size))
    assert affinity.shape[2:] == (-(-size[0] // 4), -(-size[1] // 4))
    # Inside, a fine grid says of cells 8 pixels apart much what a coarse one says of neighbors.
    assert 0 < affinity[:, 0, :, :-1].min() <= affinity.max() <= 1
