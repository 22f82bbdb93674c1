"""What is checked before a run or a long stage begins, and before anything is deleted."""

from collections.abc import Iterable, Sequence, Set
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from affinitynet.data import Manifest
from affinitynet.data.check import (
    contradictions_of_masks,
    inspect_masks,
    only_class,
    partial_truth,
)
from affinitynet.data.contents import changed_files, changed_images, say_some
from affinitynet.data.corrections import check_corrections
from affinitynet.data.judgements import all_failed, next_step, read_seeds
from affinitynet.data.manifest import OLD_RUN_FILE, check_run_folder, is_run_folder
from affinitynet.data.read import detect_format
from affinitynet.data.verdicts import read_verdicts, why_stop
from affinitynet.errors import UserError
from affinitynet.progress import say
from affinitynet.run_folder.artifacts import FOLDERS
from affinitynet.run_folder.folder import fingerprint, read_json, write_json
from affinitynet.run_folder.freshness import StageStatus
from affinitynet.run_folder.recipe import Recipe, find_files, find_weights
from affinitynet.run_folder.setting_types import BY_CLASSIFIER, FILES, FUNCTION, is_imported
from affinitynet.run_folder.settings import DatasetSettings
from affinitynet.run_folder.stages import Stage, stages_of, trains_classifier

# Stages that need the device: a wrong name should stop a run now, not hours later.
WITH_NETWORK = {
    "train_classifier",
    "compute_cams",
    "compute_contrast",
    "choose_cams",
    "train_affinity",
    "propagate",
    "train_segmenter",
}

TRUTH = "truth.json"  # in a run folder: which ground truth was found in order


def check_place(recipe: Recipe, manifest: Manifest) -> None:
    """Refuse a run folder where stages would mix their files with the user's.

    Raises:
        UserError: it is the data set, lies among its class folders or holds it, an earlier version
            made it, or there are folders in it named as a stage's that no run made.
    """
    # Resolved, so that one folder under two names is seen to be one.
    out, data = recipe.out.resolve(), manifest.root.resolve()
    advice = "choose another --out"
    if out == data:
        raise UserError(f"--out {recipe.out}: is the data set's folder; {advice}")
    # Where a list names the images, a run below the data set does no harm.
    if out.is_relative_to(data) and _layout(recipe, manifest) == "folder":
        raise UserError(
            f"--out {recipe.out}: lies in the data set, where each folder is a class; {advice}"
        )
    if (out / OLD_RUN_FILE).is_file():
        check_run_folder(recipe.out)
    for name in FOLDERS:
        # Made again, the stage would delete the images.
        if data.is_relative_to(out / name):
            raise UserError(f"--out {recipe.out}: its folder {name} holds the data set; {advice}")
        if (out / name).exists() and not is_run_folder(out):
            raise UserError(
                f"--out {recipe.out}: is no run folder, but holds {name}, which a run would "
                f"write to; {advice}"
            )


def check_roles(recipe: Recipe, manifest: Manifest) -> None:
    """Refuse splits that the data set lacks, except a `val` that nobody asked for.

    Raises:
        UserError: an unknown split, by the names of those there are.
    """
    dataset = recipe.dataset
    # Most data sets have no val, and the default is no wish of anyone.
    val = dataset.val if dataset.val != DatasetSettings().val else None
    for name in (dataset.train, val, dataset.figures):
        if name:
            manifest.split(name)


def check_sources(recipe: Recipe, todo: Iterable[Stage]) -> None:
    """Refuse sources that are missing folders, or folders of the run itself.

    Raises:
        UserError: which setting names it.
    """
    settings = {
        "compute_cams": "cams.source",
        "mine_confident": "confident.source",
        "train_affinity": "affinity.source",
        "propagate": "pseudo.source",
    }
    # Of masks that come from files nobody votes.
    for stage in (stage for stage in todo if not stage.source):
        for key, (name, regions) in {
            "confident.regions": ("mine_confident", recipe.confident.regions),
            "pseudo.regions": ("propagate", recipe.pseudo.regions),
        }.items():
            if stage.name == name and is_imported(regions):
                find_files(regions, key, recipe.data)
    for stage in todo:
        if not stage.source.startswith(FILES):
            continue
        key = settings[stage.name]
        folder = find_files(stage.source, key, recipe.data)
        # Made again, the stage would delete what it is to read.
        if folder.resolve().is_relative_to((recipe.out / stage.folder).resolve()):
            raise UserError(
                f"{key} = {stage.source!r}: is where the run itself keeps these files; copy them "
                "to a folder of their own"
            )


def check_networks(recipe: Recipe, manifest: Manifest) -> None:
    """Refuse networks of a run whose classes have other numbers than this data set's.

    Raises:
        UserError: the classes of both.
    """
    run = recipe.networks.run
    if run is None or not is_run_folder(run):  # gone, and what was copied from it was checked then
        return
    classes = Manifest.of_run(run).classes
    if classes != manifest.classes:
        raise UserError(
            f"networks.run = {run}: its classes are {', '.join(classes)}, those of {manifest.root} "
            f"are {', '.join(manifest.classes)}; use affinitynet apply, which brings them together"
        )


