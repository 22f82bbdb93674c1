"""What several sections of a recipe have in common: backbone, dense CRF, precision."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# Settings that came later, with the value at which they change nothing. There they are left out of
# the fingerprints, so that runs from before they came are not stale.
LATER: dict[str, object] = {
    "affinity.train_radius": None,
    "affinity.stride": None,
    "cams.threshold": "maximum",
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
}

# What affinities of a frozen network's features depend on.
OF_FEATURES = (
    "seed",
    "backbone",
    *(
        f"affinity.{key}"
        for key in ("source", "start", "output_stride", "scale", "stride", "radius", "gamma")
    ),
)
# What masks without a walk depend on: the background of the CAMs, and the dense CRF.
WITHOUT_WALK = (
    "affinity.source",
    "networks.failed",
    *(f"walk.{key}" for key in ("alpha", "background", "background_score", "refine", "crf")),
)


class Settings(BaseModel):
    """A section of a recipe: unknown keys are errors, values don't change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Precision = Literal["auto", "float32", "bf16", "fp16"]
PRECISION = "of the network at inference; auto: bf16 where the hardware computes it, else float32"


class BackboneSettings(Settings):
    """The network that classifier and affinity network stand on."""

    name: str = Field(
        "mobilenetv2_100", description="resnet38, vgg16 (the paper's), or any timm model name"
    )
    weights: str = Field(
        "imagenet",
        description="imagenet (timm downloads them), none (random), or a local weights file; "
        "a relative path is looked up from the working folder, then from the data folder",
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
