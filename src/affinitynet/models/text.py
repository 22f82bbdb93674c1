"""Maps by text: what of an image's patches speaks for a class's words, by a CLIP tower."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.models.backbone import build_backbone
from affinitynet.models.transformer import multiple_of
from affinitynet.run_folder.backbone_names import transformer_kind
from affinitynet.run_folder.settings import BackboneSettings

_AGAIN = "make it again with examples/text_embeddings.py"


class Texts(NamedTuple):
    """Embedded texts of length one: of classes (C, D) and background words (N, D); their scale."""

    classes: Tensor
    background: Tensor
    scale: float


class TextTower(nn.Module):
    """A CLIP tower with its last layer, and the texts that its images are compared with.

    Nothing of it learns.
    """

    classes: Tensor
    background: Tensor

    def __init__(self, settings: BackboneSettings, texts: Texts, *, data: Path | None = None):
        """Make the tower that a recipe's `backbone` names (`check_tower`), with its weights.

        Raises:
            UserError: weights that can't be found, read or fitted, or lack the last layer.
        """
        super().__init__()
        head = texts.classes.shape[1]
        self.backbone = cast(nn.Module, build_backbone(settings, None, data=data, head=head))
        self.scale = texts.scale
        self.register_buffer("classes", texts.classes)
        self.register_buffer("background", texts.background)
        self.requires_grad_(False)

    def cams(self, images: Tensor, tags: Sequence[int]) -> Tensor:
        """Return rectified gradient-weighted maps of the K classes of an image's tags.

        p = softmax over the K classes' and the background's texts of scale * cos(image, text), and
        M_k(i) = max(0, sum_d a_kd f_d(i)) with a_kd = sum_j dp_k / df_d(j) / (p_k (1 - p_k)):
        GradCAM, of the patches i and j as the last block's first norm gives them.

        The divisor makes it the slope of the log odds, and is one number for an image: divided by
        its maximum a map is the same, but does not vanish where p is all but 1. Nor does it matter
        that the paper has the mean over patches: so scales and tiles count alike.

        Args:
            images: (B, 3, H, W), normalized, of whole patches.
            tags: K classes. Those that an image lacks don't compete.

        Returns:
            (B, K, h, w), not normalized.

        Source: Lin et al., CLIP is Also an Efficient Segmenter, CVPR 2023 (the layer: its code),
        without its affinities of attention.
        """
        net: Any = self.backbone.net
        found: list[Tensor] = []

        def begin(*given: Any) -> Tensor:  # of the graph: all before it needs no gradient
            found.append(given[-1].detach().requires_grad_())
            return found[0]

        # What is made in inference mode has no gradient, but a copy may.
        with torch.inference_mode(False), torch.enable_grad():
            hook = net.blocks[-1].norm1.register_forward_hook(begin)
            try:
                embedded = F.normalize(net(images.clone()).float(), dim=-1)
            finally:
                hook.remove()
            texts = torch.cat([self.classes[list(tags)], self.background])
            # No matrix product, here and below: in half precision a scale of 100 would blur it.
            cosines = (embedded[:, None] * texts).sum(-1)
            logits = self.scale * cosines
            slopes: list[Tensor] = []
            for k in range(len(tags)):
                others = torch.cat([logits[:, :k], logits[:, k + 1 :]], 1)
                odds = (logits[:, k] - others.logsumexp(1)).sum()
                slopes += torch.autograd.grad(odds, found, retain_graph=True)
        first = net.num_prefix_tokens  # of the patches; the class token stands before them
        patches = found[0].detach()[:, first:].float()
        weights = [slope[:, first:].float().sum(1, keepdim=True) for slope in slopes]
        maps = torch.stack([(patches * weight).sum(-1) for weight in weights], 1).relu()
        side = multiple_of(self.backbone)
        return maps.view(*maps.shape[:2], images.shape[-2] // side, images.shape[-1] // side)


def read_texts(file: Path, classes: Sequence[str]) -> Texts:
    """Read embedded texts: `class/NAME`, `background/WORD` (D,) and `scale` (1,), all float32.

    Texts of classes that the data set lacks are left out.

    Raises:
        UserError: no safetensors file, a class without text, no background, or rows that don't fit.
    """
    try:
        rows = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: can't be read as safetensors ({error}); {_AGAIN}") from error
    words = sorted(key for key in rows if key.startswith("background/"))
    wanted = [f"class/{name}" for name in classes]
    for key in ("scale", *wanted, *(words or ["background/WORD"])):
        if key not in rows:
            raise UserError(f"{file}: has no row {key}; {_AGAIN}")
    size = (1,), rows[wanted[0]].shape
    for key in ("scale", *wanted, *words):
        row, shape = rows[key], size[key != "scale"]
        if row.dtype != torch.float32 or row.shape != shape or not _is_direction(row):
            raise UserError(
                f"{file}: {key} is {tuple(row.shape)} of {str(row.dtype).removeprefix('torch.')}, "
                f"not {tuple(shape)} of finite float32 that are not all 0; {_AGAIN}"
            )
    embedded = [F.normalize(torch.stack([rows[key] for key in keys])) for keys in (wanted, words)]
    return Texts(embedded[0], embedded[1], float(rows["scale"]))


def _is_direction(row: Tensor) -> bool:
    return row.ndim == 1 and bool(row.isfinite().all() and row.any())


def check_tower(settings: BackboneSettings, texts: Texts, file: Path) -> None:
    """Refuse a backbone that is no CLIP tower, or whose images have other numbers than the texts.

    Raises:
        UserError: which, and what to take.
    """
    name, size = settings.name, texts.classes.shape[1]
    example = "such as vit_base_patch16_clip_quickgelu_224.openai"
    if not name.startswith("vit_") or "_clip_" not in name or transformer_kind(name) != "plain":
        raise UserError(
            f"cams.source = text: {name} is no CLIP tower; take one of timm's, {example}"
        )
    # What timm downloads for a name without a tag is often a classifier of ImageNet.
    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if settings.weights == "imagenet" and known is not None and known.num_classes != size:
        raise UserError(
            f"backbone.name = {name!r}: its images have {known.num_classes} numbers, the texts of "
            f"{file} {size}; name the tower that the texts belong to with its tag, {example}"
        )
