"""Transformers behind the backbone contract, at tiny widths, against forward passes of their own.

No pretrained weights are read here: what is tested is what is done with any.
"""

import math
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import affinitynet as an
from affinitynet.errors import UserError
from affinitynet.models import backbone as backbones
from affinitynet.models.backbone import TimmBackbone, build_backbone, every_map, say_license
from affinitynet.models.classifier import Classifier
from affinitynet.models.contrast import PatchNetwork
from affinitynet.models.dense_heads import Dpt
from affinitynet.models.segmenter import build_segmentation_net, load_encoder
from affinitynet.models.transformer import TransformerBackbone
from affinitynet.run_folder.backbone_names import transformer_kind
from affinitynet.run_folder.settings import BackboneSettings, SegmenterSettings, TrainingSettings
from affinitynet.stages.compute_cams import multi_scale_cams
from affinitynet.training import layers_before_the_last, parameter_groups

VIT: dict[str, Any] = {"embed_dim": 24, "depth": 4, "num_heads": 2}
SWIN: dict[str, Any] = {"embed_dim": 12, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)}
# The names that docs/backbones.md lists as tried, at a width that takes no time.
TRIED: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": VIT,
    "deit_tiny_patch16_224": VIT,
    "deit_tiny_distilled_patch16_224": VIT,
    "deit3_small_patch16_224": VIT,
    "vit_small_patch14_dinov2": VIT,
    "vit_small_patch14_reg4_dinov2": VIT,
    "vit_small_patch16_dinov3": VIT,
    "vit_base_patch16_clip_224": VIT,
    "vit_base_patch16_siglip_224": VIT,
    "eva02_tiny_patch14_224": VIT,
    "swin_tiny_patch4_window7_224": SWIN,
    "swinv2_tiny_window8_256": SWIN,
    "pvt_v2_b0": {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 2)},
}


def tiny(name: str) -> TransformerBackbone:
    if not timm.is_model(name):
        pytest.skip(f"{name} came with a later timm")
    torch.manual_seed(0)
    return TransformerBackbone(name, options=TRIED[name]).eval()


