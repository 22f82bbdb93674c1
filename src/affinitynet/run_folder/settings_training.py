"""The sections of a recipe that train a network: classifier, affinity network, segmenter."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from affinitynet.run_folder.setting_types import ascending, source_of
from affinitynet.run_folder.settings_base import BLOCK, BackboneSettings, CrfSettings, Settings


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
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="a pretrained layer learns at this times the rate of the one behind it (0.65 "
        "to 0.8 for transformers); 1: all alike",
    )
    learns: Literal["all", "head"] = Field(
        "all", description="all, or head: what is pretrained stays as it is"
    )
    crop: int = Field(448, ge=32, description="side of the square training crop in pixels")
    jitter: bool = Field(
        True,
        description="change brightness, contrast and saturation by up to 0.3, hue by up to 0.1",
    )


class ClassifierSettings(TrainingSettings):
    """Stage 1: the multi-label classifier whose weights make the CAMs."""

    output_stride: Literal[8, 16, 32] | None = Field(
        16,
        description="of timm backbones; the paper's networks have 8, transformers none (null)",
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


class AffinitySettings(TrainingSettings):
    """Stage 4: the affinity network."""

    source: Annotated[str, source_of("learnt", "boundary", "features", "none")] = Field(
        "learnt",
        description="learnt (the paper), boundary (IRN: what no class boundary parts belongs "
        "together), features (of the frozen network, no training), none (no walk), or "
        "files:FOLDER with affinities of your own",
    )
    epochs: int = Field(8, ge=1, description="passes over the training split")
    batch_size: int = Field(8, ge=1, description="images per step")
    output_stride: Literal[8, 16] | None = Field(
        8,
        description="of timm backbones; the walk's grid is the same in either case; transformers "
        "have none (null), and the grid of their patches",
    )
    scale: Literal[1, 2, 4] = Field(
        1,
        description="enlarge images before the network, which makes finer cells for small objects",
    )
    radius: int = Field(
        5, ge=2, le=20, description="compare cells that are closer than this (the paper's gamma)"
    )
    train_radius: Annotated[int, Field(ge=2, le=20)] | None = Field(
        None, description="the same for the pairs of the training; null: radius, with boundary 10"
    )
    stride: Literal[4, 8] | None = Field(
        None,
        description="side of the walk's cells in pixels; null: 8 / scale, with boundary 4 / "
        "scale, at least 2",
    )
    gamma: float = Field(1.0, gt=0, description="with source features: exponent of the cosine")
    padding: Literal["mean", "black"] = Field(
        "mean", description="fills the crop around smaller images; black is the original code's"
    )
    start: Literal["backbone", "classifier"] = Field(
        "backbone",
        description="weights to start from: the backbone's (the paper) or the classifier's",
    )
    distance: Literal["mean", "sum"] = Field(
        "mean",
        description="of |f_i - f_j| over channels: mean (the paper's code) or sum (its text, by "
        "which nothing is learned)",
    )
    pairs: Literal["grid", "cropped"] = Field(
        "grid",
        description="pairs to train on: all in the grid (the paper), or its code's cropped set",
    )


class SegmenterSettings(TrainingSettings):
    """Stage 6: the segmentation network that the pseudo masks train."""

    architecture: str = Field(
        "deeplabv3plus",
        description="a segmentation-models-pytorch architecture, or largefov (DeepLab-v1 head on "
        "the paper's backbones); left out: dpt on plain transformers, segformer on pyramids",
    )
    backbone: BackboneSettings | None = Field(
        None, description="its own backbone, with name and weights; null: the same as `backbone`"
    )
    start: Literal["backbone", "classifier"] = Field(
        "backbone",
        description="weights the encoder starts from: the backbone's or the classifier's",
    )
    output_stride: Literal[8, 16] | None = Field(
        16, description="of the encoder, if it can be chosen; transformers have none (null)"
    )
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
    clamp: float = Field(
        0.0,
        ge=0,
        description="once the cross entropy is below this, that of a pixel is at most the mean "
        "of its patch or of the batch, as labels that nothing around supports are often wrong "
        "(WeakTr: 1.2); 0: never",
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="keep the moving average of the weights with this decay a step, such as 0.999, "
        "in place of the last; 0: the last",
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
    block: int = Field(0, ge=0, le=1_000_000, description=BLOCK)
    crf: CrfSettings = CrfSettings()
