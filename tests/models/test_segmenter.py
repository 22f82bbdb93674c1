"""The segmentation network: its encoder's weights, any image size, scales and flips."""

from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from affinitynet.errors import UserError
from affinitynet.models.backbone import build_backbone
from affinitynet.models.classifier import Classifier
from affinitynet.models.resnet38 import ResNet38
from affinitynet.models.segmenter import (
    LargeFov,
    SegmentationNet,
    build_segmentation_net,
    load_encoder,
    segment,
)
from affinitynet.models.vgg16 import VGG16
from affinitynet.ops.normalization import CAFFE_BGR, IMAGENET
from affinitynet.run_folder.settings import BackboneSettings, SegmenterSettings
from affinitynet.training import parameter_groups

# test_byobnet's feature network calls `stages.0` `stages_0`, test_resnet's keeps timm's names.
NAMES = ("test_byobnet", "test_resnet")


def classifier(name: str) -> Classifier:
    torch.manual_seed(1)
    return Classifier(build_backbone(BackboneSettings(name=name, weights="none"), 16), 3)


def segmentation_net(name: str, weights: str = "none", **settings: str) -> SegmentationNet:
    torch.manual_seed(2)
    chosen = SegmenterSettings.model_validate({"architecture": "unet", **settings})
    return build_segmentation_net(chosen, BackboneSettings(name=name, weights=weights), 4)


def same_encoder(net: SegmentationNet, model: Classifier) -> bool:
    """Compare by order of layers, not by name: the first convolutions and norms correspond."""
    mine = list(net.network.encoder.parameters())  # type: ignore[union-attr]
    theirs = list(model.backbone.parameters())
    return all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=False))


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_starts_from_a_classifier(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, net = classifier(name), segmentation_net(name)
    assert not same_encoder(net, model)
    load_encoder(net, model.state_dict(), "the classifier")
    assert same_encoder(net, model)
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["", "backbone.net."])
def test_the_encoder_starts_from_a_file(name: str, prefix: str, tmp_path: Path) -> None:
    """A timm file has the network's own names, a file of ours a prefix before them."""
    model = classifier(name)
    tensors = {
        key.replace("backbone.net.", prefix): value.contiguous()
        for key, value in model.state_dict().items()
        if key.startswith("backbone.net.")
    }
    save_file(tensors, tmp_path / "weights.safetensors")
    net = segmentation_net(name, str(tmp_path / "weights.safetensors"))
    assert same_encoder(net, model)


def test_an_incomplete_file_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    tensors = classifier("test_resnet").state_dict()
    del tensors["backbone.net.conv1.0.weight"]
    load_encoder(segmentation_net("test_resnet"), tensors, "w.pth")
    assert "w.pth lacks 1 tensors of the encoder" in capsys.readouterr().err


def test_another_networks_tensors_are_refused() -> None:
    net = segmentation_net("test_resnet")
    with pytest.raises(UserError, match="none of the encoder's tensors"):
        load_encoder(net, {"conv9.weight": torch.zeros(1)}, "w.pth")
    with pytest.raises(UserError, match=r"bn1\.weight has the shape"):
        load_encoder(net, {"bn1.weight": torch.zeros(1)}, "w.pth")


def test_unknown_architectures_and_unfit_backbones_are_named() -> None:
    with pytest.raises(UserError, match="'x': choose largefov or one of"):
        segmentation_net("test_resnet", architecture="x")
    with pytest.raises(UserError, match=r"did you mean deeplabv3plus\?"):
        segmentation_net("test_resnet", architecture="deeplabv3plu")
    with pytest.raises(UserError, match="stands on a timm backbone, not 'resnet38'"):
        segmentation_net("resnet38")


@pytest.mark.parametrize("size", [(1, 1), (33, 70), (64, 64)])
def test_logits_have_the_images_size(size: tuple[int, int]) -> None:
    net = segmentation_net("test_resnet").eval()
    assert net(torch.zeros(2, 3, *size)).shape == (2, 4, *size)


@torch.inference_mode()
def test_scales_and_flips_are_averaged() -> None:
    net = segmentation_net("test_resnet").eval()
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)

    plain = net(net.normalization.apply(image[None])).softmax(1)[0]
    torch.testing.assert_close(segment(net, image, [1.0], flip=False), plain)

    mirrored = segment(net, image.flip(-1), [1.0], flip=False).flip(-1)
    torch.testing.assert_close(segment(net, image, [1.0], flip=True), (plain + mirrored) / 2)

    both = segment(net, image, [0.5, 1.0], flip=False)
    half = segment(net, image, [0.5], flip=False)
    torch.testing.assert_close(both, (plain + half) / 2)


