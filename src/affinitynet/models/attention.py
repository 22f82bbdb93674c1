"""CAMs times the attention of a plain transformer's class token."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from affinitynet.errors import UserError
from affinitynet.models.classifier import Classifier
from affinitynet.models.transformer import TransformerBackbone
from affinitynet.run_folder.backbone_names import transformer_kind

LAYERS = 3  # the last ones, whose attention counts


def attended_cams(model: Classifier, images: Tensor) -> Tensor:
    """Return the classifier's CAMs times what its class token attends to.

    M_c(i) = CAM_c(i) * N * mean over the last 3 layers and all heads of A(class token, i), of N
    patches i. Times N, so that scales and tiles count alike: an even attention changes nothing,
    whatever the size.

    MCTformer has a class token for each class, and trains them by the tags. timm's pretrained
    transformers have one: its attention is the same for all classes, that of its pretraining, as
    the loss is of the patches alone. The CAM tells the classes apart.

    Args:
        model: on a plain transformer with a class token (`check_class_token`).
        images: (B, 3, H, W), normalized.

    Returns:
        (B, C, h, w) float32, not negative, not normalized.

    Source: Xu et al., Multi-class Token Transformer for Weakly Supervised Semantic Segmentation,
    CVPR 2022, MCTformer-V2 without the affinities of patches (3 layers: its code, run.sh).
    """
    with _ClassTokenRows(model.backbone) as seen:
        cams = model.cams(images)
    height, width = cams.shape[-2:]
    # The patches stand behind class token and registers.
    rows = torch.stack(seen.rows[-LAYERS:]).mean(0)[:, -height * width :]
    return cams.float() * rows.view(-1, 1, height, width) * (height * width)


def check_class_token(name: str) -> None:
    """Refuse a backbone that has no class token; it is looked at without weights.

    Raises:
        UserError: it is no plain transformer, or one that pools its patches.
    """
    if transformer_kind(name) == "plain":
        with torch.device("meta"):  # no memory, no time
            backbone = TransformerBackbone(name)
        if getattr(backbone.net, "cls_token", None) is not None:
            return
    raise UserError(
        f"cams.source = attention: {name} has no class token; take a plain transformer that has "
        "one, such as vit_small_patch16_dinov3 (docs/backbones.md), or cams.source = classifier"
    )


class _ClassTokenRows(TorchFunctionMode):
    """Collects, of each attention in order, the class token's weights: (B, N), mean over heads.

    The fused kernel gives out no weights, and without it they would be N x N for each head:
    gigabytes for a large image. The query and the keys that it is called with are all it takes.
    """

    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.rows: list[Tensor] = []
        module: Any
        for module in backbone.modules():
            if hasattr(module, "fused_attn"):  # off where timm's environment variable says so
                module.fused_attn = True

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            query, key = args[:2]  # (B, heads, N, d)
            scores = query[:, :, :1] @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
            self.rows.append(scores.float().softmax(-1).mean(1)[:, 0])
        return func(*args, **(kwargs or {}))
