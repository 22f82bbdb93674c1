"""Vision transformers behind the backbone contract, from timm.

No stride can be chosen: a plain transformer has one grid, of its patches, and a pyramid's strides
are what they are. What can't be cut into whole patches is padded, and the maps are cut again.
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.models.create import create
from affinitynet.ops.normalization import Normalization
from affinitynet.run_folder.backbone_names import transformer_kind

_DEPTHS = (1 / 2, 3 / 4, 1)  # of the blocks behind which a plain transformer's maps are read
_WHOLE = 32  # the deepest stride of a pyramid


class TransformerBackbone(nn.Module):
    """A timm transformer: normalized images (B, 3, H, W) -> three maps, shallow to deep.

    A plain transformer's maps are its patches behind a half, three quarters and all of its blocks,
    with its final norm, which the paper's CAM head asks for as the classifier of its pretraining
    did; class token and registers are left out. A pyramid's are those of strides 8, 16 and 32.
    Each has ceil(H / stride) rows and ceil(W / stride) columns.

    All layers learn: there is no batch normalization whose statistics would have to be kept.
    `learns: head` freezes all of it, `layer_decay` lets shallow layers learn slowly.
    """

    sqrt_cam = False

    def __init__(
        self, name: str, *, download: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        """Create the timm model `name`; `download` fetches its weights.

        options: more of timm's arguments, such as `embed_dim` and `depth` for a small one.

        Raises:
            UserError: timm does not know the name, can't make it for all sizes, or no download.
        """
        super().__init__()
        self._late_norm: nn.Module | None
        self.kind = transformer_kind(name) or "plain"
        self.net: Any = _create(name, self.kind, download, options or {})
        config, info = self.net.pretrained_cfg, self.net.feature_info
        self.normalization = Normalization(config["mean"], config["std"], scale=255.0)
        if self.kind == "plain":
            self._indices = [max(0, round(len(info) * depth) - 1) for depth in _DEPTHS]
        else:
            self._indices = [len(info) - 3, len(info) - 2, len(info) - 1]
        chosen = [info[index] for index in self._indices]
        self.channels = cast(tuple[int, int, int], tuple(int(e["num_chs"]) for e in chosen))
        self.strides = cast(tuple[int, int, int], tuple(int(e["reduction"]) for e in chosen))
        # Of networks that were pretrained on the mean of all patches it stands behind the mean.
        late = getattr(self.net, "fc_norm", None)
        bare = isinstance(getattr(self.net, "norm", None), nn.Identity)
        self._late_norm = late if bare and not isinstance(late, nn.Identity) else None
        # Sides that are multiples of it need no padding.
        self.multiple = self.strides[0] if self.kind == "plain" else _WHOLE

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalized images (B, 3, H, W) to three feature maps."""
        return self._maps(images, self._indices)

    def every_map(self, images: Tensor) -> list[Tensor]:
        """Map normalized images (B, 3, H, W) to a map of each stride, shallow to deep."""
        if self.kind == "plain":
            return self._maps(images, self._indices)
        return self._maps(images, range(len(self.net.feature_info)))

    def _maps(self, images: Tensor, indices: Any) -> list[Tensor]:
        height, width = images.shape[-2:]
        # Zeros are the mean color, as the images are normalized.
        padded = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        maps = self.net.forward_intermediates(
            padded, indices=list(indices), intermediates_only=True, norm=True
        )
        found = []
        for features in maps:
            stride = padded.shape[-2] // features.shape[-2]
            found.append(features[..., : -(-height // stride), : -(-width // stride)])
        if self._late_norm is not None:
            found[-1] = self._late_norm(found[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return found


def multiple_of(backbone: Any) -> int:
    """Return what a backbone's images should be multiples of to be seen without padding."""
    return int(getattr(backbone, "multiple", 1))


def timm_options(name: str) -> dict[str, Any]:
    """Return the arguments that let timm make a transformer for images of any size."""
    kind = transformer_kind(name)
    if kind == "plain":
        return {"dynamic_img_size": True}
    # Windows are padded and masked where they don't fit.
    return {"strict_img_size": False} if name.startswith("swin") else {}


def _create(
    name: str, kind: Literal["plain", "pyramid"], pretrained: bool, options: Mapping[str, Any]
) -> Any:
    known = {"num_classes": 0, **timm_options(name), **options}
    advice = "docs/backbones.md lists transformers that can"
    net = create(name, "for images of all sizes", advice, pretrained=pretrained, **known)
    if not hasattr(net, "forward_intermediates"):
        raise UserError(
            f"backbone.name = {name!r}: this version of timm gives no maps of its blocks; "
            "docs/backbones.md lists transformers that can"
        )
    if getattr(net, "attn_pool", None) is not None:
        cast(Any, net).attn_pool = None  # SigLIP's: it pools, and nothing is pooled here
    return net