@pytest.mark.parametrize("name", TRIED)
def test_each_is_made_learns_a_step_and_gives_a_cam(name: str) -> None:
    backbone = tiny(name)
    model = Classifier(backbone, 2).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, TrainingSettings(optimizer="adamw")))
    images = torch.randn(2, 3, 75, 50)  # no multiple of a patch
    before = {key: value.clone() for key, value in model.named_parameters()}
    loss = nn.functional.binary_cross_entropy_with_logits(model(images), torch.eye(2))
    loss.backward()
    optimizer.step()
    assert math.isfinite(loss.item())
    moved = [key for key, value in model.named_parameters() if not torch.equal(value, before[key])]
    assert any("net." in key for key in moved)
    assert "head.fc.weight" in moved
    maps = backbone(images)
    for features, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert features.shape == (2, channels, -(-75 // stride), -(-50 // stride))
    cam = multi_scale_cams(
        model.eval().cams,
        backbone.normalization,
        torch.randint(0, 256, (3, 61, 80), dtype=torch.uint8),
        (0, 1),
        (0.5, 1.0),
        flip=True,
        multiple=backbone.multiple,
    )
    assert cam.shape == (2, 61, 80)
    assert cam.isfinite().all()
    assert (cam >= 0).all()


def attended(block: Any, x: Tensor) -> Tensor:
    """One block of a plain ViT, written out: x + attention(norm(x)), then + mlp(norm(x))."""
    y = block.norm1(x)
    batch, count, width = y.shape
    heads = block.attn.num_heads
    qkv = y @ block.attn.qkv.weight.T + block.attn.qkv.bias
    q, k, v = qkv.view(batch, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-1, -2) / math.sqrt(width // heads)).softmax(-1)
    mixed = (weights @ v).transpose(1, 2).reshape(batch, count, width)
    x = x + mixed @ block.attn.proj.weight.T + block.attn.proj.bias
    hidden = nn.functional.gelu(block.norm2(x) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias)
    return x + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias


def test_the_maps_are_those_of_a_forward_pass_written_out() -> None:
    backbone = tiny("vit_tiny_patch16_224")
    net = backbone.net
    images = torch.randn(1, 3, 224, 224)  # its own size: the embedded positions as they are
    with torch.no_grad():
        weight, bias = net.patch_embed.proj.weight, net.patch_embed.proj.bias
        patches = images.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5)
        tokens = patches.reshape(1, 14 * 14, 3 * 256) @ weight.flatten(1).T + bias
        x = torch.cat([net.cls_token, tokens], 1) + net.pos_embed
        found = []
        for block in net.blocks:
            x = attended(block, x)
            found.append(net.norm(x)[:, 1:].transpose(1, 2).view(1, 24, 14, 14))
        maps = backbone(images)
    for ours, expected in zip(maps, (found[1], found[2], found[3]), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_an_unknown_name_is_refused_with_those_that_are_near() -> None:
    with pytest.raises(UserError, match=r"'vit_tiny': not resnet38.*timm has convit_tiny"):
        build_backbone(BackboneSettings(name="vit_tiny", weights="none"), None)


def test_registers_and_class_token_are_left_out() -> None:
    backbone = tiny("vit_small_patch14_reg4_dinov2")
    images = torch.randn(1, 3, 28, 42)
    with torch.no_grad():
        tokens = backbone.net.forward_features(images)
        assert tokens.shape[1] == 5 + 6
        expected = tokens[:, 5:].transpose(1, 2).reshape(1, 24, 2, 3)
        torch.testing.assert_close(backbone(images)[-1], expected)


def test_a_norm_behind_the_mean_stands_before_the_maps() -> None:
    """EVA-02 was pretrained on the mean of its patches, whose norm came after it."""
    backbone = tiny("eva02_tiny_patch14_224")
    assert isinstance(backbone.net.norm, nn.Identity)
    with torch.no_grad():
        last = backbone(torch.randn(1, 3, 28, 28))[-1]
    torch.testing.assert_close(last.mean(1), torch.zeros(1, 2, 2), atol=1e-5, rtol=0)


def test_a_pyramid_has_its_own_strides() -> None:
    backbone = tiny("pvt_v2_b0")
    assert backbone.strides == (8, 16, 32)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = every_map(backbone, images)
        assert [features.shape[-1] for features in maps] == [24, 12, 6, 3]
        torch.testing.assert_close(backbone(images)[-1], maps[-1])
        expected = backbone.net.forward_features(images)
    torch.testing.assert_close(maps[-1], expected)


def test_convolutional_networks_of_today_have_a_stride() -> None:
    for name in ("test_convnext", "test_efficientnet"):
        assert transformer_kind(name) is None
        assert TimmBackbone(name, 16).strides == (8, 16, 16)


def test_contrast_takes_the_one_grid_whatever_the_strides_say() -> None:
    network = PatchNetwork(tiny("vit_tiny_patch16_224"), (8, 16)).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 64, 48)).shape[-2:] == (4, 3)
    assert network.channels == (24, 24)
    pyramid = PatchNetwork(tiny("pvt_v2_b0"), (8, 16)).eval()
    assert pyramid.channels == (16, 24)


@pytest.mark.parametrize("name", ["test_vit", "test_vit2"])
def test_dpt_stands_on_plain_transformers(name: str) -> None:
    settings = SegmenterSettings(architecture="dpt", output_stride=None)
    net = build_segmentation_net(settings, BackboneSettings(name=name, weights="none"), 3)
    assert isinstance(net.network, Dpt)
    with torch.no_grad():
        assert net.eval()(torch.randn(1, 3, 97, 131)).shape == (1, 3, 97, 131)
    model = Classifier(build_backbone(BackboneSettings(name=name, weights="none"), None), 2)
    load_encoder(net, model.state_dict(), "the classifier")
    mine = dict(net.network.encoder.model.named_parameters())  # type: ignore[union-attr]
    theirs = dict(model.backbone.net.named_parameters())  # type: ignore[union-attr]
    assert all(torch.equal(value, theirs[key]) for key, value in mine.items() if key in theirs)


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_base_patch16_siglip_224"])
def test_dpt_takes_other_patches_and_no_class_token(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, **{**k, **VIT}))
    settings = SegmenterSettings(architecture="dpt", output_stride=None)
    net = build_segmentation_net(settings, BackboneSettings(name=name, weights="none"), 3)
    with torch.no_grad():
        assert net.eval()(torch.randn(1, 3, 45, 59)).shape == (1, 3, 45, 59)


