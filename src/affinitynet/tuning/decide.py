"""Make an image's masks again from what a run keeps of it, as `propagate` makes them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affinitynet.data import Manifest, Sample, load_image
from affinitynet.data.cams import load_cams
from affinitynet.data.grids import load_affinity
from affinitynet.data.roles import samples_of
from affinitynet.data.sample import evenly
from affinitynet.data.sources.enlarge import grid_stride
from affinitynet.errors import UserError
from affinitynet.ops.propagation import enlarge_scores, label_scores
from affinitynet.run_folder.artifacts import AFFINITIES, CAMS
from affinitynet.run_folder.folder import output_path
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.settings import WalkSettings
from affinitynet.run_folder.store import is_there
from affinitynet.walking import guarded, refined, score_key, seeds_of, walked

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Case:
    """An image (H, W, 3) with its K maps (K, H, W) and affinities (P, h, w), ready to decide on.

    classes: of the maps. walks: scores that were walked before, by the settings they depend on.
    """

    sample: Sample
    image: Tensor
    classes: tuple[int, ...]
    cams: Tensor
    affinity: Tensor
    radius: int
    stride: int
    walks: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)


class Decision(NamedTuple):
    """Labels (H, W), 0 background and 1 .. K the image's maps: seeds, walk, with CRF, the mask."""

    seeds: Labels
    walk: Labels
    refined: Labels
    mask: Labels


def load_case(recipe: Recipe, manifest: Manifest, sample: Sample) -> Case:
    """Read an image with what the run keeps of it.

    Raises:
        UserError: a file is missing or damaged, or does not fit the image.
    """
    image = torch.from_numpy(load_image(sample.image, sample.reading))
    file = output_path(recipe.out / CAMS.folder, sample.id, CAMS.suffix)
    classes, cams = load_cams(file, classes=len(manifest.classes))
    kept = output_path(recipe.out / AFFINITIES.folder, sample.id, AFFINITIES.suffix)
    affinity, radius = load_affinity(kept)
    size = (image.shape[0], image.shape[1])
    stride = grid_stride((affinity.shape[1], affinity.shape[2]), size, 8)
    if stride is None or cams.shape[1:] != size:
        raise UserError(
            f"{sample.image}: its CAMs or affinities are of an image of another size: it was "
            "replaced; put the old one back, or make all again with --redo compute_cams"
        )
    maps = torch.from_numpy(cams)
    return Case(
        sample, image, tuple(classes.tolist()), maps, torch.from_numpy(affinity), radius, stride
    )


def find_samples(recipe: Recipe, manifest: Manifest, count: int) -> list[Sample]:
    """Choose tagged images that the run keeps affinities of, evenly over the list.

    Raises:
        UserError: there are none.
    """
    folder = recipe.out / AFFINITIES.folder
    able = [
        sample
        for sample in samples_of(recipe, manifest, "train", "figures")
        if sample.tags and is_there(output_path(folder, sample.id, AFFINITIES.suffix))
    ]
    if not able:
        raise UserError(
            f"{folder}: holds no affinities to decide again from; make them with --walk.keep "
            "affinities scores --redo propagate"
        )
    return evenly(able, count)


def decide(case: Case, walk: WalkSettings) -> Decision:
    """Decide an image by these settings: the same steps, in the same order, as the stage.

    The CRF is computed where `walk.refine` is off as well: how much it changes is a measure.
    """
    height, width = case.image.shape[:2]
    seeds = seeds_of(case.cams, walk)
    spread = enlarge_scores(_scores(case, walk).float(), case.stride, (height, width))
    seed_labels, walk_labels = label_scores(seeds), label_scores(spread)
    if walk.guard:
        spread = guarded(spread, seeds, seed_labels, walk_labels)
    after = label_scores(refined(case.image, spread, walk))
    mask = after if walk.refine else label_scores(spread)
    return Decision(*(labels.numpy() for labels in (seed_labels, walk_labels, after, mask)))


def _scores(case: Case, walk: WalkSettings) -> Tensor:
    key = score_key(walk)
    if key not in case.walks:
        scores = walked(case.cams, case.affinity, walk, radius=case.radius, stride=case.stride)
        # float16 as in the run's files: the masks must be the same.
        case.walks[key] = scores.to(torch.float16)
    return case.walks[key]


def in_data_set(case: Case, local: Labels) -> Labels:
    """Turn an image's own numbers, 1 .. K, into the data set's labels."""
    return np.array([0, *(index + 1 for index in case.classes)])[local]


def tags_of(case: Case) -> Iterable[int]:
    """Return the image's maps as tags in its own numbering."""
    return range(len(case.classes))
