"""How far to trust each mask, by how well the stages that made it agree: `trust.csv`.

A mask comes about in steps: the CAM, the walk, the pseudo mask after the dense CRF, the final mask
of the segmenter. Where an image is easy they say the same; where one of them tears the mask apart,
makes it run over the image or loses it, at least one of them is wrong. Only neighbors in this chain
are compared: a CAM points at the most telling part of an object, and may differ from a good final
mask by far.
"""

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinitynet.data.cams import load_cams
from affinitynet.data.labels import read_labels
from affinitynet.data.manifest import Manifest
from affinitynet.data.roles import samples_of
from affinitynet.data.sample import Sample
from affinitynet.progress import task
from affinitynet.run_folder.folder import output_path
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import RECORD
from affinitynet.run_folder.stages import (
    CAMS,
    MASKS,
    PSEUDO,
    WALK,
    Artifact,
    Stage,
    final_masks,
    stages_of,
)
from affinitynet.run_folder.tables import Table, read_table, write_table

TRUST = "trust.csv"  # in a run folder
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


def combine(parts: Sequence[float]) -> float:
    """Return the geometric mean of an image's agreements: one step that lost the object tells."""
    if not parts:
        return 1.0
    return float(np.prod(parts) ** (1 / len(parts)))


def trust_of(
    recipe: Recipe, manifest: Manifest, sample: Sample, steps: Steps
) -> tuple[float, ...] | None:
    """Return an image's agreements, one for each step; None for an image without a tag.

    Raises:
        UserError: a file is missing or can't be read.
    """
    if not sample.tags:
        return None
    labels: dict[Artifact, NDArray[np.integer[Any]]] = {}

    def read(artifact: Artifact) -> NDArray[np.integer[Any]]:
        if artifact not in labels:
            labels[artifact] = read_labels(output_path(recipe.out / artifact.folder, sample.id))
        return labels[artifact]

    found = []
    for first, second in steps:
        if first == CAMS:
            file = output_path(recipe.out / CAMS.folder, sample.id, CAMS.suffix)
            classes, cams = load_cams(file, classes=len(manifest.classes))
            found.append(agreement_with_maps(classes.tolist(), cams, read(second), sample.tags))
        else:
            found.append(agreement(read(first), read(second), sample.tags))
    return tuple(found)


def measure_trust(
    recipe: Recipe, manifest: Manifest, samples: Sequence[Sample] | None = None
) -> Table:
    """Return a table of the masks, the least trusted first: image, trust, and its parts.

    samples: the images to look at; None takes all that have final masks. An image without a tag
    has nothing to be mistaken about: its trust is 1, its parts are None.

    Raises:
        UserError: a file is missing or can't be read.
    """
    steps = steps_of(recipe)
    chosen = samples_of(recipe, manifest, "train", "figures") if samples is None else samples
    rows: list[tuple[float, str, tuple[float | None, ...]]] = []
    with (
        ThreadPoolExecutor(max(1, recipe.workers)) as pool,
        task("trust", len(chosen)) as progress,
    ):
        found = pool.map(lambda sample: trust_of(recipe, manifest, sample, steps), chosen)
        for sample, parts in zip(chosen, found, strict=True):
            trust = 1.0 if parts is None else combine(parts)
            rows.append((round(trust, 4), sample.id, parts or (None,) * len(steps)))
            progress.advance()
    rows.sort(key=lambda row: row[:2])
    table: Table = {
        "image": [name for _, name, _ in rows],
        "trust": [trust for trust, _, _ in rows],
    }
    for place, step in enumerate(steps):
        values = (parts[place] for _, _, parts in rows)
        table[part_name(step)] = [None if value is None else round(value, 4) for value in values]
    return table


def rank_masks(recipe: Recipe, manifest: Manifest, stage: Stage, *, missing: bool = False) -> None:
    """Write `trust.csv` once the stage that makes the final masks has made them all.

    missing: only where there is none yet. A run whose masks come from files alone has none: there
    is nothing that could agree.

    Raises:
        UserError: a file of the run is missing or can't be read.
    """
    file = recipe.out / TRUST
    if final_masks(recipe) not in stage.artifacts or (missing and file.is_file()):
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
        lines.append(f"trust: 0 for {lost} of {len(rows)} masks: a stage has lost their tags")
    if rows:
        shown = ", ".join(f"{name} ({trust:.2f})" for name, trust in rows[:count])
        lines.append(f"trust: least in {shown}; all are in {TRUST}, the least trusted first")
    return lines
