"""Networks for images of other than three channels: first layer, normalization, on disk."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models import adapt_input_conv
from torch import nn

from affinitynet.models.affinity_net import AffinityNet, build_affinity_net, describe_affinity_net
from affinitynet.models.backbone import TimmBackbone, build_backbone
from affinitynet.models.classifier import Classifier, build_classifier, describe_classifier
from affinitynet.models.contrast import PatchNetwork
from affinitynet.models.export import Predictor
from affinitynet.models.first_layer import adapt_weight
from affinitynet.models.resnet38 import ResNet38
from affinitynet.models.saved import save_model
from affinitynet.models.segmenter import Segmenter, build_segmentation_net, describe_segmenter
from affinitynet.models.vgg16 import VGG16
from affinitynet.models.weights import load_backbone
from affinitynet.ops.normalization import CAFFE_BGR, IMAGENET
from affinitynet.run_folder.settings import (
    AffinitySettings,
    BackboneSettings,
    ClassifierSettings,
    SegmenterSettings,
)
from affinitynet.run_folder.settings_base import InputSettings

MEAN, STD = (10.0, 20.0, 30.0, 40.0, 50.0), (5.0, 6.0, 7.0, 8.0, 9.0)
FIVE = InputSettings(channels=5, low=(0.0,), high=(4095.0,), mean=MEAN, std=STD)
SMALL = BackboneSettings(name="test_resnet", weights="none", input=FIVE)
CLASSES = ("cat", "dog")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 12])
def test_the_first_layer_is_timms(channels: int) -> None:
    weight = torch.randn(8, 3, 3, 3)
    adapted = adapt_weight(weight, channels)
    torch.testing.assert_close(adapted, adapt_input_conv(channels, weight.clone()))
    if channels % 3 == 0:  # as many like channels excite it as three did
        gray = torch.randn(1, 1, 9, 9)
        before = nn.functional.conv2d(gray.expand(-1, 3, -1, -1), weight)
        after = nn.functional.conv2d(gray.expand(-1, channels, -1, -1), adapted)
        torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def first_convolution(module: nn.Module) -> nn.Conv2d:
    return next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize(
    ("make", "bgr"),
    [
        (lambda channels: ResNet38(1 / 16, channels), False),
        (lambda channels: VGG16(width=1 / 16, channels=channels), True),
        (lambda channels: TimmBackbone("test_resnet", 8, channels=channels), False),
    ],
)
def test_weights_of_rgb_go_into_networks_of_more_channels(make: Any, bgr: bool, tmp_path) -> None:
    rgb = make(3)
    save_file(
        {k: v.clone().contiguous() for k, v in rgb.state_dict().items()},
        tmp_path / "rgb.safetensors",
    )
    wide = make(5)
    assert load_backbone(wide, tmp_path / "rgb.safetensors").missing == ()
    own, given = first_convolution(wide).weight, first_convolution(rgb).weight
    # The first of five channels is red, which BGR networks take last.
    order = [2, 1, 0, 2, 1] if bgr else [0, 1, 2, 0, 1]
    torch.testing.assert_close(own, given[:, order] * 0.6)
    maps = wide(torch.zeros(1, 5, 32, 32))
    assert [m.shape[1] for m in maps] == list(wide.channels)


def test_the_first_layer_learns_where_it_was_taught_other_channels(tmp_path: Path) -> None:
    rgb = TimmBackbone("test_resnet", 8)
    save_file(
        {k.removeprefix("net."): v.clone() for k, v in rgb.state_dict().items()},
        tmp_path / "rgb.safetensors",
    )
    file = str(tmp_path / "rgb.safetensors")
    wide: Any = build_backbone(BackboneSettings(name="test_resnet", weights=file, input=FIVE), 8)
    plain: Any = build_backbone(BackboneSettings(name="test_resnet", weights=file), 8)
    assert first_convolution(wide).weight.requires_grad
    assert not first_convolution(plain).weight.requires_grad


def test_the_datas_mean_and_deviation_become_those_of_photographs() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.tensor(MEAN).view(-1, 1, 1), torch.tensor(STD).view(-1, 1, 1)
    pixels = mean + std * torch.randn(5, 200, 200, generator=generator)
    for base, spread in ((IMAGENET, 1.0), (CAFFE_BGR, 57.6)):
        own = base.of_data(MEAN, STD)
        normalized = own.apply(pixels)
        assert normalized.mean((1, 2)).tolist() == pytest.approx([0] * 5, abs=0.02 * spread)
        assert normalized.std((1, 2)).tolist() == pytest.approx([spread] * 5, rel=0.02)
        torch.testing.assert_close(own.invert(normalized), pixels, atol=1e-3, rtol=1e-4)
    # Three channels stay blue first where the network wants them so.
    assert CAFFE_BGR.of_data(MEAN[:3], STD[:3]).bgr


def test_networks_on_disk_take_the_same_channels_and_numbers(tmp_path: Path) -> None:
    settings = ClassifierSettings(output_stride=8)
    model = build_classifier(SMALL, settings, CLASSES)
    save_model(tmp_path / "c", model, describe_classifier(SMALL, settings, CLASSES))
    again: Any = Classifier.load(tmp_path / "c")
    usual = TimmBackbone("test_resnet", 8).normalization
    assert again.backbone.normalization == usual.of_data(MEAN, STD)
    images = torch.randn(1, 5, 32, 32)
    assert again(images).shape == (1, 2)

    affinity = AffinitySettings()
    net = build_affinity_net(SMALL, affinity)
    save_model(tmp_path / "a", net, describe_affinity_net(SMALL, affinity))
    assert AffinityNet.load(tmp_path / "a")(images).shape == (1, 34, 4, 4)
    boundary = build_affinity_net(SMALL, AffinitySettings(source="boundary"))
    assert boundary(images).shape[2:] == (8, 8)
    patches = PatchNetwork(build_backbone(SMALL, 32), (8, 16))
    assert patches(images).shape[2:] == (4, 4)


@pytest.mark.parametrize("architecture", ["unet", "largefov"])
def test_a_segmenter_reads_and_predicts_as_it_was_trained(tmp_path: Path, architecture) -> None:
    settings = SegmenterSettings(architecture=architecture, scales=(1.0,), refine=True)
    net = build_segmentation_net(settings, SMALL, 3)
    save_model(tmp_path, net, describe_segmenter(SMALL, settings, CLASSES))
    segmenter = Segmenter.load(tmp_path)
    assert segmenter.reading == FIVE
    pixels = torch.randint(0, 256, (48, 40, 5), dtype=torch.uint8).numpy()
    assert segmenter.predict(pixels).shape == (48, 40)
    with torch.inference_mode():
        graph = Predictor(segmenter.net, (1.0,), True)(torch.from_numpy(pixels)[None])[1][0]
        torch.testing.assert_close(
            graph, segmenter.scores(torch.from_numpy(pixels)), atol=1e-4, rtol=1e-3
        )
