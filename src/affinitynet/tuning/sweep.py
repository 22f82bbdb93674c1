"""`sweep_run`: what values of the walk's settings are worth, decided from what a run keeps."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from affinitynet.data import Manifest, Sample
from affinitynet.data.chosen_maps import settled
from affinitynet.data.labels import Labels
from affinitynet.data.of_run import manifest_of
from affinitynet.data.sample import evenly
from affinitynet.data.scoring import Confusion, count_pairs, intersection_over_union
from affinitynet.data.truth import load_truth
from affinitynet.errors import UserError
from affinitynet.progress import task
from affinitynet.run_folder.folder import RECIPE
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.settings import WalkSettings
from affinitynet.tuning.decide import Case, decide, find_samples, in_data_set, load_case
from affinitynet.tuning.measures import MEASURES
from affinitynet.walking import SCORED

WITHOUT_NETWORK = (*SCORED, "guard", "refine", "block", "crf")  # settings of the walk
MOST = 1000  # combinations


def sweep_run(
    run: str | Path, values: Mapping[str, Sequence[Any]], *, images: int = 40
) -> dict[str, Any]:
    """Decide a run's masks by each combination of values, in memory: nothing is written.

    values: of settings of the walk, as `{"walk.beta": (4, 8, 16)}`. images: that are looked at,
    with ground truth if the data set has it, evenly over the list.

    Returns a plain document: images, by (`truth` or `measures`), rows: the values, and `miou` or
    each measure without truth, of which higher is better (docs/choosing-settings.md).

    Raises:
        UserError: no run, no affinities kept, a value that does not fit, or a setting that can't
            be decided again without a network, and how to try that.
    """
    for key in values:
        check_setting(key)
    recipe = Recipe.load(Path(run) / RECIPE, out=Path(run))
    manifest = manifest_of(recipe.out)
    combinations = [dict(zip(values, found, strict=True)) for found in product(*values.values())]
    if not values or len(combinations) > MOST:
        raise UserError(
            f"{len(combinations) if values else 0} combinations to try: give 1 to {MOST}, "
            "as in --walk.beta 4 8 16"
        )
    loaded = [Recipe.load(recipe.out / RECIPE, out=recipe.out, **found) for found in combinations]
    samples, judged = _samples(recipe, manifest, images)
    walks = [settled(changed, recipe.out, manifest.classes) for changed in loaded]
    rows = [dict(found) for found in combinations]
    totals: list[Any] = [0] * len(walks)
    with ThreadPoolExecutor(max(1, recipe.workers)) as pool, task("sweep", len(samples)) as bar:
        # Image by image, so that one is in memory, with the walks that settings share.
        for sample in samples:
            case = load_case(recipe, manifest, sample)
            judge: Callable[[WalkSettings], Any] = partial(_measure, case)
            if judged:
                judge = partial(_confuse, manifest, case, load_truth(manifest, sample))
            found = pool.map(judge, walks)
            totals = [total + made for total, made in zip(totals, found, strict=True)]
            bar.advance()
    for row, total in zip(rows, totals, strict=True):
        if judged:
            row["miou"] = intersection_over_union(total)["miou"]
        else:
            row |= dict(zip(MEASURES, (total / len(samples)).tolist(), strict=True))
    return {"images": len(samples), "by": "truth" if judged else "measures", "rows": rows}


def check_setting(key: str) -> None:
    """Refuse a setting that masks can't be decided again by from what a run keeps.

    Raises:
        UserError: how to try it.
    """
    section, _, own = key.partition(".")
    if section != "walk" or own.partition(".")[0] not in WITHOUT_NETWORK:
        raise UserError(
            f"--{key}: asks for a network's work, which sweep does without; try each value with "
            f"affinitynet run RECIPE --{key} VALUE --out ANOTHER_FOLDER"
        )


def _samples(recipe: Recipe, manifest: Manifest, images: int) -> tuple[list[Sample], bool]:
    if images < 1:
        raise UserError(f"--images {images}: give 1 or more")
    able = find_samples(recipe, manifest, len(manifest.samples))
    judged = [sample for sample in able if sample.mask is not None]
    return evenly(judged or able, images), bool(judged)


def _confuse(manifest: Manifest, case: Case, truth: Labels, walk: WalkSettings) -> Confusion:
    labels = len(manifest.classes) + 1
    mask = in_data_set(case, decide(case, walk).mask)
    valid = truth != manifest.ignore_index
    return count_pairs(truth[valid], mask[valid], (labels, labels + 1))


def _measure(case: Case, walk: WalkSettings) -> Any:
    decision = decide(case, walk)
    return np.array([measure(case, decision, walk) for measure in MEASURES.values()])
