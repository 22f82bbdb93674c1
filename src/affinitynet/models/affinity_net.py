"""The affinity network: which neighboring cells belong together."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn

from affinitynet.models.backbone import Backbone, Norm, build_backbone
from affinitynet.models.boundary_net import BoundaryNet, describe_boundary_net
from affinitynet.models.feature_net import FeatureNet
from affinitynet.models.heads import AffinityHead
from affinitynet.models.saved import Description, SavedBackbone, load_model
from affinitynet.ops.affinity import affinity_of
from affinitynet.ops.normalization import Normalization
from affinitynet.ops.propagation import pad_to_stride
from affinitynet.run_folder.artifacts import DESCRIPTION
from affinitynet.run_folder.folder import read_json
from affinitynet.run_folder.settings import AffinitySettings, BackboneSettings


class AffinityDescription(Description):
    """What `model.json` says about an affinity network."""

    stage: ClassVar[str] = "train_affinity"

    kind: Literal["affinity"] = "affinity"
    backbone: SavedBackbone
    output_stride: Literal[8, 16]
    radius: Annotated[int, Field(ge=2, le=20)]
    distance: Literal["mean", "sum"]
    group_norm: bool
    scale: Literal[1, 2, 4]
    norm: Norm = "frozen"
    stride: Literal[4, 8] | None = None

    @model_serializer(mode="wrap")
    def _without_stride(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Files of the paper's networks stay as they were before there was a choice.
        return {
            key: value for key, value in write(self).items() if (key, value) != ("stride", None)
        }


class AffinityNet(nn.Module):
    """Backbone and affinity head: images (B, 3, H, W) -> affinities (B, P, h, w)."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        radius: int = 5,
        distance: Literal["mean", "sum"] = "mean",
        group_norm: bool = False,
        scale: int = 1,
        stride: int | None = None,
    ) -> None:
        """Put a fresh affinity head on the backbone; images are enlarged `scale` times before it.

        `stride` is that of the grid in the image as it was given; None takes that of the first map.
        """
        super().__init__()
        self.backbone = cast(nn.Module, backbone)
        self.head = AffinityHead(backbone.channels, group_norm=group_norm)
        self.radius, self.distance = radius, distance
        # The first map's stride, as the head resizes the others to its grid.
        self.scale, self._cell = scale, backbone.strides[0] // scale
        self.stride = stride or self._cell

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a run's `affinity` folder, on the CPU and in eval mode.

        Raises:
            UserError: the folder holds no affinity network, or a damaged one.
        """
        return load_model(Path(folder), AffinityDescription, cls.build)[0]

    @classmethod
    def build(
        cls, description: AffinityDescription, data: Path | None = None, pretrained: bool = False
    ) -> Self:
        """Make the network that a description tells of, with the backbone's weights or none."""
        # One way for new and saved networks, so that what was trained is what is loaded.
        backbone = build_backbone(
            description.backbone,
            description.output_stride,
            data=data,
            pretrained=pretrained,
            fc6_dilation=4,  # as published; 1 in the classifier
            norm=description.norm,
        )
        return cls(
            backbone,
            radius=description.radius,
            distance=description.distance,
            group_norm=description.group_norm,
            scale=description.scale,
            stride=description.stride,
        )

    def forward(self, images: Tensor, radius: int | None = None) -> Tensor:
        """Return affinities (B, P, h, w) of normalized images, within another radius if given."""
        rows, columns = (-(-side // self.stride) for side in images.shape[-2:])
        if self.stride != self._cell:  # whole cells of the first map too; cut off again below
            images = pad_to_stride(images, max(self.stride, self._cell))
        grid = (-(-images.shape[-2] // self.stride), -(-images.shape[-1] // self.stride))
        if self.scale > 1:
            images = F.interpolate(images, scale_factor=self.scale, mode="bilinear")
        maps = self.backbone(images)
        features = self.head(maps, None if self.stride == self._cell else grid)
        if features.shape[-2:] != (rows, columns):
            features = features[..., :rows, :columns]
        return affinity_of(features, radius or self.radius, self.distance)


AnyAffinityNet = AffinityNet | BoundaryNet


def load_affinity_net(folder: str | Path) -> AnyAffinityNet:
    """Load the network of a run's `affinity` folder, whichever its `model.json` tells of.

    Raises:
        UserError: the folder holds no such network, or a damaged one.
    """
    file = Path(folder) / DESCRIPTION
    found = read_json(file, AffinityDescription.stage) if file.is_file() else None
    boundary = isinstance(found, dict) and found.get("kind") == "boundary"
    return BoundaryNet.load(folder) if boundary else AffinityNet.load(folder)


def image_affinity(
    model: AnyAffinityNet | FeatureNet, image: Tensor, device: torch.device
) -> Tensor:
    """Return the affinities (P, h, w) float16, on the CPU, of an image (H, W, 3) uint8.

    Rounded to what a run keeps, so that what follows from them is the same from the files.
    """
    normalization: Normalization = model.backbone.normalization  # type: ignore[assignment]
    pixels = normalization.apply(image.permute(2, 0, 1)[None].to(device))
    # After the normalization, so that the padding has the mean color, as in the public code.
    padded = pad_to_stride(pixels, model.stride)
    affinity: Tensor = model(padded.contiguous(memory_format=torch.channels_last))[0]
    return affinity.to(torch.float16).cpu()


def describe_affinity_net(
    backbone: BackboneSettings, settings: AffinitySettings
) -> AffinityDescription:
    """Say what it takes to build the affinity network that a recipe asks for, for `model.json`."""
    return AffinityDescription(
        backbone=SavedBackbone.model_validate(backbone.model_dump()),
        output_stride=settings.output_stride,
        radius=settings.radius,
        distance=settings.distance,
        group_norm=backbone.name == "vgg16",  # as published; the other networks have none
        scale=settings.scale,
        norm=settings.norm,
        stride=settings.stride,
    )


def build_affinity_net(
    backbone: BackboneSettings,
    settings: AffinitySettings,
    *,
    data: Path | None = None,
    pretrained: bool = True,
) -> AnyAffinityNet:
    """Make the network that a recipe asks for, with the backbone's weights or none.

    Raises:
        UserError: as `build_backbone`.
    """
    if settings.source == "boundary":
        return BoundaryNet.build(describe_boundary_net(backbone, settings), data, pretrained)
    return AffinityNet.build(describe_affinity_net(backbone, settings), data, pretrained)
