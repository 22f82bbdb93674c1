"""Maps by text against GradCAM written out, and what is said of texts and towers that don't fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

import affinitynet as an
from affinitynet.errors import UserError
from affinitynet.models.text import Texts, TextTower, check_tower, read_texts
from affinitynet.run_folder.settings import BackboneSettings
from affinitynet.stages.compute_cams import multi_scale_cams

SIZE = 8  # numbers of an image and a text
CLIP = BackboneSettings(name="vit_base_patch16_clip_quickgelu_224", weights="none")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    create, width = timm.create_model, {"embed_dim": 24, "depth": 3, "num_heads": 2}
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, **{**k, **width}))


def rows(*classes: str) -> dict[str, Tensor]:
    torch.manual_seed(1)
    keys = [*(f"class/{name}" for name in classes), "background/sky", "background/grass"]
    return {"scale": torch.tensor([20.0])} | {key: torch.randn(SIZE) for key in keys}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Tensor]], Path]:
    def write(content: dict[str, Tensor]) -> Path:
        save_file(content, tmp_path / "texts.safetensors")
        return tmp_path / "texts.safetensors"

    return write


def tower(texts: Texts) -> TextTower:
    torch.manual_seed(0)
    made = TextTower(CLIP, texts).eval()
    with torch.no_grad():
        for value in made.parameters():
            value += 0.1 * torch.randn_like(value)  # fresh biases are 0
    return made


def image_of(net: Any, tokens: Tensor, x: Tensor) -> Tensor:
    """The last block and the head, from the block's normed tokens (1 + N, D) on; one image."""
    block = net.blocks[-1]
    size = tokens.shape[-1] // 2  # of a head
    q, k, v = (tokens @ block.attn.qkv.weight.T + block.attn.qkv.bias).chunk(3, -1)
    heads = []
    for part in (slice(0, size), slice(size, None)):
        weights = (q[:, part] @ k[:, part].T / size**0.5).softmax(-1)
        heads.append(weights @ v[:, part])
    x = x + torch.cat(heads, -1) @ block.attn.proj.weight.T + block.attn.proj.bias
    hidden = block.norm2(x) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
    hidden = hidden * torch.sigmoid(1.702 * hidden)  # CLIP's GELU
    x = x + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
    return net.norm(x)[0] @ net.head.weight.T + net.head.bias


def test_the_maps_are_those_of_gradcam_written_out(
    write: Callable[[dict[str, Tensor]], Path],
) -> None:
    content = rows("cat", "dog", "cow")
    model = tower(read_texts(write(content), ("cat", "dog", "cow")))
    net: Any = model.backbone.net
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():  # as the stage calls it
        found = model.cams(images, (2, 0))
    assert found.shape == (2, 2, 14, 14)
    texts = [content[key] for key in ("class/cow", "class/cat", "background/grass")]
    texts.append(content["background/sky"])
    for image, maps in zip(images, found, strict=True):
        x = net.patch_embed.proj(image[None]).flatten(2).transpose(1, 2)[0]
        x = net.norm_pre(torch.cat([net.cls_token[0], x]) + net.pos_embed[0])
        for block in net.blocks[:-1]:
            x = block(x[None])[0]
        tokens = net.blocks[-1].norm1(x).detach().requires_grad_()
        embedded = image_of(net, tokens, x)
        cosines = torch.stack([torch.cosine_similarity(embedded, text, dim=0) for text in texts])
        likely = (20 * cosines).softmax(0)
        for label in (0, 1):
            slope = torch.autograd.grad(likely[label], tokens, retain_graph=True)[0]
            expected = (tokens[1:] * slope[1:].sum(0)).sum(-1).relu().view(14, 14)
            assert expected.max() > 0
            expected = expected / (likely[label] * (1 - likely[label]))
            torch.testing.assert_close(maps[label], expected.detach(), rtol=1e-3, atol=1e-6)


def test_maps_do_not_vanish_where_the_tower_is_sure(
    write: Callable[[dict[str, Tensor]], Path],
) -> None:
    content = rows("cat", "dog")
    texts = read_texts(write(content), ("cat", "dog"))
    images = torch.randn(1, 3, 32, 48)
    sure = tower(texts._replace(scale=1e4)).cams(images, [0, 1])
    assert (sure.amax((2, 3)) > 1).any()


def test_only_the_image_s_own_tags_compete(write: Callable[[dict[str, Tensor]], Path]) -> None:
    content = rows("cat", "dog")
    both = tower(read_texts(write(content), ("cat", "dog")))
    alone = tower(read_texts(write(content), ("dog",)))  # the file may hold other classes
    images = torch.randn(1, 3, 48, 32)
    torch.testing.assert_close(both.cams(images, [1]), alone.cams(images, [0]))
    assert not torch.allclose(both.cams(images, [1]), both.cams(images, [0, 1])[:, 1:])


