"""Backbones behind one contract: three feature maps, what they expect, what is frozen.

A backbone is a module with `channels` and `strides` of its three maps (shallow to deep; the CAM is
read from the last), a `normalization`, `sqrt_cam`, and `forward(images) -> [map, map, map]`.
"""

from pathlib import Path
from typing import Any, Literal, Protocol, cast

import timm
import torch
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.models.create import create
from affinitynet.models.first_layer import let_learn
from affinitynet.models.resnet38 import ResNet38
from affinitynet.models.shallow import freeze_shallow
from affinitynet.models.transformer import TransformerBackbone
from affinitynet.models.vgg16 import VGG16
from affinitynet.models.weights import load_backbone
from affinitynet.ops.normalization import Normalization
from affinitynet.progress import say, warn
from affinitynet.run_folder.backbone_names import transformer_kind
from affinitynet.run_folder.recipe import find_weights
from affinitynet.run_folder.settings import BackboneSettings

Norm = Literal["frozen", "trained"]


class Backbone(Protocol):
    """What every backbone offers besides being a module."""

    channels: tuple[int, int, int]
    strides: tuple[int, int, int]
    normalization: Normalization
    sqrt_cam: bool

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Map normalized images (B, 3, H, W) to three feature maps."""


class TimmBackbone(nn.Module):
    """A timm network cut before its pooling.

    The maps are its last two stages but one and its final features (MobileNetV2: 32, 96 and 1280
    channels; ResNet-50: 512, 1024 and 2048). With `frozen`, as pretrained weights want it, the
    layers up to stride 4 keep their weights, and all batch normalization its statistics and
    parameters unless `norm` is `trained`: then statistics are those of the images in every layer,
    as they are what adapts filters of photographs to images of another kind.
    """

    sqrt_cam = False

    def __init__(
        self,
        name: str,
        output_stride: int,
        *,
        download: bool = False,
        frozen: bool = True,
        norm: Norm = "frozen",
        channels: int = 3,
    ) -> None:
        """Create the timm model `name`; `download` fetches its ImageNet weights.

        Raises:
            UserError: timm does not know the name, it can't take the stride, or no download.
        """
        super().__init__()
        self.net: Any = _create(name, output_stride, download, channels)
        # Random weights have no statistics worth keeping.
        self._norm_frozen = frozen and norm == "frozen"
        config = self.net.pretrained_cfg
        self.normalization = Normalization(config["mean"], config["std"], scale=255.0)
        self._depth = len(self.net.feature_info)
        if frozen:
            freeze_shallow(self.net)
        if self._norm_frozen:
            freeze_norm(self)
        with torch.no_grad():
            # Measured: feature_info ends before a layer after the last stage, such as the one of
            # MobileNetV2 with 1280 channels.
            maps = self.eval()(torch.zeros(1, channels, 64, 64))
        self.channels = cast(tuple[int, int, int], tuple(m.shape[1] for m in maps))
        self.strides = cast(tuple[int, int, int], tuple(64 // m.shape[2] for m in maps))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalized images (B, 3, H, W) to three feature maps."""
        wanted = [self._depth - 3, self._depth - 2]
        last, maps = self.net.forward_intermediates(images, indices=wanted)
        return [*maps, last]

    def every_map(self, images: Tensor) -> list[Tensor]:
        """Map normalized images (B, 3, H, W) to a map of each stride, shallow to deep."""
        last, maps = self.net.forward_intermediates(images)
        return [*maps[:-1], last]

    def train(self, mode: bool = True) -> "TimmBackbone":
        """Switch modes; frozen batch normalization always uses its pretrained statistics."""
        super().train(mode)
        if self._norm_frozen:
            set_norm_to_eval(self)
        return self


def every_map(backbone: Backbone, images: Tensor) -> list[Tensor]:
    """Return a backbone's maps of all strides; the paper's two networks give their three."""
    if isinstance(backbone, TimmBackbone | TransformerBackbone):
        return backbone.every_map(images)
    return backbone(images)


