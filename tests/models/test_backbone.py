"""The contract of timm backbones, what is frozen in them, and where weights are looked for."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.models.backbone import TimmBackbone, build_backbone
from affinitynet.models.vgg16 import VGG16
from affinitynet.ops.normalization import Normalization
from affinitynet.run_folder.recipe import find_weights
from affinitynet.run_folder.settings import BackboneSettings

# name: channels of the three maps, and the first layers that are past stride 4
NETWORKS = {
    "test_resnet": ((48, 192, 96), "net.layer2."),
    "test_byobnet": ((64, 128, 256), "net.stages.1."),
    "test_efficientnet": ((32, 48, 256), "net.blocks.2."),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("output_stride", "strides"), [(8, (8, 8, 8)), (16, (8, 16, 16))])
def test_three_maps_of_the_channels_and_strides_it_says(
    name: str, output_stride: int, strides: tuple[int, int, int]
) -> None:
    backbone = TimmBackbone(name, output_stride)
    assert backbone.channels == NETWORKS[name][0]
    assert backbone.strides == strides
    maps = backbone(torch.zeros(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.channels, strides, strict=True)
    ]
    assert backbone.sqrt_cam is False


@pytest.mark.parametrize("size", [(33, 71), (1, 1), (8, 250)])
def test_grids_of_odd_sizes_are_rounded_up(size: tuple[int, int]) -> None:
    maps = TimmBackbone("test_resnet", 16)(torch.zeros(1, 3, *size))
    for features, stride in zip(maps, (8, 16, 16), strict=True):
        assert features.shape[2:] == tuple(-(-n // stride) for n in size)


def test_the_maps_are_the_networks_own_stages() -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone("test_resnet", 8)
    seen: list[Tensor] = []
    for name in ("layer2", "layer3", "layer4"):
        stage = backbone.net.get_submodule(name)
        stage.register_forward_hook(lambda *hooked: seen.append(hooked[2]))
    maps = backbone(torch.randn(1, 3, 40, 48))
    assert seen[0].any()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(maps, seen, strict=True))


def test_the_normalization_is_the_networks_own() -> None:
    config = timm.get_pretrained_cfg("test_resnet")
    assert config is not None
    expected = Normalization(config.mean, config.std, scale=255.0)  # type: ignore[arg-type]
    assert TimmBackbone("test_resnet", 16).normalization == expected
    assert expected.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_layers_are_those_up_to_stride_4_and_all_norms(name: str) -> None:
    backbone = TimmBackbone(name, 16).train()
    norms = {
        f"{path}.{own}"
        for path, module in backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for own, _ in module.named_parameters()
    }
    assert norms
    names = [path for path, _ in backbone.named_parameters()]
    deep = next(i for i, path in enumerate(names) if path.startswith(NETWORKS[name][1]))
    assert deep > 0
    trained = {path for path, p in backbone.named_parameters() if p.requires_grad}
    assert trained == set(names[deep:]) - norms


def test_frozen_norms_keep_their_statistics_in_training() -> None:
    backbone = TimmBackbone("test_resnet", 16)
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    assert backbone.train() is backbone
    assert backbone.training
    assert backbone.net.layer4.training
    backbone(5 * torch.randn(2, 3, 32, 32))
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())


def test_random_weights_are_trained_throughout() -> None:
    backbone = TimmBackbone("test_resnet", 16, frozen=False).train()
    assert all(p.requires_grad for p in backbone.parameters())
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.training for norm in norms)
    before = norms[0].running_mean.clone()  # type: ignore[union-attr]
    backbone(5 + torch.randn(2, 3, 32, 32))
    assert not torch.equal(norms[0].running_mean, before)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETWORKS)
def test_trained_norms_follow_the_images_everywhere_and_learn_in_deep_layers(name: str) -> None:
    frozen, backbone = TimmBackbone(name, 16), TimmBackbone(name, 16, norm="trained").train()
    norms = {
        path: module
        for path, module in backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }
    own = {f"{path}.{n}" for path, norm in norms.items() for n, _ in norm.named_parameters()}
    trained = {path for path, p in backbone.named_parameters() if p.requires_grad}
    names = [path for path, _ in backbone.named_parameters()]
    deep = next(i for i, path in enumerate(names) if path.startswith(NETWORKS[name][1]))
    learnt = {path for path, p in frozen.named_parameters() if p.requires_grad}
    assert trained == learnt | own & set(names[deep:])
    assert own & set(names[:deep])
    assert all(norm.training for norm in norms.values())
    before = {path: norm.running_mean.clone() for path, norm in norms.items()}  # type: ignore[union-attr]
    backbone(5 + torch.randn(2, 3, 64, 64))
    assert not any(torch.equal(norms[path].running_mean, mean) for path, mean in before.items())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet38", "vgg16"])
def test_the_papers_networks_train_no_norm(name: str) -> None:
    settings = BackboneSettings(name=name, weights="none")
    with pytest.raises(UserError, match=rf"norm = 'trained': {name} is the paper's"):
        build_backbone(settings, 8, norm="trained")


@pytest.mark.parametrize(("weights", "trained"), [("none", True), ("imagenet", False)])
def test_weights_none_leaves_nothing_frozen(weights: str, trained: bool) -> None:
    settings = BackboneSettings(name="test_resnet", weights=weights)
    backbone = build_backbone(settings, 16, pretrained=False)
    first = next(backbone.parameters())  # type: ignore[attr-defined]
    assert first.requires_grad is trained


def test_unknown_names_are_said_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"backbone\.name = 'resnet5'.*timm has .*resnet5"):
        TimmBackbone("resnet5", 16)
    with pytest.raises(UserError, match=r"backbone\.name = 'zzz': not resnet38, vgg16 or a timm"):
        build_backbone(BackboneSettings(name="zzz", weights="none"), 16)


@pytest.mark.parametrize(("name", "output_stride"), [("test_vit", 16), ("test_resnet", 4)])
def test_impossible_strides_are_said(name: str, output_stride: int) -> None:
    with pytest.raises(UserError, match=f"backbone.name = '{name}' .* stride {output_stride} "):
        TimmBackbone(name, output_stride)


def test_the_papers_networks_have_no_download() -> None:
    for name in ("resnet38", "vgg16"):
        with pytest.raises(UserError, match=f"'imagenet' has no download for {name}"):
            build_backbone(BackboneSettings(name=name), 8)


def test_fc6_has_the_dilation_asked_for() -> None:
    settings = BackboneSettings(name="vgg16", weights="none")
    for dilation in (1, 4, 12):
        with torch.device("meta"):
            backbone = build_backbone(settings, 8, fc6_dilation=dilation)
        assert isinstance(backbone, VGG16)
        assert backbone.fc6.dilation == backbone.fc6.padding == (dilation, dilation)


def test_weights_are_looked_for_in_the_working_folder_then_beside_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, data = tmp_path / "work", tmp_path / "data"
    work.mkdir()
    data.mkdir()
    monkeypatch.chdir(work)
    (data / "w.pth").touch()
    assert find_weights("w.pth", data) == data / "w.pth"
    with pytest.raises(UserError, match=r"backbone\.weights = 'w\.pth': no such file \(w\.pth\)"):
        find_weights("w.pth", None)
    (work / "w.pth").touch()
    assert find_weights("w.pth", data) == Path("w.pth")
    assert find_weights(str(data / "w.pth"), None) == data / "w.pth"


def test_missing_weights_are_said_with_the_places(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        find_weights("lost.pth", tmp_path)
    assert f"(lost.pth or {tmp_path / 'lost.pth'}); or imagenet, or none" in str(caught.value)
    with pytest.raises(UserError, match=r"lost\.pth"):
        build_backbone(BackboneSettings(name="test_resnet", weights="lost.pth"), 16)


@pytest.mark.parametrize("weights", ["imagenet", "none"])
def test_the_two_words_are_no_files(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / weights).touch()
    assert find_weights(weights, tmp_path) is None


def test_a_weights_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    with pytest.raises(UserError, match="no such file"):
        find_weights("w", tmp_path)
