"""`tune_run`: choose the walk's settings on a sample of a run's images, with or without masks."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinitynet.data import Manifest, Sample, read_labels
from affinitynet.data.chosen_maps import settled
from affinitynet.data.of_run import manifest_of
from affinitynet.data.trust import agreement
from affinitynet.data.truth import check_unturned, is_binary
from affinitynet.errors import UserError
from affinitynet.progress import say, task, warn
from affinitynet.run_folder.choices import BY_TRUTH, Choice, add_choices
from affinitynet.run_folder.flags import show_settings
from affinitynet.run_folder.folder import RECIPE, atomic_write, locked, output_path, write_json
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.settings import WalkSettings
from affinitynet.run_folder.store import is_there
from affinitynet.tuning.choose import Validation, changes, choose, curves, validate
from affinitynet.tuning.curve import draw_curve
from affinitynet.tuning.decide import Case, decide, find_samples, in_data_set, load_case
from affinitynet.tuning.measures import MEASURES
from affinitynet.tuning.settings import TUNABLE, value_of, values_to_try
from affinitynet.walking import score_key

TUNE = "tune"  # the folder in a run's
TRUTH = "truth"  # chooses where there are masks
DEFAULT = "contrast at the border"  # for curves; no measure chooses safely
FEWEST = 5  # masks: below it nothing can be told from chance
Judge = Callable[[Case, WalkSettings], float]


def tune_run(
    run: str | Path,
    masks: str | Path | None = None,
    *,
    images: int = 40,
    measure: str | None = None,
    apply: bool = False,
) -> dict[str, Any]:
    """Choose the walk's settings again from what a run keeps, in minutes and without a network.

    One setting after the other goes through its values; a value is taken where it is better by more
    than a standard error. `tune/` in the run folder gets a curve for each setting (SVG) and
    `tune.json`. Nothing else is written without `apply`.

    masks: a folder of hand-drawn masks by image name (labels as in the run's own masks, 255 where
        undecided), 10 to 50. IoU with them chooses, and is validated on images left out in turn:
        where those gain nothing, nothing is chosen, and `unproven` says what would have been.
        Every later figure of the run says that ground truth chose.
    images: to look at without masks. measure: that chooses without masks. None chooses nothing and
        draws the curves of the best one: measured against the truth, each measure chose worse than
        the recipe on one of two data sets (docs/choosing-settings.md).
    apply: write what was chosen into the run's recipe; `affinitynet run RUN/recipe.yaml --redo
        propagate` then makes the masks again.

    Returns a plain document: by, images, now, chosen (only what differs), gain, unproven,
    validation, curves.

    Raises:
        UserError: no run, no affinities kept, an unknown measure, or masks that don't fit.
    """
    recipe = Recipe.load(Path(run) / RECIPE, out=Path(run))
    manifest = manifest_of(recipe.out)
    place = output_path(recipe.out, f"{TUNE}/tune", ".json")  # before the work: no link leads out
    if masks is None:
        cases, judge = _without_truth(recipe, manifest, images, measure or DEFAULT)
    else:
        cases, judge = _with_truth(recipe, manifest, Path(masks))
    walk = settled(recipe, recipe.out, manifest.classes)
    by = (measure or DEFAULT) if masks is None else TRUTH
    score = _Score(cases, judge, recipe.workers)
    with task("tune", sum(len(values_to_try(walk, t)) for t in TUNABLE)) as progress:
        score.after = progress.advance
        found = curves(walk, score)
        score.after = None
    safe = masks is not None or measure is not None
    chosen = choose(walk, score) if safe else walk
    validation = validate(walk, score, len(cases)) if masks is not None else None
    unproven: dict[str, Any] = {}
    if validation and validation.chosen <= validation.now:
        # No better on masks that had no part in the choice: it fits these masks alone.
        unproven, chosen = changes(walk, chosen), walk
    document: dict[str, Any] = {
        "by": by,
        "images": len(cases),
        "now": {f"walk.{t.name}": value_of(walk, t.name) for t in TUNABLE},
        "chosen": changes(walk, chosen),
        "gain": float((score(chosen) - score(walk)).mean()),
        "unproven": unproven,
        "validation": validation._asdict() if validation else None,
        "curves": {c.name: {**c._asdict()} for c in found},
    }
    for curve in found:
        with atomic_write(output_path(recipe.out, f"{TUNE}/{curve.name}", ".svg")) as temporary:
            temporary.write_text(draw_curve(curve, f"by {by}, {len(cases)} images"), "utf-8")
    write_json(place, document)
    if apply:
        apply_choice(recipe, document)
    return document


class _Score:
    """What settings are worth on each case; each settings' masks are made once."""

    def __init__(self, cases: Sequence[Case], judge: Judge, workers: int) -> None:
        self.after: Callable[[], None] | None = None
        self._cases, self._judge, self._workers = cases, judge, max(1, workers)
        self._known: dict[Any, NDArray[np.float64]] = {}

    def __call__(self, walk: WalkSettings) -> NDArray[np.float64]:
        # A setting that isn't read, as a threshold beside an alpha, makes no other masks.
        key = (*score_key(walk), walk.guard, walk.refine, walk.crf.model_dump_json())
        if key not in self._known:
            with ThreadPoolExecutor(self._workers) as pool:
                found = pool.map(lambda case: self._judge(case, walk), self._cases)
                self._known[key] = np.array(list(found))
        if self.after is not None:
            self.after()
        return self._known[key]


def _without_truth(
    recipe: Recipe, manifest: Manifest, images: int, name: str
) -> tuple[list[Case], Judge]:
    if name not in MEASURES:
        raise UserError(f"no measure {name!r}: choose from {', '.join(MEASURES)}")
    if images < FEWEST:
        raise UserError(f"images = {images}: give {FEWEST} or more to tell settings apart")
    measure = MEASURES[name]
    samples = find_samples(recipe, manifest, images)
    cases = [load_case(recipe, manifest, sample) for sample in samples]
    return cases, lambda case, walk: measure(case, decide(case, walk), walk)


def _with_truth(recipe: Recipe, manifest: Manifest, folder: Path) -> tuple[list[Case], Judge]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of masks")
    samples = [s for s in find_samples(recipe, manifest, len(manifest.samples)) if _of(folder, s)]
    if len(samples) < FEWEST:
        raise UserError(
            f"{folder}: holds masks (PNG by image name) of {len(samples)} of the run's tagged "
            f"training images; draw {FEWEST} or more, better 20"
        )
    others = len(list(folder.rglob("*.png"))) - len(samples)
    if others:
        warn(f"{folder}: {others} PNGs are of no tagged training image, and are not used")
    cases = [load_case(recipe, manifest, sample) for sample in samples]
    truths = {case.sample.id: _read(folder, case, manifest) for case in cases}
    # As where masks are ground truth: one may be right, all of them are a habit of drawing.
    if len(manifest.classes) < 255 and all(map(is_binary, truths.values())):
        raise UserError(
            f"{folder}: the masks hold 0 and 255 only ({cases[0].sample.id} first), which say "
            "background and not to be counted; write the class's number (1 for the first class) in "
            "place of 255"
        )

    def judge(case: Case, walk: WalkSettings) -> float:
        truth = truths[case.sample.id]
        valid = truth != manifest.ignore_index
        labels = in_data_set(case, decide(case, walk).mask)
        return agreement(labels[valid], truth[valid], case.sample.tags)

    return cases, judge


def _of(folder: Path, sample: Sample) -> bool:
    return is_there(output_path(folder, sample.id))


def _read(folder: Path, case: Case, manifest: Manifest) -> NDArray[np.integer[Any]]:
    file = output_path(folder, case.sample.id)
    check_unturned(file)
    labels = read_labels(file)
    if labels.shape != tuple(case.image.shape[:2]):
        raise UserError(f"{file}: is {labels.shape}, its image {tuple(case.image.shape[:2])}")
    unknown = labels[(labels > len(manifest.classes)) & (labels != manifest.ignore_index)]
    if unknown.size:
        raise UserError(
            f"{file}: label {unknown[0]} is above the {len(manifest.classes)} classes; 0 is "
            f"background, 1 is {manifest.classes[0]}, and so on"
        )
    return labels


def apply_choice(recipe: Recipe, document: dict[str, Any]) -> None:
    """Write what `tune_run` chose into the run's recipe, and why into its `choices.json`.

    Raises:
        UserError: another process works in the run folder.
    """
    chosen = document["chosen"]
    if not chosen:
        say("nothing was chosen: the recipe stays as it is")
        return
    with locked(recipe.out):
        changed = Recipe.load(recipe.out / RECIPE, out=recipe.out, **chosen)
        said = BY_TRUTH if document["by"] == TRUTH else f"by {document['by']}"
        reason = f"{said} on {document['images']} images, affinitynet tune"
        add_choices(recipe.out, {key: Choice(value, reason) for key, value in chosen.items()})
        with atomic_write(recipe.out / RECIPE) as temporary:
            temporary.write_text(changed.dump(), encoding="utf-8")
    say(f"{recipe.out / RECIPE}: {show_settings(chosen)}")


def say_validation(found: Validation) -> str:
    """Say in a sentence what the choice is worth on images that had no part in it."""
    return (
        f"mean IoU {found.now:.3f} (folds differ by {found.now_spread:.3f}) with the recipe's "
        f"settings, {found.chosen:.3f} ({found.chosen_spread:.3f}) with those chosen without the "
        f"fold; {found.folds} folds"
    )
