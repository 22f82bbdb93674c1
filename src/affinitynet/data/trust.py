"""How far to trust each mask, by how well the stages that made it agree: `trust.csv`.

A mask comes about in steps: the CAM, the walk, the pseudo mask after the dense CRF, the final mask
of the segmenter. Where an image is easy they say the same; where one of them tears the mask apart,
makes it run over the image or loses it, at least one of them is wrong. Only neighbors in this chain
are compared: a CAM points at the most telling part of an object, and may differ from a good final
mask by far. Two more parts look at the ends: how sure the walk was, and how much larger the CAM is
inside of the final mask than outside.
"""

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinitynet.data.cams import load_cams
from affinitynet.data.grids import load_scores
from affinitynet.data.labels import read_labels
from affinitynet.data.manifest import Manifest
from affinitynet.data.roles import samples_of
from affinitynet.data.sample import Sample
from affinitynet.progress import task
from affinitynet.run_folder.artifacts import CAMS, MASKS, PSEUDO, SCORES, WALK, Artifact
from affinitynet.run_folder.folder import output_path
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import RECORD
from affinitynet.run_folder.stages import Stage, final_masks, stages_of
from affinitynet.run_folder.tables import Table, read_table, write_table

TRUST = "trust.csv"  # in a run folder
CONTRAST, MARGIN, SHOWN = "cam_contrast", "walk_margin", "tags_shown"  # columns beside the steps
CHAIN = (CAMS, WALK, PSEUDO, MASKS)
Steps = tuple[tuple[Artifact, Artifact], ...]


def steps_of(recipe: Recipe) -> Steps:
    """Return the pairs of neighbors in the chain from CAM to mask that this recipe makes."""
    made = {artifact for stage in stages_of(recipe) for artifact in stage.artifacts}
    chain = [artifact for artifact in CHAIN if artifact in made]
    return tuple(itertools.pairwise(chain))


def part_name(step: tuple[Artifact, Artifact]) -> str:
    """Return the name of a step's column: `walk_pseudo`."""
    return f"{step[0].folder}_{step[1].folder}"


def agreement(
    first: NDArray[np.integer[Any]], second: NDArray[np.integer[Any]], tags: Iterable[int]
) -> float:
    """Return how well two label maps (H, W) agree: the IoU of each tag, averaged over the tags.

    A tag that neither map shows counts as 0: both have missed it.
    """
    found = []
    for tag in tags:
        one, other = first == tag + 1, second == tag + 1
        union = np.count_nonzero(one | other)
        found.append(np.count_nonzero(one & other) / union if union else 0.0)
    return float(np.mean(found)) if found else 1.0


def agreement_with_maps(
    classes: Sequence[int],
    cams: NDArray[np.float32],
    labels: NDArray[np.integer[Any]],
    tags: Iterable[int],
) -> float:
    """Return how well CAMs (K, H, W) in [0, 1] and labels (H, W) agree, averaged over the tags.

    sum min(M, Y) / sum max(M, Y), the IoU of a map M and a mask Y of zeros and ones: no threshold
    has to say what the map shows.
    """
    found = []
    places = {int(index): place for place, index in enumerate(classes)}
    for tag in tags:
        shown = labels == tag + 1
        pixels = np.count_nonzero(shown)
        if tag not in places or not pixels:
            found.append(0.0)
            continue
        cam = cams[places[tag]]
        inside = float(cam[shown].sum(dtype=np.float64))
        # max(M, Y) is 1 inside of the mask, as M is at most 1, and M outside of it.
        found.append(inside / (pixels + float(cam.sum(dtype=np.float64)) - inside))
    return float(np.mean(found)) if found else 1.0


def map_contrast(cams: NDArray[np.float32], shown: NDArray[np.bool_]) -> float:
    """Return how much larger the CAMs (K, H, W) are inside of a mask (H, W) than outside.

    The mean of max_k M_k inside minus that outside, at least 0; 0 for a mask of nothing, or of all.
    """
    if not len(cams) or not shown.any() or shown.all():
        return 0.0
    largest = cams.max(0)
    return max(0.0, float(largest[shown].mean() - largest[~shown].mean()))


def walk_margin(scores: NDArray[np.float32]) -> float:
    """Return how far the walk's scores (K + 1, h, w) are from another decision where a class wins.

    The mean over its cells of (first - second) / sum of the scores; 0 where the background wins
    everywhere.
    """
    won = scores.argmax(0) > 0
    if not won.any():
        return 0.0
    ordered = np.sort(scores[:, won], axis=0)
    return float(((ordered[-1] - ordered[-2]) / np.maximum(ordered.sum(0), 1e-9)).mean())


def combine(parts: Sequence[float], shown: float) -> float:
    """Return the mean of an image's parts times the share of its tags that its mask shows.

    A tag that is not there is wrong for sure, whatever the stages agree about.
    """
    return float(np.mean(parts)) * shown if parts else shown


