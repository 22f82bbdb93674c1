"""Read what a run folder says of itself: its recipe, its stages, its figures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from affinitynet.data import Manifest
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import RECIPE, RECORD, read_json

# The order in which a reader meets the stages, and the folder of each.
STAGE_FOLDERS = (
    ("train_classifier", "classifier"),
    ("compute_cams", "cams"),
    ("mine_confident", "confident"),
    ("train_affinity", "affinity"),
    ("propagate", "pseudo"),
    ("train_segmenter", "segmenter"),
    ("evaluate", "evaluation"),
)
PER_IMAGE = ("cams", "confident", "pseudo")


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
    note: str

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
    """One stage as the report shows it. ``state`` is text: done, partial ..., stale ..., to do."""

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


def read_settings(run_folder: Path) -> dict[str, Any]:
    """Read ``recipe.yaml`` as plain values; {} where the run folder has none.

    Not validated: a report must also open on a run of an older or newer version.

    Raises:
        UserError: the file can't be read, or is not YAML.
    """
    path = run_folder / RECIPE
    if not path.is_file():
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    return _mapping(values)


def read_figures(run_folder: Path) -> FigureSheet:
    """Read ``evaluation/figures.json``; an empty sheet where nothing was evaluated yet.

    Raises:
        UserError: the file is not JSON.
    """
    path = run_folder / "evaluation" / "figures.json"
    content = _mapping(read_json(path)) if path.is_file() else {}
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
        note=str(entry.get("note") or ""),
    )


def read_stages(run_folder: Path, states: Mapping[str, str] | None = None) -> list[StageRow]:
    """Tell how far each stage is.

    `states` says it where the caller knows more than the files do (only the pipeline can tell
    that a stage is stale): stage name -> text. Its order is the order of the answer, and stages
    it does not name follow.

    Raises:
        UserError: a ``stage.json`` is not JSON.
    """
    folders = dict(STAGE_FOLDERS)
    known = dict(states or {})
    names = [*known, *(name for name in folders if name not in known)]
    return [_stage(run_folder / folders.get(name, name), name, known.get(name)) for name in names]


def read_facts(run_folder: Path, manifest: Manifest, settings: Mapping[str, Any]) -> RunFacts:
    """Gather the headline: what ran, on what, with which versions, and when it last finished."""
    records = [run_folder / folder / RECORD for _, folder in STAGE_FOLDERS]
    records = [path for path in records if path.is_file()]
    versions: dict[str, str] = {}
    for path in records:
        recorded = _mapping(_mapping(read_json(path)).get("versions"))
        versions.update({str(name): str(value) for name, value in recorded.items()})
    latest = max((path.stat().st_mtime for path in records), default=None)
    seed = settings.get("seed")
    return RunFacts(
        name=str(settings.get("name") or run_folder.resolve().name),
        data=manifest.root.name,
        classes=manifest.classes,
        splits=tuple((name, len(samples)) for name, samples in manifest.splits.items()),
        seed=seed if isinstance(seed, int) else None,
        finished="" if latest is None else f"{datetime.fromtimestamp(latest):%Y-%m-%d %H:%M}",
        machine=versions.pop("machine", ""),
        versions=tuple(sorted(versions.items())),
    )


def _stage(folder: Path, name: str, state: str | None) -> StageRow:
    file = folder / RECORD
    record = _mapping(read_json(file)) if file.is_file() else {}
    counts, figures = _mapping(record.get("counts")), _mapping(record.get("figures"))
    done, total = _number(counts.get("done")), _number(counts.get("total"))
    seconds = _number(record.get("seconds"))
    rate = _number(figures.get("images_per_second"))
    # A training counts epochs; only a stage that writes a file an image has a speed of its own.
    if rate is None and folder.name in PER_IMAGE and done and seconds:
        rate = done / seconds
    return StageRow(
        name=name,
        state=state or _state(folder, bool(record), done, total),
        seconds=seconds,
        images_per_second=rate,
        warnings=tuple(str(text) for text in _list(figures.get("warnings"))),
    )


def _state(folder: Path, finished: bool, done: float | None, total: float | None) -> str:
    if done is not None and total is not None and done < total:
        return f"partial {done:.0f} of {total:.0f}"
    if finished:
        return "done"
    if folder.name in PER_IMAGE and folder.is_dir():
        files = sum(1 for path in folder.rglob("*") if path.suffix in (".png", ".npz"))
        return f"partial, {files} images" if files else "to do"
    return "partial" if folder.is_dir() and any(folder.iterdir()) else "to do"


def _number(value: Any) -> float | None:
    """Return a finite number as float, anything else as None (JSON may hold NaN for "absent")."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
