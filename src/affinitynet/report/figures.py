"""Read what a run folder says of itself: its recipe, its stages, its figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from affinitynet.data import Manifest
from affinitynet.errors import UserError
from affinitynet.run_folder.artifacts import EVALUATION, FIGURES
from affinitynet.run_folder.folder import read_json
from affinitynet.run_folder.freshness import StageStatus
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import RECORD, Record, StageFolder
from affinitynet.run_folder.stages import Stage


@dataclass(frozen=True)
class Figure:
    """One measured row: which masks, on which images, under which conditions, how good.

    All of 0..1; None is "does not apply" or "not recorded". ``iou`` has one entry a class,
    background first.
    """

    stage: str
    split: str
    images: int | None
    tags_given: bool | None
    crf: bool | None
    tta: str | None
    threshold: float | None
    ground_truth_chose: str | None
    miou: float | None
    iou: tuple[float | None, ...]
    precision: float | None
    coverage: float | None
    imported: str

    @property
    def measures_classes(self) -> bool:
        """Tell whether there is an IoU for any class."""
        return any(value is not None for value in self.iou)


@dataclass(frozen=True)
class FigureSheet:
    """The figures of a run and the names of their classes, background first."""

    classes: tuple[str, ...]
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class StageRow:
    """One stage as the report shows it; ``state`` is text, as `affinitynet status` prints it."""

    name: str
    state: str
    seconds: float | None
    images_per_second: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class RunFacts:
    """What this run is. Text is "" where the run folder does not say."""

    name: str
    data: str
    classes: tuple[str, ...]
    splits: tuple[tuple[str, int], ...]
    seed: int | None
    finished: str
    machine: str
    versions: tuple[tuple[str, str], ...]


def figure_rows(run_folder: Path) -> list[dict[str, Any]]:
    """Return the rows of ``evaluation/figures.json``, none before `evaluate` has run.

    Raises:
        UserError: the file is damaged.
    """
    path = run_folder / EVALUATION.folder / FIGURES
    if not path.is_file():
        return []
    content = read_json(path, "evaluate")
    if not isinstance(content, dict) or not isinstance(content.get("figures"), list):
        raise UserError(f"{path}: holds no figures; make it again with --redo evaluate")
    return list(content["figures"])


def read_figures(run_folder: Path) -> FigureSheet:
    """Read ``evaluation/figures.json``; an empty sheet where nothing was evaluated yet.

    Raises:
        UserError: the file is not JSON.
    """
    path = run_folder / EVALUATION.folder / FIGURES
    content = _mapping(read_json(path, "evaluate")) if path.is_file() else {}
    rows = tuple(read_figure(_mapping(entry)) for entry in _list(content.get("figures")))
    return FigureSheet(tuple(str(name) for name in _list(content.get("classes"))), rows)


def read_figure(entry: Mapping[str, Any]) -> Figure:
    """Read one entry of figures.json; keys that are unknown or missing don't matter."""
    images = _number(entry.get("images"))
    return Figure(
        stage=str(entry.get("stage") or "?"),
        split=str(entry.get("split") or "?"),
        images=None if images is None else round(images),
        tags_given=_flag(entry.get("tags_given")),
        crf=_flag(entry.get("crf")),
        tta=None if entry.get("tta") is None else str(entry["tta"]),
        threshold=_number(entry.get("threshold")),
        ground_truth_chose=str(entry["ground_truth_chose"])
        if entry.get("ground_truth_chose")
        else None,
        miou=_number(entry.get("miou")),
        iou=tuple(_number(value) for value in _list(entry.get("iou"))),
        precision=_number(entry.get("precision")),
        coverage=_number(entry.get("coverage")),
        imported=str(entry.get("imported") or ""),
    )


def read_stages(
    run_folder: Path, stages: Sequence[Stage], states: Sequence[StageStatus]
) -> list[StageRow]:
    """Gather what each stage says of itself.

    Raises:
        UserError: a ``stage.json`` is damaged.
    """
    rows = []
    for stage, status in zip(stages, states, strict=True):
        record = StageFolder(run_folder / stage.folder, stage.name).record()
        rows.append(_stage_row(stage, str(status), record))
    return rows


def read_facts(
    run_folder: Path, manifest: Manifest, recipe: Recipe, stages: Sequence[Stage]
) -> RunFacts:
    """Gather the headline: what ran, on what, with which versions, and when it last finished."""
    versions: dict[str, str] = {}
    finished: list[float] = []
    for stage in stages:
        record = StageFolder(run_folder / stage.folder, stage.name).record()
        if record:
            versions |= record.versions
            finished.append((run_folder / stage.folder / RECORD).stat().st_mtime)
    return RunFacts(
        name=recipe.name,
        data=manifest.root.name,
        classes=manifest.classes,
        splits=tuple((name, len(samples)) for name, samples in manifest.splits.items()),
        seed=recipe.seed,
        finished=f"{datetime.fromtimestamp(max(finished)):%Y-%m-%d %H:%M}" if finished else "",
        machine=versions.pop("machine", ""),
        versions=tuple(sorted(versions.items())),
    )


def _stage_row(stage: Stage, state: str, record: Record | None) -> StageRow:
    if record is None:
        return StageRow(stage.name, state, None, None, ())
    done = record.counts.get("done", 0)
    # A training counts epochs; only a stage that writes a file an image has a speed of its own.
    rate = done / record.seconds if stage.suffix and done and record.seconds else None
    warnings = tuple(str(text) for text in _list(record.figures.get("warnings")))
    return StageRow(stage.name, state, record.seconds, rate, warnings)


def _number(value: Any) -> float | None:
    """Return a finite number as float, anything else as None (JSON may hold NaN for "absent")."""
    # In Python True is an int, and would become 1.0.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
