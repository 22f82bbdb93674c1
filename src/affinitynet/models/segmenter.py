"""The segmentation network and the predictor users load."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn

from affinitynet.data.images import load_image
from affinitynet.errors import UserError, did_you_mean
from affinitynet.hardware import find_device
from affinitynet.models.backbone import (
    build_backbone,
    freeze_norm,
    say_license,
    set_norm_to_eval,
)
from affinitynet.models.dense_heads import build_dpt, check_head
from affinitynet.models.first_layer import adapted, let_learn
from affinitynet.models.heads import LargeFovHead, PixelHead
from affinitynet.models.saved import Description, SavedBackbone, load_model
from affinitynet.models.shallow import freeze_shallow
from affinitynet.models.transformer import timm_options
from affinitynet.models.vgg16 import VGG16
from affinitynet.models.weights import load_weights
from affinitynet.ops._arguments import check_values
from affinitynet.ops.normalization import Normalization
from affinitynet.ops.tiles import in_tiles
from affinitynet.progress import warn
from affinitynet.run_folder.backbone_names import transformer_kind
from affinitynet.run_folder.recipe import find_weights
from affinitynet.run_folder.settings import BackboneSettings, CrfSettings, SegmenterSettings
from affinitynet.walking import refined

Photograph = str | Path | Image.Image | NDArray[np.uint8]


class LargeFov(nn.Module):
    """DeepLab-v1's large-field-of-view head on a paper backbone: (B, 3, H, W) -> (B, L, H, W)."""

    def __init__(self, encoder: nn.Module, channels: int, classes: int) -> None:
        """Put the head for `classes` labels, background included, on the encoder."""
        super().__init__()
        self.encoder = encoder
        # VGG-16's own fc6 and fc7 are LargeFOV's hidden layers; other encoders need new ones.
        whole = isinstance(encoder, VGG16)
        self.head = PixelHead(channels, classes) if whole else LargeFovHead(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits at the size of the images."""
        logits = self.head(self.encoder(images)[-1])
        return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


class SegmentationNet(nn.Module):
    """A segmentation network with its input normalization and what it pads images to."""

    def __init__(
        self, network: nn.Module, normalization: Normalization, multiple: int, frozen: bool
    ) -> None:
        """Wrap `network`; images are padded to multiples of `multiple` before it.

        `frozen` keeps the encoder's batch normalization as pretrained.
        """
        super().__init__()
        self.network = network
        self.normalization, self.multiple, self._frozen = normalization, multiple, frozen
        if frozen:
            freeze_norm(cast(nn.Module, network.encoder))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images (B, 3, H, W) to logits (B, C + 1, H, W), any size."""
        height, width = images.shape[-2:]
        # At the bottom and right, where it is cut off again without a shift.
        padding = (0, -width % self.multiple, 0, -height % self.multiple)
        logits = self.network(F.pad(images, padding))
        return cast(Tensor, logits[..., :height, :width])

    def train(self, mode: bool = True) -> "SegmentationNet":
        """Switch modes; a frozen encoder's batch normalization uses its pretrained statistics."""
        super().train(mode)
        if self._frozen:
            set_norm_to_eval(cast(nn.Module, self.network.encoder))
        return self


def build_segmentation_net(
    settings: SegmenterSettings,
    backbone: BackboneSettings,
    labels: int,
    *,
    data: Path | None = None,
    pretrained: bool = True,
) -> SegmentationNet:
    """Make the network a recipe names, for `labels` labels with background.

    Raises:
        UserError: unknown architecture or backbone, or weights that can't be read or fitted.
    """
    if settings.architecture == "largefov":
        body = build_backbone(
            backbone,
            settings.output_stride,
            data=data,
            pretrained=pretrained,
            fc6_dilation=12,
            norm=settings.norm,
        )
        network: nn.Module = LargeFov(cast(nn.Module, body), body.channels[-1], labels)
        return SegmentationNet(network, body.normalization, 1, frozen=settings.norm == "frozen")
    network = _library_net(settings, backbone, labels, pretrained)
    # From timm, since the library's encoders don't say how their input is normalized.
    config: Any = timm.get_pretrained_cfg(backbone.name)
    normalization = Normalization(config.mean, config.std, scale=255.0)
    reading = backbone.input
    if reading and reading.mean and reading.std:
        normalization = normalization.of_data(reading.mean, reading.std)
    # The library's networks refuse sizes that their strides don't divide.
    stride = int(cast(Any, network.encoder).output_stride)
    kind = transformer_kind(backbone.name)
    # Of a plain transformer whole patches; of DPT's two halvings and doublings of them, even ones.
    multiple = 2 * stride if kind == "plain" else max(stride, 32 if kind else 16)
    known = backbone.weights != "none"
    if known and settings.norm == "trained" and not kind:
        freeze_shallow(cast(Any, network.encoder).model)
        let_learn(network, len(normalization.mean))
    frozen = known and settings.norm == "frozen"
    net = SegmentationNet(network, normalization, multiple, frozen=frozen)
    file = find_weights(backbone.weights, data) if pretrained else None
    if file:
        load_encoder(net, load_weights(file).tensors, str(file))
    return net


def load_encoder(net: SegmentationNet, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy a backbone's tensors into the network's encoder; what they lack keeps its value.

    Names are timm's, or the backbone's own, with or without the prefixes of our files. `source`
    is what messages call the tensors.

    Raises:
        UserError: none of the encoder's tensors is there, or one has another shape.
    """
    encoder = cast(nn.Module, net.network.encoder)
    body = cast(nn.Module, getattr(encoder, "model", encoder))  # the library wraps timm's network
    given = {
        name.removeprefix("backbone.").removeprefix("net."): value
        for name, value in tensors.items()
    }
    own = body.state_dict()
    found: dict[str, Tensor] = {}
    for name, value in own.items():
        # timm's feature networks call `stages.0` `stages_0`.
        stage, _, rest = name.partition(".")
        match = given.get(name, given.get(f"{stage.replace('_', '.')}.{rest}"))
        if match is not None:
            match = adapted({name: match}, own)[name]
        if match is not None and match.shape != value.shape:
            raise UserError(
                f"{source}: {name} has the shape {tuple(match.shape)} where the encoder has "
                f"{tuple(value.shape)}; give this network's file"
            )
        if match is not None:
            found[name] = match
    if not found:
        raise UserError(f"{source}: has none of the encoder's tensors; give this network's file")
    missing = [n for n in own if n not in found and not n.endswith("num_batches_tracked")]
    if missing:
        warn(f"{source} lacks {len(missing)} tensors of the encoder ({missing[0]} ...)")
    # Not strict: what the file lacks has been warned of.
    body.load_state_dict(found, strict=False)


def _library_net(
    settings: SegmenterSettings, backbone: BackboneSettings, labels: int, pretrained: bool
) -> nn.Module:
    known = smp.MODEL_ARCHITECTURES_MAPPING
    if settings.architecture not in known:
        hint = did_you_mean(settings.architecture, ("largefov", *known))
        hint = f"{hint} " if hint else ""
        raise UserError(
            f"segmenter.architecture = {settings.architecture!r}: {hint}choose largefov or one of "
            f"{', '.join(known)}"
        )
    if not timm.is_model(backbone.name):
        raise UserError(
            f"segmenter.architecture = {settings.architecture!r} stands on a timm backbone, not "
            f"{backbone.name!r}: set segmenter.backbone, or segmenter.architecture = largefov"
        )
    # Only DeepLab's decoders take a stride; the others fix their encoder's.
    dilated = settings.architecture.startswith("deeplab")
    options: dict[str, Any] = {}
    if dilated:
        options = {"encoder_output_stride": settings.output_stride}
    kind = transformer_kind(backbone.name)
    if kind:
        check_head(settings.architecture, backbone.name)
        options = timm_options(backbone.name)
    weights = "imagenet" if pretrained and backbone.weights == "imagenet" else None
    if weights:
        say_license(backbone.name)

    def create(**more: Any) -> nn.Module:
        made = smp.create_model(
            settings.architecture,
            # "tu-" is the library's prefix for timm's networks.
            encoder_name=f"tu-{backbone.name}",
            encoder_weights=weights,
            classes=labels,
            in_channels=backbone.input.channels if backbone.input else 3,
            **options,
            **more,
        )
        return cast(nn.Module, made)

    return build_dpt(create) if kind == "plain" else create()


def segment(
    net: SegmentationNet, image: Tensor, scales: Sequence[float], flip: bool, tile: int = 0
) -> Tensor:
    """Average the class probabilities over scales and flips.

    image (C, H, W) uint8 on the network's device -> (L, H, W) float32, of L labels. Images larger
    than `tile` pixels go through the network in tiles.
    """

    def probabilities_of(images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        logits: Tensor = net(images)
        return logits.float().softmax(1)  # softmax and sums in bf16 are too coarse

    height, width = image.shape[-2:]
    pixels = net.normalization.apply(image[None])
    total: Tensor | None = None
    for scale in scales:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        # antialias: plain bilinear would skip pixels where it shrinks.
        scaled = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
        if not flip:
            probabilities = in_tiles(probabilities_of, scaled, tile=tile)
        elif not tile:
            both = probabilities_of(torch.cat([scaled, scaled.flip(-1)]))
            probabilities = (both[:1] + both[1:].flip(-1)) / 2
        else:  # one after the other: each is of the image's size
            probabilities = in_tiles(probabilities_of, scaled, tile=tile)
            mirrored = in_tiles(probabilities_of, scaled.flip(-1), tile=tile)
            for own, other in zip(probabilities[0], mirrored[0], strict=True):
                own.add_(other.flip(-1)).div_(2)
            del mirrored
        if total is None:
            total = probabilities.new_zeros(probabilities.shape[1], height, width)
        for number in range(len(total)):  # likewise
            total[number] += F.interpolate(
                probabilities[:, number : number + 1],
                (height, width),
                mode="bilinear",
                align_corners=False,
            )[0, 0]
    assert total is not None  # a recipe names a scale
    return total.div_(len(scales))


class SavedCrf(CrfSettings):
    """The segmenter's CRF; unknown keys are ignored, as in a description."""

    model_config = ConfigDict(extra="ignore")


class SavedSettings(SegmenterSettings):
    """The recipe's `segmenter` as it was; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore")

    architecture: str
    output_stride: Literal[8, 16] | None
    backbone: SavedBackbone | None = None
    crf: SavedCrf = SavedCrf()


class SegmenterDescription(Description):
    """What `model.json` says about a segmenter."""

    stage: ClassVar[str] = "train_segmenter"

    kind: Literal["segmenter"] = "segmenter"
    classes: tuple[str, ...]
    backbone: SavedBackbone
    settings: SavedSettings
    tile: int = 0

    @model_serializer(mode="wrap")
    def _without_tile(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Files of segmenters that see images as a whole stay as they were.
        return {key: value for key, value in write(self).items() if (key, value) != ("tile", 0)}


def describe_segmenter(
    backbone: BackboneSettings,
    settings: SegmenterSettings,
    classes: Sequence[str],
    tile: int = 0,
) -> SegmenterDescription:
    """Say what it takes to build a recipe's segmenter and to predict with it, for `model.json`.

    `backbone` is the recipe's, which `settings.backbone` replaces where it is set.
    """
    return SegmenterDescription(
        classes=tuple(classes),
        backbone=SavedBackbone.model_validate((settings.backbone or backbone).model_dump()),
        settings=SavedSettings.model_validate(settings.model_dump()),
        tile=tile,
    )


class Segmenter:
    """A trained segmentation network that turns photographs into masks."""

    def __init__(self, net: SegmentationNet, description: SegmenterDescription) -> None:
        """Wrap a network; `description` is what `model.json` holds."""
        self.net = net.eval()
        self.classes: tuple[str, ...] = description.classes
        self.settings: SegmenterSettings = description.settings
        self.reading = description.backbone.input
        self.tile = description.tile

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Self:
        """Load a run's `segmenter` folder on `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

        Raises:
            UserError: the folder holds no segmenter, or a damaged one, or no such device is here.
        """

        def build(description: SegmenterDescription) -> SegmentationNet:
            labels = len(description.classes) + 1
            return build_segmentation_net(
                description.settings, description.backbone, labels, pretrained=False
            )

        place = find_device(str(device))
        net, description = load_model(Path(folder), SegmenterDescription, build)
        return cls(net.to(memory_format=torch.channels_last).to(place), description)

    def scores(self, image: Tensor, scales: Sequence[float] | None = None) -> Tensor:
        """Return class probabilities (C + 1, H, W) of one (H, W, 3) uint8 image, on its device.

        They are averaged over the settings' scales, or over those given.

        Raises:
            NotFiniteError: the network's answer is not finite, as its mask would be of one class.
        """
        settings = self.settings
        channels_first = image.permute(2, 0, 1)
        scores = segment(
            self.net, channels_first, scales or settings.scales, settings.flip, self.tile
        )
        check_values(scores, "the segmenter's probabilities")
        return scores

    def decide(self, image: Tensor, scores: Tensor) -> NDArray[np.integer[Any]]:
        """Turn probabilities into a mask (H, W), through the dense CRF where the recipe says so."""
        if self.settings.refine:
            scores = refined(image.to(scores.device), scores, self.settings)
        wide = len(self.classes) >= 255
        # Not argmax, which takes several times as long over planes of pixels on a CPU.
        return scores.max(0).indices.cpu().numpy().astype(np.uint16 if wide else np.uint8)

    def predict(self, image: Photograph) -> NDArray[np.integer[Any]]:
        """Return the mask of one image: (H, W), 0 background, class c of `classes` is c + 1.

        Files are read as those of the training (`reading`).

        Raises:
            UserError: a file that is no image, or an array that is not (H, W, 3) uint8 RGB.
        """
        # np.array copies: torch warns of arrays that it may not write to.
        pixels = (
            load_image(image, self.reading) if isinstance(image, str | Path) else np.array(image)
        )
        channels = len(self.net.normalization.mean)
        if pixels.ndim != 3 or pixels.shape[2] != channels or pixels.dtype != np.uint8:
            kind = "RGB" if channels == 3 else "(files are read as those of the training)"
            raise UserError(
                f"an image is (H, W, {channels}) uint8 {kind}, not {pixels.shape} {pixels.dtype}"
            )
        tensor = torch.from_numpy(pixels)
        with torch.inference_mode():
            scores = self.scores(tensor.to(next(self.net.parameters()).device))
        return self.decide(tensor, scores)