@pytest.mark.parametrize("name", ["pvt_v2_b0", "swin_tiny_patch4_window7_224"])
def test_segformer_stands_on_pyramids(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, **{**k, **TRIED[name]}))
    settings = SegmenterSettings(architecture="segformer", output_stride=None)
    net = build_segmentation_net(settings, BackboneSettings(name=name, weights="none"), 3)
    with torch.no_grad():
        assert net.eval()(torch.randn(1, 3, 45, 59)).shape == (1, 3, 45, 59)


def test_heads_that_do_not_fit_are_refused_by_name() -> None:
    for name, architecture, head in (
        ("test_vit", "deeplabv3plus", "dpt"),
        ("pvt_v2_b0", "dpt", "segformer"),
    ):
        settings = SegmenterSettings(architecture=architecture, output_stride=None)
        with pytest.raises(UserError, match=f"is a transformer, on which stand {head}"):
            build_segmentation_net(settings, BackboneSettings(name=name, weights="none"), 3)


def test_a_recipe_fits_itself_to_a_transformer() -> None:
    plain = an.Recipe.model_validate({"backbone": {"name": "vit_small_patch16_dinov3"}})
    assert plain.segmenter.architecture == "dpt"
    assert plain.classifier.output_stride is plain.affinity.output_stride is None
    assert an.Recipe.model_validate(plain.model_dump()) == plain
    pyramid = {"backbone": {"name": "pvt_v2_b2"}, "segmenter": {"architecture": "fpn"}}
    assert an.Recipe.model_validate(pyramid).segmenter.architecture == "fpn"
    mixed = {"segmenter": {"backbone": {"name": "pvt_v2_b2"}}}
    recipe = an.Recipe.model_validate(mixed)
    assert (recipe.classifier.output_stride, recipe.segmenter.output_stride) == (16, None)
    assert recipe.segmenter.architecture == "segformer"
    assert an.Recipe().segmenter.architecture == "deeplabv3plus"


def test_a_stride_that_means_nothing_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"affinity\.output_stride = 16: vit_b .* set it to null"):
        an.Recipe.model_validate({"backbone": {"name": "vit_b"}, "affinity": {"output_stride": 16}})
    with pytest.raises(ValueError, match=r"classifier\.output_stride = null: resnet50 needs"):
        an.Recipe.model_validate(
            {"backbone": {"name": "resnet50"}, "classifier": {"output_stride": None}}
        )


def test_layers_learn_more_slowly_the_shallower_they_are() -> None:
    model = Classifier(tiny("vit_tiny_patch16_224"), 2)
    behind = layers_before_the_last(model)
    assert behind["backbone.net.norm.weight"] == 0
    assert behind["backbone.net.blocks.3.mlp.fc1.weight"] == 0  # with the norm behind it
    assert behind["backbone.net.blocks.0.mlp.fc1.weight"] == 3
    assert behind["backbone.net.patch_embed.proj.weight"] == 4
    groups = parameter_groups(model, TrainingSettings(optimizer="adamw", layer_decay=0.5))
    rates = {id(p): group["rate"] for group in groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert rates[id(named["head.fc.weight"])] == 10
    assert rates[id(named["backbone.net.patch_embed.proj.weight"])] == 0.5**4
    assert rates[id(named["backbone.net.blocks.2.attn.proj.bias"])] == 0.5
    with pytest.raises(UserError, match="set layer_decay to 1"):
        layers_before_the_last(nn.Linear(2, 2))


def test_terms_of_their_own_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_said", set())
    if not timm.is_model("vit_small_patch16_dinov3"):
        pytest.skip("DINOv3 came with a later timm")
    said: list[str] = []
    monkeypatch.setattr(backbones, "say", said.append)
    for name in ("vit_small_patch16_dinov3", "vit_small_patch16_dinov3", "mobilenetv2_100"):
        say_license(name)
    assert len(said) == 1
    assert "dinov3-license" in said[0]