@torch.inference_mode()
def test_a_scale_is_a_resized_image_and_resized_probabilities() -> None:
    net = segmentation_net("test_resnet").eval()
    image = torch.randint(0, 256, (3, 45, 63), dtype=torch.uint8)
    small = F.interpolate(
        net.normalization.apply(image[None]),
        (22, 32),  # 22.5 and 31.5, halves to even
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    expected = F.interpolate(net(small).softmax(1), (45, 63), mode="bilinear", align_corners=False)[
        0
    ]
    torch.testing.assert_close(segment(net, image, [0.5], flip=False), expected)


def large_fov(name: str) -> SegmentationNet:
    """DeepLab-LargeFOV of the paper's network at full width, without memory for its weights."""
    settings = SegmenterSettings(architecture="largefov")
    with torch.device("meta"):
        return build_segmentation_net(settings, BackboneSettings(name=name, weights="none"), 21)


def small_large_fov(name: str) -> SegmentationNet:
    """The same a sixteenth as wide, with weights."""
    torch.manual_seed(0)
    encoder = ResNet38(1 / 16) if name == "resnet38" else VGG16(fc6_dilation=12, width=1 / 16)
    network = LargeFov(encoder, encoder.channels[-1], 4)
    return SegmentationNet(network, encoder.normalization, 1, frozen=True).eval()


@pytest.mark.parametrize("name", ["resnet38", "vgg16"])
def test_large_fov_stands_on_the_papers_networks(name: str) -> None:
    net = large_fov(name)
    assert net(torch.zeros(2, 3, 321, 375, device="meta")).shape == (2, 21, 321, 375)
    assert net.normalization == (IMAGENET if name == "resnet38" else CAFFE_BGR)
    assert net.multiple == 1
    holder = net.network.encoder if name == "vgg16" else net.network.head  # type: ignore[union-attr]
    assert holder.fc6.dilation == (12, 12)  # type: ignore[union-attr]
    assert holder.fc6.out_channels == holder.fc7.out_channels == 1024  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "new", "pretrained", "biases"),
    [("resnet38", ["fc6", "fc7", "fc8.score"], 35, 0), ("vgg16", ["score"], 11, 11)],
)
def test_the_layers_of_the_head_learn_ten_times_as_fast(
    name: str, new: list[str], pretrained: int, biases: int
) -> None:
    """VGG-16's fc6 and fc7 come with its weights; frozen layers are in no group."""
    net = large_fov(name)
    names = {id(parameter): key for key, parameter in net.named_parameters()}
    groups = {
        (group["rate"], group["weight_decay"]): {names[id(p)] for p in group["params"]}
        for group in parameter_groups(net, SegmenterSettings())
    }
    assert groups.pop((10.0, 5e-4)) == {f"network.head.{layer}.weight" for layer in new}
    assert groups.pop((20.0, 0.0)) == {f"network.head.{layer}.bias" for layer in new}
    assert len(groups.pop((1.0, 5e-4))) == pretrained
    assert len(groups.pop((2.0, 0.0), ())) == biases
    assert not groups


@pytest.mark.parametrize("name", ["resnet38", "vgg16"])
@torch.inference_mode()
def test_large_fovs_scores_are_brought_to_the_images_size(name: str) -> None:
    net = small_large_fov(name)
    images = torch.randn(2, 3, 33, 41)
    scores = net.network.head(net.network.encoder(images)[-1])  # type: ignore[operator, union-attr]
    assert scores.shape == (2, 4, 5, 6)
    expected = F.interpolate(scores, (33, 41), mode="bilinear", align_corners=False)
    torch.testing.assert_close(net(images), expected)
    assert net(images[:, :, :1, :1]).shape == (2, 4, 1, 1)


def test_large_fov_keeps_the_encoders_statistics_in_training() -> None:
    net = small_large_fov("resnet38").train()
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    assert net.network.head.training  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("weights", "norm", "frozen"),
    [("none", "frozen", False), ("imagenet", "frozen", True), ("imagenet", "trained", False)],
)
def test_pretrained_encoders_keep_their_statistics(
    weights: str, norm: Literal["frozen", "trained"], frozen: bool
) -> None:
    settings = SegmenterSettings(architecture="unet", norm=norm)
    backbone = BackboneSettings(name="test_resnet", weights=weights)
    net = build_segmentation_net(settings, backbone, 4, pretrained=False).train()
    encoder, decoder = net.network.encoder, net.network.decoder
    for part, still in ((encoder, frozen), (decoder, False)):
        norms = [m for m in part.modules() if isinstance(m, torch.nn.BatchNorm2d)]  # type: ignore[union-attr]
        assert norms
        assert all(norm.training is not still for norm in norms)
        assert norms[-1].weight.requires_grad is not still
    # With trained normalization the layers up to stride 4 follow the images, but don't learn.
    learns = {name for name, p in encoder.named_parameters() if p.requires_grad}  # type: ignore[union-attr]
    first, deep = "model.conv1.0.weight", "model.layer2.0.conv1.weight"
    assert deep in learns
    assert (first in learns) is (norm == "frozen" or weights == "none")
