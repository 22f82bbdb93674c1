"""The sections of a recipe: every setting with its bounds and what it means.

Those that train a network stand in `settings_training`, what sections share in `settings_base`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from affinitynet.run_folder.setting_types import (
    Url,
    ascending,
    countable,
    source_of,
    with_train,
)
from affinitynet.run_folder.settings_base import (
    BLOCK,
    MOST_ROUNDS,
    PRECISION,
    BackboneSettings,
    CrfSettings,
    Precision,
    Settings,
)
from affinitynet.run_folder.settings_training import (
    AffinitySettings,
    ClassifierSettings,
    SegmenterSettings,
    TrainingSettings,
)

__all__ = [
    "PRECISION",
    "AffinitySettings",
    "BackboneSettings",
    "CamSettings",
    "ClassifierSettings",
    "ConfidentSettings",
    "ContrastSettings",
    "CrfSettings",
    "DatasetSettings",
    "EvaluateSettings",
    "NetworksSettings",
    "Precision",
    "PseudoSettings",
    "RelabelSettings",
    "SegmenterSettings",
    "Settings",
    "TrainingSettings",
    "WalkSettings",
]


REGIONS = (
    "none, or files:FOLDER with label maps of regions of no class (PNG of 16 bits, .npy, .npz) by "
    "image name: a class takes each that it covers more than half of"
)


class DatasetSettings(Settings):
    """How to read the folder of images and tags."""

    format: Literal["auto", "voc", "table", "folder", "coco", "labelstudio", "cvat", "mvtec"] = (
        Field("auto", description="layout of the folder; auto recognizes it")
    )
    classes: tuple[str, ...] | None = Field(
        None, description="class names in order, without background; null: those that occur"
    )
    tags: Literal["auto", "table", "annotations", "masks"] = Field(
        "auto", description="where the tags come from; masks is for experiments only"
    )
    background: tuple[str, ...] = Field(
        (),
        description="class folders, or labels of a table, that say background, as good or normal",
    )
    train: str = Field(
        "train", description="split to train on; its tags are all that is learned from"
    )
    val: str | None = Field("val", description="split for metrics on unseen images; null: none")
    figures: str | None = Field(
        None,
        description="split with ground truth for metrics on training images; null: that of train",
    )
    page: int | None = Field(
        None, ge=0, description="which page of TIFFs of several to read, from 0; null: refuse those"
    )
    images: Url | None = Field(
        None,
        description="URL below which a table's images lie, as s3://bucket/photos; null: they lie "
        "with it in the data set's folder",
    )
    range: Annotated[tuple[float, float], AfterValidator(ascending)] | None = Field(
        None,
        description="values of 16-bit, integer or float images that become black and white; null: "
        "what the training images hold",
    )


class CamSettings(Settings):
    """Stage 2: class activation maps."""

    source: Annotated[
        str, source_of("classifier", "contrast", "auto", "attention", "text", function=True)
    ] = Field(
        "classifier",
        description="classifier (the paper), contrast (with images that lack the tag), auto (both, "
        "and the better one of each class), attention (the classifier's times what a transformer's "
        "class token attends to), text (what a CLIP tower's image has of cams.text), or "
        "files:FOLDER with CAMs of your own by image name",
    )
    text: str | None = Field(
        None,
        pattern=r"\.safetensors$",
        description="file of text embeddings for source text, made by examples/text_embeddings.py; "
        "looked up as backbone.weights",
    )
    classes: tuple[str, ...] | None = Field(
        None,
        description="what the class numbers in files mean, in order from 0 without background; "
        "null: the data set's classes, in a VOC devkit VOC's twenty",
    )
    scales: tuple[PositiveFloat, ...] = Field(
        (0.5, 1.0, 1.5, 2.0), min_length=1, description="image scales whose CAMs are summed"
    )
    flip: bool = Field(True, description="add the horizontally flipped image at each scale")
    threshold: Literal["maximum", "quantile"] = Field(
        "maximum",
        description="what a classifier's map is measured by: its own maximum (the paper), or "
        "quantile: what maps of images without the tag reach, as contrast.quantile says",
    )
    precision: Precision = Field("auto", description=PRECISION)
    compile: bool = Field(
        False,
        description="compile the network first: takes half a minute and a C++ compiler, saves a "
        "seventh of the time per image on a CPU",
    )
    splits: Annotated[tuple[Literal["train", "val"], ...], AfterValidator(with_train)] = Field(
        ("train", "val"), description="roles to make CAMs for; those of val serve metrics only"
    )

    @model_validator(mode="after")
    def _fits_its_source(self) -> Self:
        if self.compile and self.source in ("attention", "text"):
            raise ValueError("compile is for the classifier's maps: set it to false")
        if self.source == "text" and self.text is None:
            raise ValueError(
                "source = text needs embeddings: give cams.text the file that "
                "examples/text_embeddings.py makes"
            )
        return self


class ContrastSettings(Settings):
    """CAMs by contrast: how unlike a patch is to those of images without the tag."""

    features: Literal["imagenet", "classifier"] = Field(
        "imagenet",
        description="network that describes patches: the backbone as it was before any training, "
        "or the trained classifier's",
    )
    strides: tuple[Literal[4, 8, 16, 32], ...] = Field(
        (8, 16),
        min_length=1,
        description="maps that describe a patch, by their stride; the first is the grid",
    )
    long_side: PositiveInt | None = Field(
        768, description="resize the long side to this many pixels first; null: images as they are"
    )
    bank: int = Field(8000, ge=1, description="patches of images without the tag, for each class")
    choice: Literal["random", "coreset"] = Field(
        "random", description="of the bank's patches; coreset (PatchCore) takes minutes a class"
    )
    neighbors: int = Field(
        3, ge=1, description="nearest patches of the bank whose mean distance is the score"
    )
    quantile: float = Field(
        0.99,
        gt=0.5,
        le=1,
        description="share of the patches of images without the tag that stay below one, from "
        "where on a patch counts as the class",
    )
    precision: Precision = Field("float32", description=PRECISION)


class ConfidentSettings(Settings):
    """Stage 3: confident foreground and background out of the CAMs."""

    rule: Literal["alphas", "thresholds"] = Field(
        "alphas",
        description="what CAMs compete with: the background of two alphas (the paper), or two "
        "constant thresholds (IRN)",
    )
    foreground_over: float = Field(
        0.30, ge=0, le=1, description="with thresholds: what a map is over where it is foreground"
    )
    background_under: float = Field(
        0.05, ge=0, le=1, description="with thresholds: what all are under where it is background"
    )
    low_alpha: float = Field(
        4, gt=0, description="exponent of the strong background: what beats it is foreground"
    )
    high_alpha: float = Field(
        32, gt=0, description="exponent of the weak background: where it wins is background"
    )
    priority: Literal["background", "foreground"] = Field(
        "background",
        description="who gets a pixel that both claim: background (the code), foreground (IRN)",
    )
    source: Annotated[str, source_of("cams", "truth")] = Field(
        "cams",
        description="cams (the paper), files:FOLDER with label maps of your own, or truth: the "
        "ground truth, an upper bound for ablations",
    )
    block: int = Field(0, ge=0, le=1_000_000, description=BLOCK)
    regions: Annotated[str, source_of("none")] = Field("none", description=REGIONS)
    crf: CrfSettings = CrfSettings()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.background_under > self.foreground_over:
            raise ValueError("background_under must be at most foreground_over")
        return self


class WalkSettings(Settings):
    """Stage 5: the random walk and the masks that it makes."""

    method: Literal["power", "restart"] = Field(
        "power",
        description="power: so many steps (the paper); restart: any number, each with its chance",
    )
    restart: float = Field(
        0.01, ge=1e-6, le=1, description="with method restart: chance of a step to begin again"
    )
    beta: float = Field(8, gt=0, description="element-wise (Hadamard) power of the affinities")
    steps: int = Field(256, ge=0, le=1_000_000, description="steps of the walk (the paper's t)")
    alpha: float = Field(
        16, gt=0, description="exponent of the background map that walks with the classes"
    )
    background: Literal["alpha", "constant", "relative", "auto"] = Field(
        "alpha",
        description="alpha: a map that walks with the classes (the paper); constant: "
        "background_score everywhere; relative: the same once the largest score is 1 (IRN); auto: "
        "constant where choose_cams took the classifier's maps for all classes, else alpha",
    )
    background_score: float = Field(
        0.25, ge=0, le=1, description="of the background, where that is not by alpha"
    )
    refine: bool = Field(
        True, description="apply a dense CRF after the walk (the paper's text; its code does not)"
    )
    guard: bool = Field(
        False,
        description="a class that the walk spreads over the image, or of whose seeds it leaves "
        "less than a tenth, keeps its seeds in that image",
    )
    keep: tuple[Literal["affinities", "scores"], ...] = Field(
        ("affinities", "scores"),
        description="files to keep per image: affinities allow another walk without the network, "
        "scores another CRF without the walk",
    )
    precision: Precision = Field("auto", description=PRECISION)
    block: int = Field(0, ge=0, le=1_000_000, description=BLOCK)
    crf: CrfSettings = CrfSettings()

    @model_validator(mode="before")
    @classmethod
    def _scores_became_keep(cls, values: Any) -> Any:
        """Read `scores`, the setting of version 0.1 that asked for what is now kept anyway."""
        if not isinstance(values, dict) or "scores" not in values:
            return values
        keep = ("affinities", "scores") if values["scores"] else ("affinities",)
        return {"keep": keep} | {key: value for key, value in values.items() if key != "scores"}


class PseudoSettings(Settings):
    """The masks that train the segmentation network."""

    source: Annotated[str, source_of("walk")] = Field(
        "walk", description="walk (the paper), or files:FOLDER with masks of your own"
    )
    regions: Annotated[str, source_of("none")] = Field("none", description=REGIONS)


class RelabelSettings(Settings):
    """The final masks: the segmentation network restricted to the tags of each image."""

    enabled: bool = Field(
        False, description="make final masks of the tagged images with the segmentation network"
    )
    odds: float = Field(
        1.0,
        ge=1,
        le=1000,
        description="weight of the mask that taught the segmentation network: its label's odds "
        "against any other, beside what the network says; 1: the network alone decides",
    )
    refine: bool = Field(True, description="dense CRF on them")
    block: int = Field(0, ge=0, le=1_000_000, description=BLOCK)
    crf: CrfSettings = CrfSettings(bilateral_sxy=50, bilateral_srgb=5)
    rounds: int = Field(
        1,
        ge=1,
        le=MOST_ROUNDS,
        description="trainings of the segmentation network; each but the first learns from the "
        "final masks of the one before",
    )
    confidence: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="with rounds: pixels whose label has a probability below this don't teach the "
        "next one (CLIP-ES: 0.95); 0: all do",
    )
    agreement: bool = Field(
        False,
        description="with rounds: pixels that the smallest and the largest of segmenter.scales "
        "label differently don't teach the next one",
    )

    @model_validator(mode="after")
    def _rounds_need_masks(self) -> Self:
        if self.rounds > 1 and not self.enabled:
            raise ValueError("rounds above 1 learn from final masks: set relabel.enabled = true")
        return self


class EvaluateSettings(Settings):
    """Stage 7: metrics against ground truth, where there is any."""

    cam_background: float = Field(
        0.2, ge=0, le=1, description="background score of CAMs in the row with a fixed threshold"
    )
    sweep: Annotated[tuple[float, float, float], AfterValidator(countable)] = Field(
        (0.0, 0.6, 0.01),
        description="start, stop and step of the search for the best background score of CAMs",
    )


class NetworksSettings(Settings):
    """The networks of another run, by which `affinitynet apply` makes masks of new images."""

    run: Path | None = Field(
        None,
        description="run folder whose networks, banks and choices are taken, so that nothing is "
        "trained; affinitynet apply writes this section",
    )
    failed: tuple[str, ...] = Field(
        (), description="classes whose maps were no use in that run: they are neutral here too"
    )
    unlearnt: tuple[str, ...] = Field(
        (),
        description="classes that its segmenter did not find: their images keep the pseudo masks",
    )
