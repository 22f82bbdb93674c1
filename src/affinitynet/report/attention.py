"""What to look at first in a run: the masks to distrust, and the stages that made things worse."""

import itertools
from collections.abc import Iterable, Sequence

from affinitynet.data.judgements import read_judgements
from affinitynet.data.manifest import Manifest
from affinitynet.data.trust import least_trusted, read_trust
from affinitynet.report.figures import Figure
from affinitynet.report.sampling import Scored
from affinitynet.report.table import percent
from affinitynet.run_folder.artifacts import CAMS, MASKS, PSEUDO, WALK
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import StageFolder
from affinitynet.run_folder.stages import Stage, final_masks, stages_of

CHAIN = tuple(artifact.row for artifact in (CAMS, WALK, PSEUDO, MASKS))
WORSE = 0.01  # of mIoU: less is noise
Note = tuple[str, str]  # where, and what


def look_first(
    recipe: Recipe, figures: Sequence[Figure], scored: Sequence[Scored], manifest: Manifest
) -> list[Note]:
    """Return what is wrong as (where, sentence), the masks first.

    scored: the images whose masks were held against ground truth.

    Raises:
        UserError: a record of the run is damaged.
    """
    stages = stages_of(recipe)
    trust = (("trust", text.removeprefix("trust: ")) for text in least_trusted(read_trust(recipe)))
    judged = read_judgements(recipe.out, stages)
    found = [*_empty(recipe, stages), *trust, *_missed(recipe, scored), *_worse(figures)]
    return [*found, *judged]


def missed_objects(scored: Iterable[Scored], manifest: Manifest) -> list[tuple[str, str]]:
    """Return (image, class) of each object of the ground truth that its mask shows nothing of."""
    return [
        (entry.sample.id, manifest.classes[label - 1])
        for entry in sorted(scored, key=lambda entry: entry.sample.id)
        for label in entry.missed
    ]


def _empty(recipe: Recipe, stages: Iterable[Stage]) -> list[Note]:
    final = final_masks(recipe)
    for stage in stages:
        if final not in stage.artifacts:
            continue
        record = StageFolder(recipe.out / stage.folder, stage.name).record()
        counts = record.figures.get("empty") if record else None
        if isinstance(counts, dict) and counts.get("empty"):
            lost, images = counts["empty"], counts.get("images")
            return [(stage.name, f"{lost} of {images} masks hold nothing of their tags")]
    return []


def _missed(recipe: Recipe, scored: Sequence[Scored]) -> list[Note]:
    objects = sum(len(entry.missed) for entry in scored)
    if not objects:
        return []
    said = f"miss {objects} object{'s' * (objects > 1)} of the ground truth; they are listed below"
    return [(final_masks(recipe).folder, said)]


def _worse(figures: Iterable[Figure]) -> list[Note]:
    """Name the steps from CAM to final mask after which mIoU was lower than before."""
    known: dict[str, dict[str, float]] = {}
    for figure in figures:
        if figure.stage in CHAIN and figure.miou is not None:
            rows = known.setdefault(figure.split, {})
            # Of the CAMs' two rows the better one: at a poor threshold anything is better.
            rows[figure.stage] = max(figure.miou, rows.get(figure.stage, 0.0))
    notes = []
    for split, rows in known.items():
        order = [name for name in CHAIN if name in rows]
        for before, after in itertools.pairwise(order):
            if rows[after] < rows[before] - WORSE:
                said = f"is worse than {before} on {split}: mIoU {percent(rows[after])} after"
                notes.append((after, f"{said} {percent(rows[before])}"))
    return notes