def check_function(recipe: Recipe, todo: Iterable[Stage], cams: Any) -> None:
    """Refuse to make CAMs by a Python function that the caller has not given.

    Raises:
        UserError: the run was begun from Python with such a function.
    """
    names = {stage.name for stage in todo}
    if recipe.cams.source.startswith(FUNCTION) and "compute_cams" in names and cams is None:
        raise UserError(
            f"cams.source = {recipe.cams.source!r}: is a Python function; go on from Python with "
            "affinitynet.run(recipe, cams=...)"
        )


def check_tools(recipe: Recipe, manifest: Manifest, todo: Set[str]) -> None:
    """Refuse a device, weights, network or tracker that would stop a stage still to do.

    Raises:
        UserError: what is missing or does not fit, with its setting.
    """
    check_distance(recipe, todo)
    for weights in _weights_read(recipe, todo):
        find_weights(weights, recipe.data)
    # Here, because they load torch, which takes seconds.
    if todo & WITH_NETWORK:
        from affinitynet.hardware import find_device

        find_device(recipe.device)
    if any(stage.trains and stage.name in todo for stage in stages_of(recipe)):
        for tracker in recipe.trackers:
            if find_spec(tracker) is None:  # accelerate would leave it out without a word
                raise UserError(f"trackers: {tracker} is not installed; pip install {tracker}")
    # Before a classifier is trained, whose maps would be refused.
    if "compute_cams" in todo:
        from affinitynet.stages.compute_cams import check_source

        check_source(recipe, manifest.classes)
    if "train_segmenter" in todo:
        from affinitynet.stages.train_segmenter import check_net

        check_net(recipe, manifest)


def check_judged(recipe: Recipe, stage: str) -> None:
    """Refuse to spend hours behind a finished stage that no class has passed.

    Raises:
        UserError: as `check_learned` and `check_seeds`.
    """
    if recipe.networks.run:  # judged where it was trained
        return
    if stage == "train_classifier":
        check_learned(recipe)
    elif stage == "mine_confident":
        check_seeds(recipe)


def check_learned(recipe: Recipe) -> None:
    """Refuse to spend hours on the maps of a classifier that learned no class.

    With contrast beside it (`cams.source = auto`) its maps are not the only ones.

    Raises:
        UserError: none was learned, and the one thing to try next.
    """
    reason = why_stop(read_verdicts(recipe.out))
    if reason and recipe.cams.source in BY_CLASSIFIER:
        steps = "classifier.steps" if recipe.classifier.steps else "classifier.epochs"
        advice = (
            f"train longer (--{steps}) with --redo train_classifier"
            if recipe.classifier.norm == "trained"
            else "add --classifier.norm trained --redo train_classifier"
        )
        raise UserError(
            f"{recipe.out}: the classifier tells no class better than chance ({reason}), so its "
            f"maps would be of no use; {advice}, or go on with --anyway"
        )


def check_seeds(recipe: Recipe) -> None:
    """Refuse to go on with maps that say nothing of any class.

    Raises:
        UserError: every class fails, and the one thing to try next.
    """
    rows = read_seeds(recipe.out)
    # Without images held out nobody asked for judgement, as in the paper's recipes.
    if recipe.classifier.hold_out and all_failed(rows):
        shown = [row for row in rows if row["images"]]
        table = ", ".join(
            f"{row['class']} {row['failed']} ({row['empty']} of {row['images']} images empty)"
            for row in shown
        )
        raise UserError(
            f"{recipe.out}: the maps of no class can be used ({table}); "
            f"{next_step(recipe, shown[0])}, or go on with --anyway"
        )


def check_distance(recipe: Recipe, todo: Set[str]) -> None:
    """Refuse to train affinities by the sum of 448 distances, which never learn.

    exp(-sum) is 0 for every pair of a fresh network, and so is its gradient. Smaller first features
    begin with a gradient, but 448 times that of the mean, which throws them off at once.

    Raises:
        UserError: affinity.distance = sum, and affinities are to be learned.
    """
    learned = recipe.affinity.source in ("learnt", "learned") and "train_affinity" in todo
    if learned and recipe.affinity.distance == "sum":
        raise UserError(
            "affinity.distance = sum: the sum over the features' channels is so large that all "
            "affinities start at 0, where nothing can be learned; set it to mean, as the paper's "
            "code does"
        )


def check_classes(manifest: Manifest, todo: Set[str]) -> None:
    """Refuse to train a classifier on one class that every image has.

    Raises:
        UserError: the class, and what to do.
    """
    name = only_class(manifest)
    if name and "train_classifier" in todo:
        raise UserError(
            f"{manifest.root}: the only class is {name!r}, and every image has it, so there is "
            "nothing to tell it from; add images without it, with no tag"
        )


