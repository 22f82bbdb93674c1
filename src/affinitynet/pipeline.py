"""A run: for each stage, is it done, partly done, stale, or to do; and going on with it."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import torch

from affinitynet.data import Manifest, read_dataset
from affinitynet.data.manifest import RUN_FILE
from affinitynet.errors import UserError
from affinitynet.order import FOLDERS, NAMES, STAGES, Stage, find_stage, with_all_behind
from affinitynet.preflight import check_alone, check_place, check_roles, check_tools
from affinitynet.progress import say
from affinitynet.run_folder.folder import (
    RECIPE,
    StageFolder,
    StagePlan,
    StageRecord,
    atomic_write,
    discard,
    fingerprint,
    locked,
    read_json,
    remove_leftovers,
    remove_tree,
)
from affinitynet.run_folder.freshness import (
    AFTER,
    IMAGES,
    TRUTH,
    chosen_settings,
    difference,
    file_name,
)
from affinitynet.run_folder.recipe import Recipe, find_weights
from affinitynet.run_folder.settings import BackboneSettings
from affinitynet.stages import evaluate
from affinitynet.stages.context import Context

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "numba", "segmentation-models-pytorch")


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
        self._truths: dict[str, str] = {}  # names of each role's ground truth, read once

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
        names = self._fingerprints()
        return [self._status(stage, names) for stage in STAGES]

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
        if not file.is_file():
            return []
        content = read_json(file, "evaluate")
        if not isinstance(content, dict) or not isinstance(content.get("figures"), list):
            raise UserError(f"{file}: holds no figures; make it anew with --redo evaluate")
        return list(content["figures"])

    def go(self, until: str | None = None, redo: str | None = None) -> None:
        """Do what is to do, in order, up to and with the stage `until`.

        `redo` names a stage whose files, and those of all stages behind it, are made anew; they
        are deleted when all that can be checked beforehand was found in order.

        Raises:
            UserError: a stale stage is in the way, or a stage met a mistake of the user's.
        """
        stages = STAGES[: NAMES.index(find_stage(until).name) + 1] if until else STAGES
        redone = with_all_behind(find_stage(redo)) if redo else ()
        check_alone()
        check_place(self.recipe, self.manifest, FOLDERS)
        check_roles(self.recipe, self.manifest)
        with locked(self.recipe.out):
            remove_leftovers(self.recipe.out, FOLDERS)
            names = self._fingerprints()
            kept = [stage for stage in stages if stage not in redone]
            states = {stage.name: self._status(stage, names) for stage in kept}
            done = {name for name, status in states.items() if status.state == "done"}
            check_tools(self.context, {stage.name for stage in stages} - done)
            for status in states.values():
                _refuse_stale(self.recipe.out, status)
            self._discard(redone)
            self._write_inputs()
            for number, stage in enumerate(stages, 1):
                self._do(stage, names, f"[{number}/{len(STAGES)}] {stage.name}")

    def evaluate(self) -> list[dict[str, Any]]:
        """Measure the masks there are; nothing is trained, and no other stage's file is touched.

        The figures of a finished run replace those in its folder. Those of an unfinished one are
        returned only, because they would look like the finished run's.
        """
        *before, stage = STAGES
        with locked(self.recipe.out):
            remove_leftovers(self.recipe.out, FOLDERS)
            names = self._fingerprints()
            states = [self._status(earlier, names) for earlier in before]
            if all(status.state == "done" for status in states):
                self._discard((stage,))
                self._do(stage, names, stage.name)
                return self.figures()
            open_ = ", ".join(f"{s.name} is {s}" for s in states if s.state != "done")
            say(f"not finished, so these figures are shown but not kept: {open_}")
            rows, warnings = evaluate.measure(self.context)
            _warn(warnings)
            return rows

    def _do(self, stage: Stage, names: dict[str, str], title: str) -> None:
        folder = self._folder(stage)
        if self._status(stage, names).state == "done":
            say(f"{title}: done before")
            return
        say(f"{title} ...")
        plan = StagePlan(names[stage.name], self._settings(stage, names))
        self._start(stage, plan)
        began = time.monotonic()
        figures = stage.work(self.context)
        seconds = round(time.monotonic() - began, 1)
        counts: dict[str, int] = {
            key: figures.pop(key) for key in ("done", "total") if key in figures
        }
        folder.finish(
            StageRecord(
                stage.name, plan.fingerprint, plan.settings, figures, counts, seconds, versions()
            )
        )
        say(f"{title}: done in {seconds:.0f} s")
        _warn(figures.get("warnings", []))

    def _start(self, stage: Stage, plan: StagePlan) -> None:
        folder = self._folder(stage)
        found = folder.plan()
        if found is None or found.fingerprint != plan.fingerprint:
            for beside in stage.also_writes:  # of a stage whose own folder someone deleted
                remove_tree(self.recipe.out / beside)
            folder.start(plan)

    def _folder(self, stage: Stage) -> StageFolder:
        return StageFolder(self.recipe.out / stage.folder, stage.name)

    def _settings(self, stage: Stage, names: dict[str, str]) -> dict[str, Any]:
        recipe = self.recipe
        settings = chosen_settings(recipe, stage.settings)
        settings |= {f"{AFTER}{name}": names[name] for name in stage.reads}
        backbones = {"backbone": recipe.backbone, "segmenter.backbone": recipe.segmenter.backbone}
        for key, backbone in backbones.items():
            if backbone and key.partition(".")[0] in stage.settings:
                settings[f"{key}.weights"] = self._weights(stage, key, backbone)
        for role in stage.roles(recipe):
            if self.context.samples(role):
                settings[f"{IMAGES}{role}"] = self._images[role]
                if stage.truth(recipe):
                    settings[f"{TRUTH}{role}"] = self._truth(role)
        return settings

    @cached_property
    def _images(self) -> dict[str, str]:
        """Names of the images and tags of each role: hashed once, as there may be many."""
        return {
            role: self.manifest.fingerprint(getattr(self.recipe.dataset, role))
            for role in ("train", "val", "figures")
        }

    def _truth(self, role: str) -> str:
        if role not in self._truths:
            split = getattr(self.recipe.dataset, role)
            self._truths[role] = self.manifest.truth_fingerprint(split)
        return self._truths[role]

    def _weights(self, stage: Stage, key: str, backbone: BackboneSettings) -> str:
        """Name weights by their content: a moved file changes nothing, and a new one does.

        Where the file is gone its recorded name stands, so that a finished run stays readable.
        """
        if backbone.weights in ("imagenet", "none"):
            return backbone.weights
        name = Path(backbone.weights).name
        try:
            file = find_weights(backbone.weights, self.recipe.data)
        except UserError:
            plan = self._folder(stage).plan()
            recorded = str(plan.settings.get(f"{key}.weights")) if plan else ""
            return recorded if recorded.startswith(f"{name} ") else f"{name} missing"
        assert file is not None
        return f"{name} {file_name(file)}"

    def _fingerprints(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for stage in STAGES:
            names[stage.name] = fingerprint([stage.name, self._settings(stage, names)])
        return names

    def _status(self, stage: Stage, names: dict[str, str]) -> StageStatus:
        folder = self._folder(stage)
        if not folder.holds_results():
            return StageStatus(stage.name, "to do")
        plan = folder.plan()
        if plan is None:
            return StageStatus(stage.name, "stale", "(no readable plan.json says what made it)")
        if plan.fingerprint != names[stage.name]:
            changes = difference(plan.settings, self._settings(stage, names))
            return StageStatus(stage.name, "stale", f"({changes})")
        if record := folder.record():
            return StageStatus(stage.name, "done", seconds=record.seconds)
        if not stage.suffix:
            return StageStatus(stage.name, "partial")
        samples = self.context.samples(*stage.roles(self.recipe))
        done = sum(self.context.file(stage.folder, s, stage.suffix).exists() for s in samples)
        return StageStatus(stage.name, "partial", f"{done} of {len(samples)}")

    def _discard(self, stages: Sequence[Stage]) -> None:
        # The last first: whatever stops this, no stage is left without what it was made from.
        for stage in reversed(stages):
            discard(self.recipe.out / stage.folder)
            for folder in stage.also_writes:
                remove_tree(self.recipe.out / folder)

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


def versions() -> dict[str, str]:
    """Return what a figure depends on beside settings: library versions and the machine."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {gpu}"
    return {"python": platform.python_version(), **found, "machine": machine}


def _refuse_stale(out: Path, status: StageStatus) -> None:
    if status.state == "stale":
        raise UserError(
            f"{out}: stage {status.name} was made with something else {status.detail}; "
            f"make it and what follows anew with --redo {status.name}, or choose another --out"
        )


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        say(f"  warning: {warning}")
