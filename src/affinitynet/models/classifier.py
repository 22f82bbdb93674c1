"""The classifier whose weights make the class activation maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self, cast

from torch import Tensor, nn

from affinitynet.models.backbone import Backbone, Norm, build_backbone
from affinitynet.models.heads import CamHead, Pooling
from affinitynet.models.saved import Description, SavedBackbone, load_model
from affinitynet.ops.cam import apply_weights
from affinitynet.run_folder.settings import BackboneSettings, ClassifierSettings


class ClassifierDescription(Description):
    """What `model.json` says about a classifier."""

    stage: ClassVar[str] = "train_classifier"

    kind: Literal["classifier"] = "classifier"
    classes: tuple[str, ...]
    backbone: SavedBackbone
    output_stride: Literal[8, 16, 32] | None  # None: a transformer's
    # Defaults where earlier versions wrote no such key: it was so in all of their networks.
    norm: Norm = "frozen"
    pooling: Pooling = "average"


class Classifier(nn.Module):
    """Backbone, pooling, 1x1 convolution without bias: (B, 3, H, W) -> (B, C)."""

    def __init__(self, backbone: Backbone, classes: int, pooling: Pooling = "average") -> None:
        """Put a fresh head for `classes` classes on the backbone."""
        super().__init__()
        self.backbone = cast(nn.Module, backbone)
        self.head = CamHead(backbone.channels[-1], classes, pooling)
        self._sqrt = backbone.sqrt_cam

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a run's `classifier` folder, on the CPU and in eval mode.

        Raises:
            UserError: the folder holds no classifier, or a damaged one.
        """
        return load_model(Path(folder), ClassifierDescription, cls._from)[0]

    @classmethod
    def _from(
        cls, description: ClassifierDescription, data: Path | None = None, pretrained: bool = False
    ) -> Self:
        # One way for new and saved networks, so that what was trained is what is loaded.
        backbone = build_backbone(
            description.backbone,
            description.output_stride,
            data=data,
            pretrained=pretrained,
            norm=description.norm,
        )
        return cls(backbone, len(description.classes), description.pooling)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, C) of normalized images."""
        return cast(Tensor, self.head(self.backbone(images)[-1]))

    def cams(self, images: Tensor) -> Tensor:
        """Return rectified, unnormalized CAMs (B, C, h, w) at the backbone's stride."""
        maps = apply_weights(self.backbone(images)[-1], self.head.class_weights)
        # As the public code does for VGG-16 alone.
        return maps.sqrt() if self._sqrt else maps


def describe_classifier(
    backbone: BackboneSettings, settings: ClassifierSettings, classes: Sequence[str]
) -> ClassifierDescription:
    """Say what it takes to build the classifier that a recipe asks for, for `model.json`."""
    return ClassifierDescription(
        classes=tuple(classes),
        backbone=SavedBackbone.model_validate(backbone.model_dump()),
        output_stride=settings.output_stride,
        norm=settings.norm,
        pooling=settings.pooling,
    )


def build_classifier(
    backbone: BackboneSettings,
    settings: ClassifierSettings,
    classes: Sequence[str],
    *,
    data: Path | None = None,
    pretrained: bool = True,
) -> Classifier:
    """Make the classifier that a recipe asks for, its backbone with the recipe's weights or none.

    Raises:
        UserError: as `build_backbone`.
    """
    return Classifier._from(describe_classifier(backbone, settings, classes), data, pretrained)