def columns_of(recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the parts that this recipe's files allow, as columns of `trust.csv`."""
    made = {artifact for stage in stages_of(recipe) for artifact in stage.artifacts}
    more = {CONTRAST: CAMS in made, MARGIN: SCORES in made}
    steps = [part_name(step) for step in steps_of(recipe)]
    return (*steps, *(name for name, there in more.items() if there), SHOWN)


def parts_of(
    recipe: Recipe, manifest: Manifest, sample: Sample, steps: Steps
) -> dict[str, float] | None:
    """Return an image's parts by the names of their columns; None for an image without a tag.

    Raises:
        UserError: a file is missing or can't be read.
    """
    if not sample.tags:
        return None
    classes = len(manifest.classes)
    labels: dict[Artifact, NDArray[np.integer[Any]]] = {}

    def file(artifact: Artifact) -> Path:
        return output_path(recipe.out / artifact.folder, sample.id, artifact.suffix)

    def read(artifact: Artifact) -> NDArray[np.integer[Any]]:
        if artifact not in labels:
            labels[artifact] = read_labels(file(artifact))
        return labels[artifact]

    final = read(final_masks(recipe))
    names, found = columns_of(recipe), dict[str, float]()
    if CONTRAST in names:
        indices, cams = load_cams(file(CAMS), classes=classes)
        found[CONTRAST] = map_contrast(cams, (final > 0) & (final != manifest.ignore_index))
    for step in steps:
        second = read(step[1])
        found[part_name(step)] = (
            agreement_with_maps(indices.tolist(), cams, second, sample.tags)
            if step[0] == CAMS
            else agreement(read(step[0]), second, sample.tags)
        )
    if MARGIN in names:
        found[MARGIN] = walk_margin(load_scores(file(SCORES), classes=classes)[1])
    present = set(np.unique(final).tolist())
    found[SHOWN] = sum(tag + 1 in present for tag in sample.tags) / len(sample.tags)
    return found


def measure_trust(
    recipe: Recipe, manifest: Manifest, samples: Sequence[Sample] | None = None
) -> Table:
    """Return a table of the masks, the least trusted first: image, trust, and its parts.

    samples: the images to look at; None takes all that have final masks. An image without a tag
    has nothing to be mistaken about: its trust is 1, its parts are None.

    Raises:
        UserError: a file is missing or can't be read.
    """
    steps, names = steps_of(recipe), columns_of(recipe)
    chosen = samples_of(recipe, manifest, "train", "figures") if samples is None else samples
    rows: list[tuple[float, str, dict[str, float]]] = []
    with (
        ThreadPoolExecutor(max(1, recipe.workers)) as pool,
        task("trust", len(chosen)) as progress,
    ):
        found = pool.map(lambda sample: parts_of(recipe, manifest, sample, steps), chosen)
        for sample, parts in zip(chosen, found, strict=True):
            own = [parts[name] for name in names if name != SHOWN] if parts else []
            trust = combine(own, parts[SHOWN]) if parts else 1.0
            rows.append((round(trust, 4), sample.id, parts or {}))
            progress.advance()
    rows.sort(key=lambda row: row[:2])
    table: Table = {
        "image": [name for _, name, _ in rows],
        "trust": [trust for trust, _, _ in rows],
    }
    for name in names:
        values = (parts.get(name) for _, _, parts in rows)
        table[name] = [None if value is None else round(value, 4) for value in values]
    return table


def rank_masks(recipe: Recipe, manifest: Manifest, stage: Stage, *, missing: bool = False) -> None:
    """Write `trust.csv` once the stage that makes the final masks has made them all.

    missing: only where there is none yet of what this recipe makes: one with other columns is of
    other masks, as after `relabel.enabled` was turned off. A run whose masks come from files alone
    has none: there is nothing that could agree.

    Raises:
        UserError: a file of the run is missing or can't be read.
    """
    file = recipe.out / TRUST
    if final_masks(recipe) not in stage.artifacts:
        return
    if missing and list(read_table(file, text=("image",))) == [
        "image",
        "trust",
        *columns_of(recipe),
    ]:
        return
    if steps_of(recipe):
        write_table(file, measure_trust(recipe, manifest))
    else:
        file.unlink(missing_ok=True)  # of masks that the run made before


def read_trust(recipe: Recipe) -> Table:
    """Return the table of `trust.csv`; empty where it is missing, damaged, or of masks before.

    While the final masks are being made again, the file still speaks of the old ones.
    """
    file = recipe.out / TRUST
    if not file.is_file() or not (recipe.out / final_masks(recipe).folder / RECORD).is_file():
        return {}
    found = read_table(file, text=("image",))
    return found if list(found)[:2] == ["image", "trust"] else {}


def least_trusted(table: Table, count: int = 5) -> list[str]:
    """Say in lines which masks to look at first: how many are lost, and the least trusted.

    None where no mask has a trust, and none of an image without tags.
    """
    rows = [
        (name, trust)
        for name, trust, *parts in zip(*table.values(), strict=True)
        if any(part is not None for part in parts)
    ]
    lines = []
    if lost := sum(trust == 0 for _, trust in rows):
        lines.append(f"trust: 0 for {lost} of {len(rows)} masks: they show none of their tags")
    if rows:
        shown = ", ".join(f"{name} ({trust:.2f})" for name, trust in rows[:count])
        lines.append(f"trust: least in {shown}; all are in {TRUST}, the least trusted first")
    return lines
