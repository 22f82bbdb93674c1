"""The affinity network: which neighbouring cells belong together."""

from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from affinitynet.models.backbone import Backbone
from affinitynet.models.heads import AffinityHead
from affinitynet.ops.affinity import pairwise_affinity


class AffinityNet(nn.Module):
    """Features of three depths in one space where L1 distance means unlike: -> affinities."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        radius: int = 5,
        distance: Literal["mean", "sum"] = "mean",
        group_norm: bool = False,
        scale: int = 1,
    ) -> None:
        """Put a fresh affinity head on the backbone; images are enlarged `scale` times before it.

        `stride` is that of the grid in the image as it was given.
        """
        super().__init__()
        self.backbone = cast(nn.Module, backbone)
        self.head = AffinityHead(backbone.channels, group_norm=group_norm)
        self.radius, self.distance = radius, distance
        self.scale, self.stride = scale, backbone.strides[0] // scale

    def forward(self, images: Tensor) -> Tensor:
        """Return affinities (B, P, h, w) of normalised images (B, 3, H, W)."""
        if self.scale > 1:
            images = F.interpolate(images, scale_factor=self.scale, mode="bilinear")
        features = self.head(self.backbone(images))
        return pairwise_affinity(features, self.radius, self.distance)
