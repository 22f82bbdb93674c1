"""The segmentation network: its encoder's weights, any image size, scales and flips."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from affinitynet.errors import UserError
from affinitynet.models.backbone import build_backbone
from affinitynet.models.classifier import Classifier
from affinitynet.models.segmenter import (
    SegmentationNet,
    build_segmentation_net,
    load_encoder,
    segment,
)
from affinitynet.recipe import BackboneSettings, SegmenterSettings

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