def check_fresh(recipe: Recipe, stages: Iterable[Stage], states: Iterable[StageStatus]) -> None:
    """Refuse to go on with a stage that was made with something else.

    Raises:
        UserError: which, what changed, and what to do.
    """
    wanted = {stage.name for stage in stages}
    stale = (state for state in states if state.state == "stale" and state.name in wanted)
    for state in stale:
        raise UserError(
            f"{recipe.out}: stage {state.name} was made with something else {state.detail}; "
            f"make it and what follows again with --redo {state.name}, or choose another --out"
        )


def check_contents(
    recipe: Recipe, manifest: Manifest, kept: Sequence[Stage], states: Sequence[StageStatus]
) -> None:
    """Refuse to go on with images or masks that were changed after stages had used or made them.

    Raises:
        UserError: which, and what to do.
    """
    for stage, state in zip(kept, states, strict=True):
        if state.state != "to do" and (
            images := changed_images(recipe, manifest, stage, finished=state.finished)
        ):
            raise UserError(
                f"{recipe.out}: these images were replaced since {stage.name} began: "
                f"{say_some(images)}; put the old ones back, or make all that saw them again with "
                f"--redo {stage.name}"
            )
        # Masks of an unfinished stage are still being written.
        if state.finished and (masks := changed_files(recipe, manifest, stage)):
            raise UserError(
                f"{recipe.out}: changed since {stage.name} made them: {say_some(masks)}; make them "
                f"again with --redo {stage.name}; masks of your own come in by files:FOLDER"
            )


def check_truth(recipe: Recipe, manifest: Manifest, todo: Set[str]) -> None:
    """Read all ground truth that stages to do will read, once for each state of it.

    What was read without a mistake is remembered in the run folder by the masks' content.

    Raises:
        UserError: masks that can't be read, don't fit their image, or say nothing; the first of
            them, and how many there are.
    """
    dataset = recipe.dataset
    splits = {dataset.figures or dataset.train, dataset.val} if "evaluate" in todo else set()
    if "mine_confident" in todo and recipe.confident.source == "truth":
        splits.add(dataset.train)
    known = sorted(split for split in splits if split in manifest.splits)
    for sentence in partial_truth(manifest, known):
        say(sentence)
    # By id, since an image may be in both splits.
    samples = {s.id: s for split in known for s in manifest.splits[split] if s.mask is not None}
    if not samples:
        return
    state = {"truth": fingerprint([known, manifest.truth_fingerprint(*known), sorted(samples)])}
    # Reading the masks of a large data set takes minutes, and a run is often begun again.
    record = recipe.out / TRUTH
    if record.is_file() and read_json(record) == state:
        return
    found = inspect_masks(manifest, list(samples.values()))
    wrong = [problem for finding in found for problem in finding.problems]
    if wrong:
        more = f" ({len(wrong)} masks have mistakes; affinitynet check lists them)"
        raise UserError(
            f"image {wrong[0].id}: {wrong[0].message}{more if len(wrong) > 1 else ''}; or take the "
            "mask away: the image then has no ground truth"
        )
    if binary := contradictions_of_masks(found):
        raise UserError(f"{manifest.root}: {binary}")
    # Last: only truth without a mistake is not read again.
    write_json(record, state)


def check_corrected(recipe: Recipe, manifest: Manifest, todo: Set[str]) -> None:
    """Read all masks that people corrected, where a stage to do will read them.

    Raises:
        UserError: one is of no image, can't be read or doesn't fit.
    """
    if todo & {"train_segmenter", "relabel"}:
        check_corrections(recipe.out, manifest)


def note_start(recipe: Recipe, todo: Set[str]) -> None:
    """Say once that trainings can't start from a classifier that this run doesn't train."""
    starts = {
        "affinity.start": ("train_affinity", recipe.affinity.start),
        "segmenter.start": ("train_segmenter", recipe.segmenter.start),
    }
    keys = [
        key for key, (stage, start) in starts.items() if start == "classifier" and stage in todo
    ]
    if keys and not trains_classifier(recipe):
        say(
            f"{' and '.join(keys)} = classifier, but no classifier is trained in this run: the "
            "training starts from backbone.weights"
        )


def _weights_read(recipe: Recipe, todo: Set[str]) -> list[str]:
    own, segmenter = recipe.backbone, recipe.segmenter
    # Without a classifier to start from, trainings read the backbone's weights.
    fresh = not trains_classifier(recipe)
    needs = {
        "train_classifier": own.weights,
        "compute_cams": own.weights if recipe.cams.source == "text" else "none",
        "compute_contrast": own.weights if recipe.contrast.features == "imagenet" else "none",
        "train_affinity": own.weights if recipe.affinity.start == "backbone" or fresh else "none",
        "propagate": own.weights
        if recipe.affinity.source == "features" and (recipe.affinity.start == "backbone" or fresh)
        else "none",
        "train_segmenter": (segmenter.backbone or own).weights
        if segmenter.start == "backbone" or fresh
        else "none",
    }
    return [weights for stage, weights in needs.items() if stage in todo]


def _layout(recipe: Recipe, manifest: Manifest) -> str:
    known = manifest.layout or recipe.dataset.format  # the first, where it has just been read
    return known if known != "auto" else detect_format(Path(manifest.root))
