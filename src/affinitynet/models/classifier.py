"""The classifier whose weights make the class activation maps."""

from typing import cast

from torch import Tensor, nn

from affinitynet.models.backbone import Backbone
from affinitynet.models.heads import CamHead
from affinitynet.ops.cam import class_activation_maps


class Classifier(nn.Module):
    """Backbone, global average pooling, 1x1 convolution without bias: (B, 3, H, W) -> (B, C)."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        """Put a fresh head for `classes` classes on the backbone."""
        super().__init__()
        self.backbone = cast(nn.Module, backbone)
        self.head = CamHead(backbone.channels[-1], classes)
        self._sqrt = backbone.sqrt_cam

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, C) of normalised images."""
        return cast(Tensor, self.head(self.backbone(images)[-1]))

    def cams(self, images: Tensor) -> Tensor:
        """Return rectified, unnormalised CAMs (B, C, h, w) at the backbone's stride."""
        maps = class_activation_maps(self.backbone(images)[-1], self.head.class_weights)
        return maps.sqrt() if self._sqrt else maps
