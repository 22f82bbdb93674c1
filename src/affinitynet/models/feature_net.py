"""A frozen network's features as affinities: nothing is trained for them."""

from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affinitynet.models.backbone import Backbone, build_backbone
from affinitynet.ops.features import feature_affinity
from affinitynet.ops.propagation import pad_to_stride
from affinitynet.run_folder.settings import AffinitySettings, BackboneSettings

_WHOLE = 32  # the deepest map's stride: to multiples of it images are padded


class FeatureNet(nn.Module):
    """Frozen backbone: images (B, 3, H, W) -> affinities (B, P, h, w), cosines of its features.

    The features of its three maps, each of length one, stand one after the other: so the cosine of
    two cells is the mean of the three maps', whatever their scales.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        radius: int = 5,
        gamma: float = 1,
        scale: int = 1,
        stride: int | None = None,
    ) -> None:
        """Take the backbone as it is; images are enlarged `scale` times before it.

        `stride` is that of the grid in the image as it was given; None takes that of the first map.
        """
        super().__init__()
        self.backbone = cast(nn.Module, backbone).requires_grad_(False)
        self.radius, self.gamma, self.scale = radius, gamma, scale
        self.stride = stride or backbone.strides[0] // scale

    def features(self, images: Tensor) -> Tensor:
        """Return the features (B, D, h, w) of normalized images (B, 3, H, W).

        h = ceil(H / stride), w = ceil(W / stride).
        """
        rows, columns = (-(-side // self.stride) for side in images.shape[-2:])
        # Whole cells of every map, or they would not lie on one another; cut off again below.
        padded = pad_to_stride(images, _WHOLE)
        grid = (padded.shape[-2] // self.stride, padded.shape[-1] // self.stride)
        if self.scale > 1:
            padded = F.interpolate(padded, scale_factor=self.scale, mode="bilinear")
        parts = []
        for features in self.backbone(padded):
            brought = F.interpolate(features.float(), size=grid, mode="bilinear")
            parts.append(F.normalize(brought, dim=1))
        return torch.cat(parts, 1)[..., :rows, :columns]

    def forward(self, images: Tensor) -> Tensor:
        """Return affinities (B, P, h, w) of normalized images (B, 3, H, W)."""
        return feature_affinity(self.features(images), self.radius, self.gamma)


def build_feature_net(
    backbone: BackboneSettings,
    settings: AffinitySettings,
    *,
    data: Path | None = None,
    pretrained: bool = True,
) -> FeatureNet:
    """Make the network whose features a recipe asks for, with the backbone's weights or none.

    Raises:
        UserError: as `build_backbone`.
    """
    made = build_backbone(
        backbone,
        settings.output_stride,
        data=data,
        pretrained=pretrained,
        fc6_dilation=4,  # as in the affinity network
    )
    return FeatureNet(
        made,
        radius=settings.radius,
        gamma=settings.gamma,
        scale=settings.scale,
        stride=settings.stride,
    )
