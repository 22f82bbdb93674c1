"""What stages leave in a run folder: each artifact's folder, files, title, and row of figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.setting_types import is_imported
from affinitynet.run_folder.settings_base import MOST_ROUNDS

FIGURES = "figures.json"  # in the folder of `evaluate`
CHOICE = "choice.json"  # in that of `choose_cams`
RANGES = "ranges.json"  # in that of the classifier's CAMs, measured by quantile
BANKS = "banks.safetensors"  # in that of the CAMs by contrast
WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"  # in that of a network
CORRECTIONS = "corrections"  # a folder that people fill, and no stage: masks drawn by hand


class Conditions(NamedTuple):
    """The conditions under which masks were made, as a row of figures shows them."""

    tags: bool
    crf: bool
    tta: str  # test-time augmentation


@dataclass(frozen=True)
class Artifact:
    """A folder that a stage fills: a file for each image, or one thing.

    suffix: of the files, "" where the folder holds one thing. title: heads its column of pictures.
    row: its name among the figures, and conditions: what such a row says of it; "" and None where
    it isn't measured. roles: of the splits whose images have a file, where those are not the
    stage's. labels: its files are label maps, which can be exported.
    """

    folder: str
    suffix: str = ""
    title: str = ""
    row: str = ""
    conditions: Callable[[Recipe], Conditions] | None = None
    roles: tuple[str, ...] = ()

    @property
    def labels(self) -> bool:
        """Tell whether its files are label maps of all images, which have a title."""
        return self.suffix == ".png" and bool(self.title)


def _augmentation(scales: Sequence[float], flip: bool) -> str:
    if tuple(scales) == (1.0,) and not flip:
        return "none"
    return f"scales {', '.join(f'{s:g}' for s in scales)}" + (" and flip" if flip else "")


def _cam_tta(recipe: Recipe) -> str:
    if is_imported(recipe.cams.source):
        return "unknown"
    if recipe.cams.source == "contrast":
        return "none"
    return _augmentation(recipe.cams.scales, recipe.cams.flip)


def _confident_conditions(recipe: Recipe) -> Conditions:
    if recipe.confident.source != "cams":
        # Made by another program, or drawn by hand: nothing is known of an augmentation.
        return Conditions(tags=True, crf=False, tta="unknown")
    return Conditions(tags=True, crf=recipe.confident.crf.iterations > 0, tta=_cam_tta(recipe))


def _pseudo_conditions(recipe: Recipe) -> Conditions:
    if recipe.pseudo.source != "walk":
        return Conditions(tags=True, crf=False, tta="unknown")
    return Conditions(tags=True, crf=recipe.walk.refine, tta=_cam_tta(recipe))


def _segmenter_conditions(recipe: Recipe) -> Conditions:
    settings = recipe.segmenter
    return Conditions(False, settings.refine, _augmentation(settings.scales, settings.flip))


def _final_conditions(recipe: Recipe) -> Conditions:
    # The segmenter's labels, restricted to the image's tags.
    return _segmenter_conditions(recipe)._replace(tags=True, crf=recipe.relabel.refine)


CLASSIFIER = Artifact("classifier")
CAMS = Artifact("cams", ".npz", "CAM", "cam", lambda r: Conditions(True, False, _cam_tta(r)))
# With `cams.source = auto`: what each source makes, before one of them becomes `cams`.
CAMS_CLASSIFIER = Artifact(
    "cams_classifier",
    ".npz",
    row="cams_classifier",
    conditions=lambda r: Conditions(True, False, _augmentation(r.cams.scales, r.cams.flip)),
)
CAMS_CONTRAST = Artifact(
    "cams_contrast",
    ".npz",
    row="cams_contrast",
    conditions=lambda r: Conditions(True, False, "none"),
)
CONFIDENT = Artifact("confident", ".png", "Confident", "confident", _confident_conditions)
AFFINITY = Artifact("affinity")
AFFINITIES = Artifact("affinities", ".npz")
SCORES = Artifact("scores", ".npz")
WALK = Artifact(
    "walk", ".png", "Random walk", "walk", lambda r: Conditions(True, False, _cam_tta(r))
)
PSEUDO = Artifact("pseudo", ".png", "Pseudo mask", "pseudo", _pseudo_conditions)
SEGMENTER = Artifact("segmenter")
PREDICTIONS = Artifact(
    "predictions", ".png", "Prediction", "segmenter", _segmenter_conditions, roles=("val",)
)
MASKS = Artifact("masks", ".png", "Final mask", "masks", _final_conditions)
UNCORRECTED = Artifact("uncorrected", ".png")  # final masks before a correction, for `evaluate`
EVALUATION = Artifact("evaluation")


@dataclass(frozen=True)
class Round:
    """What one training of the segmenter and its final masks leave.

    number: 0 is the last round, whose folders are those that people use; the ones before count from
    1. certain: the masks with uncertain pixels neutral, which teach the next round; the last has
    none.
    """

    number: int
    segmenter: Artifact
    predictions: Artifact
    masks: Artifact
    uncorrected: Artifact
    certain: Artifact | None = None

    def stage(self, work: str) -> str:
        """Name the stage that does this work in this round: `relabel_1`."""
        return f"{work}_{self.number}" if self.number else work


def _earlier(number: int) -> Round:
    return Round(
        number,
        Artifact(f"segmenter_{number}"),
        # Without a title: what is shown and exported is the last round's.
        Artifact(
            f"predictions_{number}",
            ".png",
            row=f"segmenter_{number}",
            conditions=_segmenter_conditions,
            roles=("val",),
        ),
        Artifact(
            f"masks_{number}",
            ".png",
            f"Mask of round {number}",
            f"masks_{number}",
            _final_conditions,
        ),
        Artifact(f"uncorrected_{number}", ".png"),
        Artifact(
            f"certain_{number}", ".png", row=f"certain_{number}", conditions=_final_conditions
        ),
    )


EARLIER = tuple(_earlier(number) for number in range(1, MOST_ROUNDS))
LAST = Round(0, SEGMENTER, PREDICTIONS, MASKS, UNCORRECTED)
_CERTAIN = tuple(each.certain for each in EARLIER if each.certain)
# Read with corrections laid over them, by all but `evaluate`.
CORRECTED = (PSEUDO, *(each.masks for each in EARLIER), *_CERTAIN, MASKS)
PARTIAL = (CONFIDENT, *_CERTAIN)  # label maps with neutral pixels, of which they say nothing

# In the order in which they are made. The second entry is a stage that makes it: of the
# affinities that is `train_affinity` where they come from files, of the CAMs any of three.
MADE_BY = (
    (CLASSIFIER, "train_classifier"),
    (CAMS, "compute_cams"),
    (CAMS_CLASSIFIER, "compute_cams"),
    (CAMS, "compute_contrast"),
    (CAMS_CONTRAST, "compute_contrast"),
    (CAMS, "choose_cams"),
    (CONFIDENT, "mine_confident"),
    (AFFINITY, "train_affinity"),
    (AFFINITIES, "propagate"),
    (SCORES, "propagate"),
    (WALK, "propagate"),
    (PSEUDO, "propagate"),
    *(
        (artifact, each.stage(work))
        for each in EARLIER
        for artifact, work in (
            (each.segmenter, "train_segmenter"),
            (each.predictions, "train_segmenter"),
            (each.masks, "relabel"),
            (each.uncorrected, "relabel"),
            (each.certain, "relabel"),
        )
        if artifact
    ),
    (SEGMENTER, "train_segmenter"),
    (PREDICTIONS, "train_segmenter"),
    (MASKS, "relabel"),
    (UNCORRECTED, "relabel"),
    (EVALUATION, "evaluate"),
)
ARTIFACTS = tuple(dict.fromkeys(artifact for artifact, _ in MADE_BY))
NAMES = tuple(dict.fromkeys(name for _, name in MADE_BY))
FOLDERS = tuple(artifact.folder for artifact in ARTIFACTS)
CLEANED = (*FOLDERS, CORRECTIONS)  # of what an ended process left half written
