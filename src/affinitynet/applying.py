"""Masks of new tagged images by the networks of a run that is there.

The new images get a run folder of their own, whose trainings are that run's: their networks are
copied, and what it found out about its whole data set (the choice of CAMs, banks, ranges, classes
that failed) is taken over. All that is made image by image is made by the usual stages.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from affinitynet.data.for_networks import SPLIT
from affinitynet.data.manifest import is_run_folder
from affinitynet.errors import UserError
from affinitynet.pipeline import Run
from affinitynet.run_folder.choices import read_choices
from affinitynet.run_folder.folder import RECIPE, file_name
from affinitynet.run_folder.freshness import unfinished
from affinitynet.run_folder.recipe import Recipe, find_file, find_weights
from affinitynet.run_folder.records import StageFolder
from affinitynet.run_folder.setting_types import FILES, is_imported
from affinitynet.run_folder.stages import stages_of


def apply_run(
    run: Run | str | Path,
    data: str | Path,
    out: str | Path,
    *,
    format: str = "auto",
    tags: str = "auto",
    device: str | None = None,
    redo: str | None = None,
    cams: str | Path | None = None,
) -> Run:
    """Make masks of new tagged images with a run's networks and settings; nothing is trained.

    `out` becomes a run folder of its own, or goes on where it was left: `status`, `report`,
    `evaluate`, `view`, `tune` and `export` work on it. All images of `data`, whatever their split,
    get masks. Images without a tag are background.

    run: a finished run; only its figures may be missing. data: a data set in any layout that a run
        takes, whose tags are among the run's classes; ground truth is measured where it is there.
    format, tags: how to read `data`, as for `read_dataset`.
    device: where networks run; None takes the run's.
    redo: a stage to make again, with all that depend on it.
    cams: a folder of CAMs of the new images, where those of the run came from files as well, or
        from a function.

    Raises:
        UserError: the run is not finished (which stage), an image has a tag that is none of its
            classes, `out` holds another run, or what the new images need is missing.
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    root, out = opened.recipe.out.resolve(), Path(out)
    _check_finished(opened)
    _check_out(out, root)
    recipe = Recipe.load(
        root / RECIPE,
        data=Path(data),
        out=out,
        **({"device": device} if device else {}),
        **{
            "dataset.format": format,
            "dataset.tags": tags,
            "dataset.classes": opened.manifest.classes,
            "dataset.train": SPLIT,
            "dataset.val": None,
            "dataset.figures": None,
            "cams.source": _cams_source(opened.recipe, cams),
            "networks": {"run": root, **_found_out(opened)},
        },
        **_weights(opened.recipe),
    )
    _check_weights(recipe, root)
    made = Run.create(recipe)
    # What truth chose of the settings is said of the new figures too.
    made.chosen = read_choices(root)
    made.go(redo=redo, anyway=True)
    return made


def _check_finished(run: Run) -> None:
    names = [stage.name for stage in run.stages]
    # Without `relabel` the masks end with the walk.
    last = "relabel" if run.recipe.relabel.enabled else "propagate"
    if lacking := unfinished(run.status()[: names.index(last) + 1]):
        raise UserError(
            f"{run.recipe.out}: has not all that new images need: {lacking}; finish it with "
            f"affinitynet run {run.recipe.out / RECIPE}"
        )


def _check_out(out: Path, root: Path) -> None:
    if out.resolve() == root:
        raise UserError(f"--out {out}: is the run itself; choose another folder")
    if not is_run_folder(out) or not (out / RECIPE).is_file():
        return
    used = Recipe.load(out / RECIPE, out=out).networks.run
    if used != root:
        said = f"uses the networks of {used}" if used else "is a run of its own"
        raise UserError(f"--out {out}: {said}; choose another folder")


def _found_out(run: Run) -> dict[str, Any]:
    """Return what a run found out about its classes: the failed and the unlearnt, by name."""
    from affinitynet.stages.relabel import FOUND

    if run.recipe.networks.run:  # it has this from a run of its own
        return run.recipe.networks.model_dump(include={"failed", "unlearnt"})
    shares: dict[str, float] = {}
    if run.recipe.relabel.enabled:
        shares = run.metrics("relabel")["found"]
    return {
        "failed": tuple(run.manifest.classes[index] for index in run.context.failed),
        "unlearnt": tuple(name for name, share in shares.items() if share < FOUND),
    }


def _cams_source(recipe: Recipe, cams: str | Path | None) -> str:
    """Return where the new images' CAMs come from.

    Raises:
        UserError: they can come from nowhere, or from two places.
    """
    for key, source in (
        ("affinity.source", recipe.affinity.source),
        ("pseudo.source", recipe.pseudo.source),
    ):
        if is_imported(source):
            raise UserError(
                f"{recipe.out}: its {key} is {source}, which has none of new images; make their "
                f"masks with affinitynet predict {recipe.out}"
            )
    source = recipe.cams.source
    if not is_imported(source):
        if cams is not None:
            raise UserError(f"--cams {cams}: the run makes CAMs itself (cams.source = {source})")
        return source
    if cams is None:
        raise UserError(
            f"{recipe.out}: its CAMs come from {source}, which has none of new images; give theirs "
            "with --cams FOLDER"
        )
    return f"{FILES}{cams}"


def _weights(recipe: Recipe) -> dict[str, str]:
    """Return weights and texts that are files by their whole path: they may lie by the old data."""
    found: dict[str, str] = {}
    with suppress(UserError):  # where a stage needs what is missing, that is said later
        if text := recipe.cams.text:
            found["cams.text"] = str(find_file(text, "cams.text", recipe.data).resolve())
    keys = ["backbone.weights"]
    if recipe.segmenter.backbone == recipe.backbone:  # and has to stay so
        keys.append("segmenter.backbone.weights")
    with suppress(UserError):
        if file := find_weights(recipe.backbone.weights, recipe.data):
            found |= dict.fromkeys(keys, str(file.resolve()))
    return found


def _check_weights(recipe: Recipe, root: Path) -> None:
    """Refuse a backbone's weights, or texts, that are others than those the run worked with.

    Raises:
        UserError: they differ, or are gone.
    """
    for stage in stages_of(recipe):
        plan = StageFolder(root / stage.folder, stage.name).plan()
        if "backbone" not in stage.settings or plan is None:
            continue
        used = {"weights": ("backbone.weights", find_weights(recipe.backbone.weights, recipe.data))}
        if recipe.cams.text and "cams.text" in plan.settings:
            used["texts"] = ("cams.text", find_file(recipe.cams.text, "cams.text", recipe.data))
        for what, (key, file) in used.items():
            if file and plan.settings.get(key) != f"{file.name} {file_name(file)}":
                raise UserError(
                    f"{file}: holds other {what} than {root} had for {stage.name}; put the old "
                    "ones back"
                )
