"""CAMs times the class token's attention, against the attention written out at a tiny width."""

import math
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.models.attention import attended_cams, check_class_token
from affinitynet.models.classifier import Classifier
from affinitynet.models.transformer import TransformerBackbone
from affinitynet.stages.compute_cams import multi_scale_cams

VIT: dict[str, Any] = {"embed_dim": 24, "depth": 5, "num_heads": 2}


def tiny(name: str) -> Classifier:
    if not timm.is_model(name):
        pytest.skip(f"{name} came with a later timm")
    torch.manual_seed(0)
    return Classifier(TransformerBackbone(name, options=VIT), 3).eval()


def attend(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """A block of a ViT written out: its output, and its attention (B, heads, N, N)."""
    y = block.norm1(x)
    batch, count, width = y.shape
    size = width // block.attn.num_heads
    qkv = y @ block.attn.qkv.weight.T + block.attn.qkv.bias
    q, k, v = qkv.view(batch, count, 3, -1, size).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-1, -2) / math.sqrt(size)).softmax(-1)
    mixed = (weights @ v).transpose(1, 2).reshape(batch, count, width)
    x = x + mixed @ block.attn.proj.weight.T + block.attn.proj.bias
    hidden = nn.functional.gelu(block.norm2(x) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias)
    return x + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias, weights


def wider(model: Classifier) -> None:
    """Weights whose attention is far from even, which fresh ones are not."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "attn.qkv.weight" in name:
                value *= 20


def test_the_maps_are_those_of_a_forward_pass_written_out() -> None:
    model = tiny("vit_tiny_patch16_224")
    wider(model)
    net: Any = model.backbone.net
    images = torch.randn(2, 3, 224, 224)  # its own size: the embedded positions as they are
    with torch.no_grad():
        tokens = net.patch_embed.proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([net.cls_token.expand(2, -1, -1), tokens], 1) + net.pos_embed
        attentions = []
        for block in net.blocks:
            x, weights = attend(block, x)
            attentions.append(weights.mean(1)[:, 0, 1:])
        patches = net.norm(x)[:, 1:] @ model.head.class_weights.T  # (B, N, C)
        attention = sum(attentions[2:], torch.zeros(2, 196)) / 3
        assert attention.std() > 0.2 * attention.mean()  # there is something to see
        expected = patches.relu() * attention[..., None] * 196
        found = attended_cams(model, images)
    expected = expected.transpose(1, 2).view(2, 3, 14, 14)
    assert expected.max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "deit_tiny_distilled_patch16_224",
        "vit_small_patch14_reg4_dinov2",
        "vit_small_patch16_dinov3",
        "vit_base_patch16_clip_224",
        "eva02_tiny_patch14_224",
    ],
)
def test_attention_is_what_a_network_without_the_fused_kernel_computes(name: str) -> None:
    """With registers, a distilling token and turned positions, at any size and in batches."""
    model = tiny(name)
    wider(model)
    backbone: Any = model.backbone
    images = torch.randn(2, 3, 61, 90)
    with torch.no_grad():
        found = attended_cams(model, images)
        # After it: it turns the fused kernel on.
        seen: list[Tensor] = []
        for block in backbone.net.blocks[-3:]:
            block.attn.fused_attn = False
            block.attn.attn_drop.register_forward_hook(lambda *given: seen.append(given[2]))
        cams = model.cams(images)
    rows, columns = cams.shape[-2:]
    attention = torch.stack(seen).mean((0, 2))[:, 0, -rows * columns :]
    expected = cams * attention.view(2, 1, rows, columns) * rows * columns
    assert expected.max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_an_even_attention_changes_nothing() -> None:
    model = tiny("deit3_small_patch16_224")
    with torch.no_grad():
        for block in model.backbone.net.blocks:  # type: ignore[union-attr]
            block.attn.qkv.weight.zero_()
            block.attn.qkv.bias.zero_()
        images = torch.randn(1, 3, 48, 64)
        # The class token has its share: of 13 tokens each has a 13th.
        torch.testing.assert_close(attended_cams(model, images), model.cams(images) * 12 / 13)


def test_scales_and_flips_are_summed_as_of_any_cam() -> None:
    model = tiny("vit_tiny_patch16_224")
    image = torch.randint(0, 256, (3, 61, 80), dtype=torch.uint8)
    normalization: Any = model.backbone.normalization
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        maps = multi_scale_cams(
            lambda images: attended_cams(model, images),
            normalization,
            image,
            (2, 0),
            (0.5, 1.0),
            flip=True,
            multiple=16,
        )
    assert maps.shape == (2, 61, 80)
    assert maps.isfinite().all()
    assert maps.max() > 0


@pytest.mark.parametrize(
    "name",
    ["resnet50", "vgg16", "pvt_v2_b0", "swin_tiny_patch4_window7_224", "test_vit2"],
)
def test_what_has_no_class_token_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"attention: {name} has no class token; take a plain"):
        check_class_token(name)
    check_class_token("test_vit")