def freeze_norm(module: nn.Module) -> None:
    """Let all batch normalization below `module` keep its scale and shift."""
    for inner in module.modules():
        if isinstance(inner, nn.BatchNorm2d):
            inner.requires_grad_(False)


def set_norm_to_eval(module: nn.Module) -> None:
    """Let all batch normalization below `module` use its stored statistics."""
    for inner in module.modules():
        if isinstance(inner, nn.BatchNorm2d):
            inner.eval()


def _create(name: str, output_stride: int, pretrained: bool, channels: int = 3) -> Any:
    return create(
        name,
        f"at output stride {output_stride}",
        "use a convolutional network such as resnet50 or mobilenetv2_100, or a transformer of "
        "docs/backbones.md",
        pretrained=pretrained,
        # Features alone: no last layer, no pooling.
        num_classes=0,
        global_pool="",
        output_stride=output_stride,
        # timm adapts the first layer's weights as `adapt_weight` does.
        in_chans=channels,
    )


def build_backbone(
    settings: BackboneSettings,
    output_stride: int | None,
    *,
    data: Path | None = None,
    pretrained: bool = True,
    fc6_dilation: int = 1,
    norm: Norm = "frozen",
    head: int = 0,
) -> Backbone:
    """Make the backbone a recipe names, with its weights unless `pretrained` is False.

    The paper's two networks always have output stride 8, transformers none. `fc6_dilation` is VGG's
    (1 in the classifier, 4 in the affinity network, 12 in the segmentation network). `head` keeps a
    transformer's last layer, of so many numbers.

    Raises:
        UserError: unknown name, a norm that it doesn't have, or weights that can't be found, read
            or fitted.
    """
    if norm == "trained" and settings.name in ("resnet38", "vgg16"):
        raise UserError(
            f"norm = 'trained': {settings.name} is the paper's network, which trains no batch "
            "normalization; use norm = frozen, or a timm backbone"
        )
    channels = settings.input.channels if settings.input else 3
    file = find_weights(settings.weights, data) if pretrained else None
    download = pretrained and settings.weights == "imagenet"
    if settings.name in ("resnet38", "vgg16"):
        if download:
            raise UserError(
                f"backbone.weights = 'imagenet' has no download for {settings.name}: give the "
                "local file (see docs/reproducing.md), or none for random weights"
            )
        backbone: nn.Module = (
            ResNet38(channels=channels)
            if settings.name == "resnet38"
            else VGG16(fc6_dilation=fc6_dilation, channels=channels)
        )
    elif transformer_kind(settings.name):
        options = {"num_classes": head} if head else None
        backbone = TransformerBackbone(settings.name, download=download, options=options)
    else:
        backbone = TimmBackbone(
            settings.name,
            output_stride or 32,  # all that a network has without one
            download=download,
            frozen=settings.weights != "none",
            norm=norm,
            channels=channels,
        )
    if file or download:
        say_license(settings.name)
    if file:
        report = load_backbone(backbone, file)
        if report.missing:
            some = ", ".join(report.missing[:3])
            lacks = f"{file} lacks {len(report.missing)} tensors of {settings.name} ({some})"
            if head:
                raise UserError(f"{lacks}; give the file of the whole tower")
            warn(lacks)
    let_learn(backbone, channels)
    if settings.input and settings.input.mean and settings.input.std:
        own: Any = backbone
        own.normalization = own.normalization.of_data(settings.input.mean, settings.input.std)
    # The layout in which convolutions run fastest.
    return cast(Backbone, backbone.to(memory_format=torch.channels_last))


_FREE = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "other", None)
_said: set[str] = set()


def say_license(name: str) -> None:
    """Say once a process under which license a network's weights are, where that is its own."""
    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    terms = getattr(known, "license", None)
    if terms not in _FREE and name not in _said:
        _said.add(name)
        say(f"{name}: its weights are under the license {terms}, which is yours to keep")