def test_scales_flips_and_half_precision(write: Callable[[dict[str, Tensor]], Path]) -> None:
    model = tower(read_texts(write(rows("cat", "dog")), ("cat", "dog")))
    image = torch.randint(0, 256, (3, 61, 80), dtype=torch.uint8)
    normalization: Any = model.backbone.normalization
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        maps = multi_scale_cams(
            lambda pixels: model.cams(pixels, [1, 0]),
            normalization,
            image,
            range(2),
            (0.5, 1.0),
            flip=True,
            multiple=16,
        )
    assert maps.shape == (2, 61, 80)
    assert maps.isfinite().all()
    assert not any(value.requires_grad for value in (maps, *model.parameters()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class/dog": None}, "has no row class/dog; make it again with examples/"),
        ({"scale": None}, "has no row scale"),
        ({"background/sky": None, "background/grass": None}, "has no row background/WORD"),
        ({"class/dog": torch.ones(3)}, r"class/dog is \(3,\) of float32, not \(8,\) of finite"),
        ({"class/cat": torch.ones(8).half()}, r"class/cat is \(8,\) of float16"),
        ({"background/sky": torch.full((8,), torch.nan)}, r"background/sky is .* finite"),
        ({"class/cat": torch.zeros(8)}, "class/cat is .* not all 0"),
        ({"class/cat": torch.ones(2, 8)}, r"class/cat is \(2, 8\)"),
        ({"scale": torch.ones(2)}, r"scale is \(2,\) of float32, not \(1,\)"),
    ],
)
def test_texts_that_do_not_fit_are_named(
    change: dict[str, Tensor | None], said: str, write: Callable[[dict[str, Tensor]], Path]
) -> None:
    content = {key: row for key, row in {**rows("cat", "dog"), **change}.items() if row is not None}
    with pytest.raises(UserError, match=said):
        read_texts(write(content), ("cat", "dog"))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts.safetensors").write_text("cat", encoding="utf-8")
    with pytest.raises(UserError, match="can't be read as safetensors"):
        read_texts(tmp_path / "texts.safetensors", ("cat",))


@pytest.mark.parametrize(
    "name",
    ["resnet50", "vit_base_patch16_siglip_224", "eva02_base_patch16_clip_224", "resnet50_clip_gap"],
)
def test_what_is_no_clip_tower_is_refused(name: str) -> None:
    texts = Texts(torch.ones(1, SIZE), torch.ones(1, SIZE), 100.0)
    with pytest.raises(UserError, match=f"text: {name} is no CLIP tower; take one of timm's"):
        check_tower(BackboneSettings(name=name), texts, Path("texts.safetensors"))


def test_weights_of_another_size_are_refused_before_they_are_downloaded() -> None:
    texts = Texts(torch.ones(1, 512), torch.ones(1, 512), 100.0)
    for name, fits in (
        ("vit_base_patch16_clip_224", False),  # ImageNet's thousand classes
        ("vit_large_patch14_clip_quickgelu_224.openai", False),
        ("vit_base_patch16_clip_quickgelu_224.openai", True),
    ):
        settings = BackboneSettings(name=name)
        if fits:
            check_tower(settings, texts, Path("t.safetensors"))
            continue
        with pytest.raises(UserError, match=r"its images have \d+ numbers, the texts .* 512; name"):
            check_tower(settings, texts, Path("t.safetensors"))


def test_weights_without_the_last_layer_are_refused(tmp_path: Path) -> None:
    texts = Texts(torch.ones(1, SIZE), torch.ones(1, SIZE), 100.0)
    state = TextTower(CLIP, texts).backbone.net.state_dict()  # type: ignore[union-attr]
    body = {key: value.contiguous() for key, value in state.items() if "head" not in key}
    save_file(body, tmp_path / "w.safetensors")
    settings = CLIP.model_copy(update={"weights": str(tmp_path / "w.safetensors")})
    with pytest.raises(UserError, match=r"lacks 2 tensors .*head.*; give the file of the whole"):
        TextTower(settings, texts)


def test_a_recipe_by_text_needs_its_file() -> None:
    with pytest.raises(ValueError, match=r"source = text needs embeddings: give cams\.text"):
        an.Recipe.model_validate({"cams": {"source": "text"}})
    with pytest.raises(ValueError, match=r"text"):
        an.Recipe.model_validate({"cams": {"source": "text", "text": "texts.npy"}})
