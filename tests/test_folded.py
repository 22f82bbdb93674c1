"""Batch normalization folded into convolutions: the same answers, and the same weights after."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from affinitynet.folded import folded
from affinitynet.hardware import Hardware, inference
from affinitynet.models.backbone import build_backbone
from affinitynet.models.classifier import Classifier
from affinitynet.models.contrast import PatchNetwork
from affinitynet.models.resnet38 import ResNet38
from affinitynet.models.segmenter import build_segmentation_net
from affinitynet.run_folder.settings import BackboneSettings, SegmenterSettings


def backbone(name: str) -> Any:
    return build_backbone(BackboneSettings(name=name, weights="none"), 16)


def segmentation_net(architecture: str, name: str) -> nn.Module:
    settings = SegmenterSettings(architecture=architecture, norm="trained")
    return build_segmentation_net(settings, BackboneSettings(name=name, weights="none"), 4)


def pre_activated() -> nn.Module:
    # Where the norm stands before the convolution it belongs to, and outputs are added.
    return timm.create_model("resnetv2_50", num_classes=0, global_pool="")


# Norms of a network, and how many of them stand in use right behind a convolution.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "mobilenetv2": (lambda: Classifier(backbone("mobilenetv2_100"), 3), 52, 52),
    "resnet": (lambda: backbone("resnet18"), 20, 20),
    "patches": (lambda: PatchNetwork(backbone("mobilenetv2_100"), (8, 16)), 52, 39),
    "deeplabv3plus": (lambda: segmentation_net("deeplabv3plus", "mobilenetv2_100"), 60, 60),
    "unet": (lambda: segmentation_net("unet", "resnet18"), 30, 30),
    "resnet38": (lambda: ResNet38(1 / 16), 37, 20),
    "pre-activated": (pre_activated, 49, 32),
    "vgg16": (lambda: backbone("vgg16"), 0, 0),
}


def with_statistics(network: nn.Module) -> nn.Module:
    """Give the norms something to do: fresh ones take 0 from everything and divide it by 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


def norms_of(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def answers(network: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        found = network(images)
    return list(found) if isinstance(found, list | tuple) else [found]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_network_gives_the_same(name: str) -> None:
    torch.manual_seed(0)
    make, norms, behind = NETWORKS[name]
    network = with_statistics(make())
    images = torch.randn(1, 3, 70, 100)
    expected = answers(network, images)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with folded(network):
        changed = [norm for norm in norms_of(network) if "forward" in vars(norm)]
        found = answers(network, images)
    assert (len(norms_of(network)), len(changed)) == (norms, behind)
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * float(other.max() - other.min())
    assert not any("forward" in vars(module) for module in network.modules())
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    for one, other in zip(answers(network, images), expected, strict=True):
        assert torch.equal(one, other)


class Small(nn.Module):
    """A convolution and a norm, and something else that reads the convolution."""

    def __init__(self, read: str) -> None:
        super().__init__()
        self.conv, self.norm, self.read = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), read

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        if self.read == "activated":
            maps = maps.relu()
        normed: Tensor = self.norm(maps)
        if self.read == "norm twice":
            normed = self.norm(normed)
        if self.read == "convolution twice":
            normed = normed + self.conv(images + 1)
        return normed + maps if self.read == "added" else normed


@pytest.mark.parametrize("read", ["activated", "added", "norm twice", "convolution twice"])
def test_only_what_goes_to_one_norm_alone_is_folded(read: str) -> None:
    network, images = with_statistics(Small(read)), torch.randn(1, 3, 4, 4)
    (expected,) = answers(network, images)
    with folded(network):
        assert "forward" not in vars(network.conv)
        assert torch.equal(answers(network, images)[0], expected)
    alone = Small("")
    with folded(alone.eval()):
        assert "forward" in vars(alone.conv)


def test_norms_without_statistics_or_use_are_left_alone() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)).eval()
    layers[0].unused = nn.BatchNorm2d(3)
    with folded(layers):
        assert not any("forward" in vars(module) for module in layers.modules())


def test_inference_folds_where_it_is_asked_to() -> None:
    network = with_statistics(Small(""))
    for fold in (True, False):
        with inference(network, Hardware("cpu", fold=fold)):
            assert ("forward" in vars(network.conv)) is fold
        assert "forward" not in vars(network.conv)
