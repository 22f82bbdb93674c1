"""The sections of a recipe: every setting with its bounds and what it means."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from affinitynet.run_folder.setting_types import ascending, countable, source_of, with_train


class Settings(BaseModel):
    """A section of a recipe: unknown keys are errors, values don't change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Precision = Literal["auto", "float32", "bf16", "fp16"]
PRECISION = "of the network at inference; auto: bf16 where the hardware computes it, else float32"


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


class TrainingSettings(Settings):
    """What the three trainings share; the defaults are the paper's code: SGD with poly decay."""

    epochs: int = Field(15, ge=1, description="passes over the training split")
    steps: PositiveInt | None = Field(
        None, description="steps of batch_size images, in place of epochs; null: epochs count"
    )
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="sgd (the paper), or adamw, which needs a learning rate near 3e-4"
    )
    warmup: float = Field(
        0.0, ge=0, lt=1, description="share of the steps in which the learning rate rises from 0"
    )
    norm: Literal["frozen", "trained"] = Field(
        "frozen",
        description="pretrained batch normalization: frozen (the paper), or trained, which images "
        "unlike those of the weights need",
    )
    batch_size: int = Field(16, ge=1, description="images per step")
    learning_rate: float = Field(
        0.001, gt=0, description="at step 0, for pretrained layers; without momentum use 0.01"
    )
    head_rate: float = Field(10.0, gt=0, description="how many times faster new layers learn")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="of SGD; the original code used 5e-4 by accident"
    )
    weight_decay: float = Field(
        5e-4, ge=0, description="of weights; biases have none, and with adamw norms neither"
    )
    power: float = Field(
        0.9, ge=0, description="of the decay: learning rate x (1 - step / steps) ** power"
    )
    crop: int = Field(448, ge=32, description="side of the square training crop in pixels")
    jitter: bool = Field(
        True,
        description="change brightness, contrast and saturation by up to 0.3, hue by up to 0.1",
    )


class ClassifierSettings(TrainingSettings):
    """Stage 1: the multi-label classifier whose weights make the CAMs."""

    output_stride: Literal[8, 16, 32] = Field(
        16, description="of timm backbones; the paper's networks have 8"
    )
    long_side: Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(ascending)] = Field(
        (256, 512),
        description="resize the long side to a random length in this range before the crop",
    )
    pooling: Literal["average", "top"] = Field(
        "average",
        description="of a class's map: average (the paper), or top, the mean of the average and "
        "of the largest 5 %, for small objects",
    )
    balance: bool = Field(
        False, description="draw images of rare classes more often, by the root of how rare"
    )
    hold_out: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training images, or all of val where it has tags, kept aside to "
        "judge how well each tag was learned; 0: none",
    )


class CamSettings(Settings):
    """Stage 2: class activation maps."""

    source: Annotated[str, source_of("classifier", "contrast", "auto", function=True)] = Field(
        "classifier",
        description="classifier (the paper), contrast (with images that lack the tag), auto (both, "
        "and the better one of each class), or files:FOLDER with CAMs of your own by image name",
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
    precision: Precision = Field("auto", description=PRECISION)
    compile: bool = Field(
        False,
        description="compile the network first: takes half a minute and a C++ compiler, saves a "
        "seventh of the time per image on a CPU",
    )
    splits: Annotated[tuple[Literal["train", "val"], ...], AfterValidator(with_train)] = Field(
        ("train", "val"), description="roles to make CAMs for; those of val serve metrics only"
    )


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


class ConfidentSettings(Settings):
    """Stage 3: confident foreground and background out of the CAMs."""

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
    block: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="apply the CRF of larger images in blocks of this side "
        "in pixels, with less memory and nearly the same labels; 0 takes each image as a whole",
    )
    crf: CrfSettings = CrfSettings()


