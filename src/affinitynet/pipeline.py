"""The order of the stages, and for each: is it done, partly done, stale, or to do."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch

from affinitynet.data import Manifest, Sample, read_dataset
from affinitynet.data.manifest import RUN_FILE
from affinitynet.errors import UserError
from affinitynet.models.backbone import find_weights
from affinitynet.progress import say
from affinitynet.recipe import BackboneSettings, Recipe
from affinitynet.run_folder import (
    StageFolder,
    StageRecord,
    atomic_write,
    fingerprint,
    locked,
    read_json,
)
from affinitynet.stages import (
    compute_cams,
    evaluate,
    mine_confident,
    propagate,
    train_affinity,
    train_classifier,
    train_segmenter,
)
from affinitynet.stages.context import Context

RECIPE = "recipe.yaml"
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "numba", "segmentation-models-pytorch")


@dataclass(frozen=True)
class Stage:
    """One box of the pipeline: what it reads, which settings it depends on, what it does."""

    name: str
    folder: str
    reads: tuple[str, ...]
    settings: tuple[str, ...]  # recipe sections or single settings, with dots
    work: Callable[[Context], dict[str, Any]]
    samples: Callable[[Context], tuple[Sample, ...]] | None = None  # of a per-image stage
    suffix: str = ".png"
    also_writes: tuple[str, ...] = ()


STAGES = (
    Stage(
        "train_classifier",
        train_classifier.FOLDER,
        (),
        ("seed", "precision", "dataset.train", "backbone", "classifier"),
        train_classifier.work,
    ),
    Stage(
        "compute_cams",
        compute_cams.FOLDER,
        ("train_classifier",),
        ("precision", "dataset.val", "dataset.figures", "cams"),
        compute_cams.work,
        lambda context: context.samples(*context.recipe.cams.splits, "figures"),
        ".npz",
    ),
    Stage(
        "mine_confident",
        mine_confident.FOLDER,
        ("compute_cams",),
        ("confident",),
        mine_confident.work,
        lambda context: context.samples("train", "figures"),
    ),
    Stage(
        "train_affinity",
        train_affinity.FOLDER,
        ("mine_confident",),
        ("seed", "precision", "backbone", "affinity"),
        train_affinity.work,
    ),
    Stage(
        "propagate",
        propagate.FOLDER,
        ("compute_cams", "train_affinity"),
        ("precision", "walk"),
        propagate.work,
        lambda context: context.samples("train", "figures"),
        also_writes=(propagate.WALK, propagate.SCORES),
    ),
    Stage(
        "train_segmenter",
        train_segmenter.FOLDER,
        ("propagate",),
        ("seed", "precision", "backbone", "segmenter"),
        train_segmenter.work,
        also_writes=(train_segmenter.PREDICTIONS,),
    ),
    Stage(
        "evaluate",
        evaluate.FOLDER,
        ("compute_cams", "mine_confident", "propagate", "train_segmenter"),
        ("dataset", "evaluate"),
        evaluate.work,
    ),
)
NAMES = tuple(stage.name for stage in STAGES)


@dataclass(frozen=True)
class StageStatus:
    """How far a stage is."""

    name: str
    state: Literal["done", "partial", "stale", "to do"]
    detail: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        """Say it as `affinitynet status` does."""
        return f"{self.state} {self.detail}".rstrip()


class Run:
    """A run folder: what is in it, and how to go on with it."""

    def __init__(self, recipe: Recipe, manifest: Manifest) -> None:
        """Tie a recipe and a data set to the recipe's run folder."""
        self.recipe, self.manifest = recipe, manifest
        self.context = Context(recipe, manifest, recipe.out)

    @classmethod
    def create(cls, recipe: Recipe) -> Self:
        """Read the recipe's data set.

        Raises:
            UserError: no data set given, or it can't be read.
        """
        if recipe.data is None:
            raise UserError("data: the recipe names no data set; give its folder with --data")
        return cls(recipe, read_data(recipe))

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a run folder as it was left.

        Raises:
            UserError: the folder holds no run.
        """
        folder = Path(folder)
        manifest = Manifest.of_run(folder)
        return cls(Recipe.load(folder / RECIPE, out=folder), manifest)

    def status(self) -> list[StageStatus]:
        """Return each stage's state: done, partial, stale or to do."""
        names, answers = self._fingerprints(), []
        for stage in STAGES:
            settings = self._settings(stage, names)
            answers.append(self._status(stage, names[stage.name], settings))
        return answers

    def metrics(self, stage: str) -> dict[str, Any]:
        """Return a finished stage's figures.

        Raises:
            UserError: no such stage, or it is not finished.
        """
        record = self._folder(find_stage(stage)).record()
        if record is None:
            raise UserError(f"{self.recipe.out}: stage {stage} is not finished")
        rows = self.figures()
        own = {
            "propagate": ("walk", "pseudo"),
            "compute_cams": ("cam",),
            "mine_confident": ("confident",),
            "train_segmenter": ("segmenter",),
        }
        return {
            **record.figures,
            "evaluation": [row for row in rows if row["stage"] in own.get(stage, ())],
        }

    def figures(self) -> list[dict[str, Any]]:
        """Return the rows of `evaluation/figures.json`, none before `evaluate` has run."""
        file = self.recipe.out / evaluate.FOLDER / "figures.json"
        return list(read_json(file)["figures"]) if file.is_file() else []

    def go(self, until: str | None = None, redo: str | None = None) -> None:
        """Do what is to do, in order, up to and with the stage `until`.

        `redo` names a stage whose files, and those of all stages behind it, are made anew.

        Raises:
            UserError: a stale stage is in the way, or a stage met a mistake of the user's.
        """
        last = NAMES.index(find_stage(until).name) if until else len(STAGES) - 1
        with locked(self.recipe.out):
            if redo:
                self._discard(find_stage(redo))
            names = self._fingerprints()
            for stage in STAGES[: last + 1]:
                self._refuse_stale(stage, names)
            self._write_inputs()
            for number, stage in enumerate(STAGES[: last + 1], 1):
                self._do(stage, names, f"[{number}/{len(STAGES)}] {stage.name}")

    def _do(self, stage: Stage, names: dict[str, str], title: str) -> None:
        folder = self._folder(stage)
        if folder.record():
            say(f"{title}: done before")
            return
        say(f"{title} ...")
        settings = self._settings(stage, names)
        folder.start(names[stage.name], settings)
        began = time.monotonic()
        figures = stage.work(self.context)
        seconds = round(time.monotonic() - began, 1)
        counts: dict[str, int] = {
            key: figures.pop(key) for key in ("done", "total") if key in figures
        }
        folder.finish(
            StageRecord(
                stage.name, names[stage.name], settings, figures, counts, seconds, versions()
            )
        )
        say(f"{title}: done in {seconds:.0f} s")
        for warning in figures.get("warnings", []):
            say(f"  warning: {warning}")

    def _folder(self, stage: Stage) -> StageFolder:
        return StageFolder(self.recipe.out / stage.folder)

    def _settings(self, stage: Stage, names: dict[str, str]) -> dict[str, Any]:
        values = self.recipe.model_dump(mode="json")
        chosen = {key: _pick(values, key) for key in stage.settings}
        settings = _flat(chosen) | {f"after {name}": names[name] for name in stage.reads}
        if "backbone" in stage.settings:
            settings["backbone.weights"] = _weights_name(self.recipe.backbone, self.recipe.data)
        if stage.name == "evaluate":
            return settings | {"ground truth": self.manifest.truth_fingerprint()[:16]}
        return settings | {"data": self.manifest.fingerprint()[:16]}

    def _fingerprints(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for stage in STAGES:
            names[stage.name] = fingerprint([stage.name, self._settings(stage, names)])
        return names

    def _status(self, stage: Stage, name: str, settings: dict[str, Any]) -> StageStatus:
        folder = self._folder(stage)
        plan, record = folder.plan(), folder.record()
        if plan is None:
            return StageStatus(stage.name, "to do")
        if plan["fingerprint"] != name:
            return StageStatus(stage.name, "stale", _difference(plan["settings"], settings))
        if record:
            return StageStatus(stage.name, "done", seconds=record.seconds)
        if stage.samples is None:
            return StageStatus(stage.name, "partial")
        samples = stage.samples(self.context)
        done = sum(self.context.file(stage.folder, s, stage.suffix).exists() for s in samples)
        return StageStatus(stage.name, "partial", f"{done} of {len(samples)}")

    def _refuse_stale(self, stage: Stage, names: dict[str, str]) -> None:
        status = self._status(stage, names[stage.name], self._settings(stage, names))
        if status.state == "stale":
            raise UserError(
                f"{self.recipe.out}: stage {stage.name} was made with other settings "
                f"{status.detail}; make it and what follows anew with --redo {stage.name}, "
                "or choose another --out"
            )

    def _discard(self, first: Stage) -> None:
        gone = {first.name}
        for stage in STAGES:
            if stage.name in gone or gone & set(stage.reads):
                gone.add(stage.name)
                for folder in (stage.folder, *stage.also_writes):
                    shutil.rmtree(self.recipe.out / folder, ignore_errors=True)

    def _write_inputs(self) -> None:
        for name, text in ((RECIPE, self.recipe.dump()), (RUN_FILE, self.manifest.to_json())):
            with atomic_write(self.recipe.out / name) as temporary:
                temporary.write_text(text, encoding="utf-8")


def run(recipe: Recipe, *, until: str | None = None, redo: str | None = None) -> Run:
    """Run a recipe, or go on with it where its run folder left off.

    Raises:
        UserError: what is wrong with recipe, data or run folder, and what to do.
    """
    running = Run.create(recipe)
    running.go(until, redo)
    return running


def evaluate_folder(opened: Run, masks: Path, split: str | None) -> dict[str, Any]:
    """Measure any folder of masks against a split of a run's data set.

    Raises:
        UserError: unknown split, no ground truth, or masks that don't fit.
    """
    name = split or opened.recipe.dataset.figures or opened.recipe.dataset.train
    return evaluate.evaluate_masks(opened.manifest, name, masks)


def read_data(recipe: Recipe) -> Manifest:
    """Read the recipe's data set as its `dataset` section says."""
    assert recipe.data is not None
    settings = recipe.dataset
    return read_dataset(
        recipe.data, format=settings.format, classes=settings.classes, tags=settings.tags
    )


def find_stage(name: str) -> Stage:
    """Return the stage of that name.

    Raises:
        UserError: there is none.
    """
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise UserError(f"{name!r} is no stage: choose from {', '.join(NAMES)}")


def versions() -> dict[str, str]:
    """Return what a figure depends on beside settings: library versions and the machine."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {gpu}"
    return {"python": platform.python_version(), **found, "machine": machine}


def _pick(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _weights_name(backbone: BackboneSettings, data: Path | None) -> str:
    """Name weights by their content, so that a moved file changes nothing and a new one does."""
    file = find_weights(backbone.weights, data)
    if file is None:
        return backbone.weights
    with file.open("rb") as handle:
        return f"{file.name} {hashlib.file_digest(handle, 'sha256').hexdigest()[:16]}"


def _difference(was: dict[str, Any], now: dict[str, Any]) -> str:
    changed = [
        f"{key} was {json.dumps(was.get(key))}, is {json.dumps(now.get(key))}"
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key) and not key.startswith("after ")
    ]
    return f"({'; '.join(changed) or 'an earlier stage changed'})"
