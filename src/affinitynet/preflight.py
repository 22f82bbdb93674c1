"""What is checked before a run begins or deletes anything, so that it does not fail after hours."""

import os
from collections.abc import Sequence, Set
from pathlib import Path

from affinitynet.data import Manifest
from affinitynet.data.manifest import RUN_FILE
from affinitynet.data.read import detect_format
from affinitynet.errors import UserError
from affinitynet.run_folder.recipe import Recipe, find_weights
from affinitynet.run_folder.settings import DatasetSettings
from affinitynet.stages.context import Context
from affinitynet.stages.train_segmenter import check_net

WITH_NETWORK = {
    "train_classifier",
    "compute_cams",
    "train_affinity",
    "propagate",
    "train_segmenter",
}


# How torchrun, accelerate launch and the MPIs tell a process how many there are.
COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def check_alone() -> None:
    """Refuse to be one of several processes: each would train on all images, in the same folder.

    Raises:
        UserError: a launcher started several.
    """
    for name in COUNTS:
        if os.environ.get(name, "1") != "1":
            raise UserError(
                f"AffinityNet runs in one process, not in {os.environ[name]}: start it without "
                "accelerate launch, torchrun or mpirun"
            )


def check_place(recipe: Recipe, manifest: Manifest, folders: Sequence[str]) -> None:
    """Refuse a run folder where stages would mix their files with the user's.

    Raises:
        UserError: it is the data set, lies among its class folders or holds it, or there are
            folders in it named as a stage's that no run made.
    """
    out, data = recipe.out.resolve(), manifest.root.resolve()
    advice = "choose another --out"
    if out == data:
        raise UserError(f"--out {recipe.out}: is the data set's folder; {advice}")
    if out.is_relative_to(data) and _layout(recipe, manifest) == "folder":
        raise UserError(
            f"--out {recipe.out}: lies in the data set, where each folder is a class; {advice}"
        )
    for name in folders:
        if data.is_relative_to(out / name):
            raise UserError(f"--out {recipe.out}: its folder {name} holds the data set; {advice}")
        if (out / name).exists() and not (out / RUN_FILE).is_file():
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
    val = dataset.val if dataset.val != DatasetSettings().val else None
    for name in (dataset.train, val, dataset.figures):
        if name:
            manifest.split(name)


def check_tools(context: Context, todo: Set[str]) -> None:
    """Refuse a device, weights or a segmentation network that stages to do would stumble over.

    Raises:
        UserError: what is missing or does not fit, with its setting.
    """
    if todo & WITH_NETWORK:
        context.hardware.place()
    for weights in _weights_read(context.recipe, todo):
        find_weights(weights, context.recipe.data)
    if "train_segmenter" in todo:
        check_net(context)


def _weights_read(recipe: Recipe, todo: Set[str]) -> list[str]:
    own, segmenter = recipe.backbone, recipe.segmenter
    needs = {
        "train_classifier": own.weights,
        "train_affinity": own.weights if recipe.affinity.start == "backbone" else "none",
        "train_segmenter": (segmenter.backbone or own).weights
        if segmenter.start == "backbone"
        else "none",
    }
    return [weights for stage, weights in needs.items() if stage in todo]


def _layout(recipe: Recipe, manifest: Manifest) -> str:
    known = recipe.dataset.format
    return known if known != "auto" else detect_format(Path(manifest.root))