class AffinitySettings(TrainingSettings):
    """Stage 4: the affinity network."""

    source: Annotated[str, source_of("learnt")] = Field(
        "learnt", description="learnt (the paper), or files:FOLDER with affinities of your own"
    )
    epochs: int = Field(8, ge=1, description="passes over the training split")
    batch_size: int = Field(8, ge=1, description="images per step")
    output_stride: Literal[8, 16] = Field(
        8,
        description="of timm backbones; the walk's grid has stride 8 in either case",
    )
    scale: Literal[1, 2, 4] = Field(
        1,
        description="enlarge images before the network, which makes finer cells for small objects",
    )
    radius: int = Field(
        5, ge=2, le=20, description="compare cells that are closer than this (the paper's gamma)"
    )
    padding: Literal["mean", "black"] = Field(
        "mean", description="fills the crop around smaller images; black is the original code's"
    )
    start: Literal["backbone", "classifier"] = Field(
        "backbone",
        description="weights to start from: the backbone's (the paper) or the classifier's",
    )
    distance: Literal["mean", "sum"] = Field(
        "mean",
        description="of |f_i - f_j| over channels: mean (the paper's code) or sum (its text)",
    )
    pairs: Literal["grid", "cropped"] = Field(
        "grid",
        description="pairs to train on: all in the grid (the paper), or its code's cropped set",
    )


class WalkSettings(Settings):
    """Stage 5: the random walk and the masks that it makes."""

    beta: float = Field(8, gt=0, description="element-wise (Hadamard) power of the affinities")
    steps: int = Field(256, ge=0, le=1_000_000, description="steps of the walk (the paper's t)")
    alpha: float = Field(
        16, gt=0, description="exponent of the background map that walks with the classes"
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
    block: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="apply the CRF of larger images in blocks of this side "
        "in pixels, with less memory and nearly the same labels; 0 takes each image as a whole",
    )
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


class SegmenterSettings(TrainingSettings):
    """Stage 6: the segmentation network that the pseudo masks train."""

    architecture: str = Field(
        "deeplabv3plus",
        description="a segmentation-models-pytorch architecture, or largefov (DeepLab-v1 head on "
        "the paper's backbones)",
    )
    backbone: BackboneSettings | None = Field(
        None, description="its own backbone, with name and weights; null: the same as `backbone`"
    )
    start: Literal["backbone", "classifier"] = Field(
        "backbone",
        description="weights the encoder starts from: the backbone's or the classifier's",
    )
    output_stride: Literal[8, 16] = Field(16, description="of the encoder, if it can be chosen")
    scale_range: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(ascending)] = Field(
        (0.5, 2.0), description="resize by a random factor in this range in training"
    )
    crops: Literal["random", "objects"] = Field(
        "random",
        description="where training crops lie: random, or objects, three of four around a pixel of "
        "a class of the pseudo mask, each class alike, for small objects",
    )
    balance: bool = Field(
        False, description="draw images of rare classes more often, by the root of how rare"
    )
    loss: Literal["cross_entropy", "dice", "lovasz"] = Field(
        "cross_entropy",
        description="cross entropy alone, or with soft Dice or Lovasz-Softmax beside it, which "
        "count a small class as much as a large one",
    )
    class_weights: Literal["none", "root"] = Field(
        "none",
        description="of the cross entropy: none, or root, which weighs classes with less than a "
        "tenth of the pixels in the pseudo masks by the root of how much less, at most 10",
    )
    boundary_weight: float = Field(
        0.0, ge=0, description="weight of the boundary loss, KL(dense CRF || network)"
    )
    scales: tuple[PositiveFloat, ...] = Field(
        (0.75, 1.0, 1.25),
        min_length=1,
        description="image scales that predictions are averaged over",
    )
    flip: bool = Field(True, description="average predictions with those of the flipped image")
    refine: bool = Field(False, description="apply a dense CRF to predictions")
    crf: CrfSettings = CrfSettings()


class RelabelSettings(Settings):
    """The final masks: the segmentation network restricted to the tags of each image."""

    enabled: bool = Field(
        False, description="make final masks of the tagged images with the segmentation network"
    )
    refine: bool = Field(True, description="dense CRF on them")
    crf: CrfSettings = CrfSettings(bilateral_sxy=50, bilateral_srgb=5)


class EvaluateSettings(Settings):
    """Stage 7: metrics against ground truth, where there is any."""

    cam_background: float = Field(
        0.2, ge=0, le=1, description="background score of CAMs in the row with a fixed threshold"
    )
    sweep: Annotated[tuple[float, float, float], AfterValidator(countable)] = Field(
        (0.0, 0.6, 0.01),
        description="start, stop and step of the search for the best background score of CAMs",
    )
