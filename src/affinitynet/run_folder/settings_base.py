"""What several sections of a recipe have in common: backbone, dense CRF, precision."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Settings that came later, with the value at which they change nothing. There they are left out of
# the fingerprints, so that runs from before they came are not stale.
LATER: dict[str, object] = {
    "affinity.train_radius": None,
    "affinity.stride": None,
    "cams.threshold": "maximum",
    "cams.text": None,
    "affinity.gamma": 1.0,
    "confident.rule": "alphas",
    "confident.foreground_over": 0.30,
    "confident.background_under": 0.05,
    "walk.method": "power",
    "walk.restart": 0.01,
    "walk.background": "alpha",
    "walk.background_score": 0.25,
    "confident.block": 0,
    "walk.block": 0,
    "networks.run": None,
    "networks.failed": [],
    "networks.unlearnt": [],
    "confident.regions": "none",
    "pseudo.regions": "none",
    "relabel.odds": 1.0,
    "relabel.rounds": 1,
    "relabel.confidence": 0.0,
    "relabel.agreement": False,
    "segmenter.ema": 0.0,
    "segmenter.clamp": 0.0,
    **{
        f"{section}.{key}": value
        for section in ("classifier", "affinity", "segmenter")
        for key, value in (("layer_decay", 1.0), ("learns", "all"))
    },
    "relabel.block": 0,
    "segmenter.block": 0,
    "tile": 0,
    "store": "files",
    "dataset.page": None,
    "dataset.images": None,
    "dataset.range": None,
    "backbone.input": None,
    "segmenter.backbone.input": None,
}

MOST_ROUNDS = 4  # of segmenter and final masks: each has folders of its own

# What images are read by, for stages without a network of their own.
READ = ("dataset.page", "dataset.range")
# What affinities of a frozen network's features depend on.
OF_FEATURES = (
    "seed",
    "backbone",
    *(
        f"affinity.{key}"
        for key in (
            "source",
            "start",
            "output_stride",
            "scale",
            "stride",
            "radius",
            "gamma",
            "pairs",
        )
    ),
)
# What masks without a walk depend on: the background of the CAMs, and the dense CRF.
WITHOUT_WALK = (
    "affinity.source",
    "networks.failed",
    "pseudo.regions",
    *(
        f"walk.{key}"
        for key in ("alpha", "background", "background_score", "refine", "crf", "block")
    ),
)


class Settings(BaseModel):
    """A section of a recipe: unknown keys are errors, values don't change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Precision = Literal["auto", "float32", "bf16", "fp16"]
BLOCK = (
    "apply the CRF of larger images in blocks of this side in pixels, with less memory and nearly "
    "the same labels; 0 takes each image as a whole"
)
PRECISION = "of the network at inference; auto: bf16 where the hardware computes it, else float32"


class InputSettings(Settings):
    """What images are like that are not 8-bit gray or RGB: found once, by the training images.

    Values that are no bytes become such: low is 0 and high is 255, one number for all channels or
    one for each. mean and std are the bytes' own, of each channel.
    """

    channels: int = Field(3, ge=1, le=256, description="of an image; gray is repeated to 3")
    page: int | None = Field(None, ge=0, description="which of a TIFF's pages, from 0; null: one")
    low: tuple[float, ...] | None = Field(None, description="values that become 0; null: bytes")
    high: tuple[float, ...] | None = Field(None, description="values that become 255")
    mean: tuple[float, ...] | None = Field(
        None, description="of each channel's bytes, which become 0; null: the backbone's own"
    )
    std: tuple[float, ...] | None = Field(None, description="standard deviations, likewise")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        low, high = self.low or (), self.high or ()
        if len(low) != len(high) or len(low) not in (0, 1, self.channels):
            raise ValueError("low and high need one number, or one for each channel")
        if any(a >= b for a, b in zip(low, high, strict=True)):
            raise ValueError("low must be below high")
        mean, std = self.mean or (), self.std or ()
        if len(mean) != len(std) or len(mean) not in (0, self.channels):
            raise ValueError("mean and std need one number for each channel")
        if self.channels != 3 and not mean:
            raise ValueError("other than three channels need mean and std")
        if any(value <= 0 for value in std):
            raise ValueError("std must be above 0")
        return self


class BackboneSettings(Settings):
    """The network that classifier and affinity network stand on."""

    name: str = Field(
        "mobilenetv2_100",
        description="resnet38, vgg16 (the paper's), or the name of a timm model, convolutional or "
        "a transformer (docs/backbones.md)",
    )
    weights: str = Field(
        "imagenet",
        description="imagenet (timm downloads them), none (random), or a local weights file; "
        "a relative path is looked up from the working folder, then from the data folder",
    )
    input: InputSettings | None = Field(
        None,
        description="channels, range, mean and deviation of images that are not 8-bit gray or RGB; "
        "null: found in the training images when the run folder is made, where they need it",
    )


class CrfSettings(Settings):
    """Dense CRF: mean-field steps, and the two kernels' widths and weights."""

    # The lattice holds features up to 50,000 deviations: at a width of 0.1, images of 5,000 pixels.
    iterations: int = Field(10, ge=0, description="mean-field steps")
    gaussian_sxy: float = Field(3, ge=0.1, description="width of the smoothness kernel in pixels")
    gaussian_compat: float = Field(3, ge=0, description="weight of the smoothness kernel")
    bilateral_sxy: float = Field(
        80, ge=0.1, description="spatial width of the appearance kernel in pixels"
    )
    bilateral_srgb: float = Field(
        13, ge=0.1, description="color width of the appearance kernel, in units of 0 to 255"
    )
    bilateral_compat: float = Field(10, ge=0, description="weight of the appearance kernel")
