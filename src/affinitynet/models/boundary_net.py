"""The boundary network: where one class ends, and so which neighboring cells belong together."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from affinitynet.models.backbone import Backbone, Norm, build_backbone, every_map
from affinitynet.models.heads import BoundaryHead
from affinitynet.models.saved import Description, SavedBackbone, load_model
from affinitynet.ops.boundary import boundary_affinity
from affinitynet.ops.propagation import pad_to_stride
from affinitynet.run_folder.settings import AffinitySettings, BackboneSettings

TRAIN_RADIUS, STRIDE = 10, 4  # IRN's
_WHOLE = 32  # the deepest map's stride: to multiples of it images are padded


class BoundaryDescription(Description):
    """What `model.json` says about a boundary network."""

    stage: ClassVar[str] = "train_affinity"

    kind: Literal["boundary"] = "boundary"
    backbone: SavedBackbone
    output_stride: Literal[8, 16] | None
    radius: Annotated[int, Field(ge=2, le=20)]
    scale: Literal[1, 2, 4]
    stride: Literal[2, 4, 8]
    norm: Norm = "frozen"


class BoundaryNet(nn.Module):
    """Frozen backbone and boundary head: images (B, 3, H, W) -> affinities (B, P, h, w).

    Only the head learns, from maps of all strides: their layers know edges already, and what a
    class is is in the pairs of the training.

    Source: Ahn et al., CVPR 2019 (IRN), without its displacement field, which is for instances.
    """

    def __init__(
        self, backbone: Backbone, *, radius: int = 5, scale: int = 1, stride: int = STRIDE
    ) -> None:
        """Put a fresh head on the backbone; images are enlarged `scale` times before it.

        `stride` is that of the grid in the image as it was given.
        """
        super().__init__()
        self.backbone = cast(nn.Module, backbone).requires_grad_(False)
        with torch.no_grad():
            maps = every_map(self._frozen, torch.zeros(1, 3, 64, 64))
        self.head = BoundaryHead([features.shape[1] for features in maps])
        self.radius, self.scale, self.stride = radius, scale, stride

    @property
    def _frozen(self) -> Backbone:
        return cast(Backbone, self.backbone.eval())

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a run's `affinity` folder, on the CPU and in eval mode.

        Raises:
            UserError: the folder holds no boundary network, or a damaged one.
        """
        return load_model(Path(folder), BoundaryDescription, cls.build)[0]

    @classmethod
    def build(
        cls, description: BoundaryDescription, data: Path | None = None, pretrained: bool = False
    ) -> Self:
        """Make the network that a description tells of, with the backbone's weights or none."""
        backbone = build_backbone(
            description.backbone,
            description.output_stride,
            data=data,
            pretrained=pretrained,
            fc6_dilation=4,  # as in the affinity network
            norm=description.norm,
        )
        return cls(
            backbone,
            radius=description.radius,
            scale=description.scale,
            stride=description.stride,
        )

    def train(self, mode: bool = True) -> Self:
        """Switch the head's mode; the backbone is as at inference."""
        super().train(mode)
        self.backbone.eval()
        return self

    def boundary(self, images: Tensor) -> Tensor:
        """Return the boundaries (B, h, w) in [0, 1] of normalized images (B, 3, H, W).

        h = ceil(H / stride), w = ceil(W / stride).
        """
        rows, columns = (-(-side // self.stride) for side in images.shape[-2:])
        # Whole cells of every map, or they would not lie on one another; cut off again below.
        padded = pad_to_stride(images, _WHOLE)
        height, width = padded.shape[-2:]
        if self.scale > 1:
            padded = F.interpolate(padded, scale_factor=self.scale, mode="bilinear")
        with torch.no_grad():
            maps = every_map(cast(Backbone, self.backbone), padded)
        logits: Tensor = self.head(maps, (height // self.stride, width // self.stride))
        # float32: bf16 has no number between 0.996 and 1, and the walk takes the eighth power.
        return logits.float().sigmoid()[:, :rows, :columns]

    def forward(self, images: Tensor, radius: int | None = None) -> Tensor:
        """Return affinities (B, P, h, w) of normalized images, within another radius if given."""
        return boundary_affinity(self.boundary(images), radius or self.radius)


def describe_boundary_net(
    backbone: BackboneSettings, settings: AffinitySettings
) -> BoundaryDescription:
    """Say what it takes to build the boundary network that a recipe asks for, for `model.json`."""
    stride: Any = settings.stride or max(2, STRIDE // settings.scale)
    return BoundaryDescription(
        backbone=SavedBackbone.model_validate(backbone.model_dump()),
        output_stride=settings.output_stride,
        radius=settings.radius,
        scale=settings.scale,
        stride=stride,
        norm=settings.norm,
    )
