"""A run with corrections: they teach the segmenter and stand in its masks, but are not judged."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import affinitynet as an
from affinitynet.data import read_labels
from affinitynet.data.corrections import correction_file, write_correction
from affinitynet.errors import UserError
from affinitynet.helping import _Known
from affinitynet.run_folder.freshness import Freshness
from affinitynet.run_folder.stages import Stage, find_stage
from affinitynet.stages.context import Context
from affinitynet.stages.works import work_of

SETTINGS = {"relabel.enabled": True}


@pytest.fixture
def run(
    tiny_recipe: Path,
    toy: Path,
    tmp_path: Path,
    finished: an.Run,
    begin: Callable[[an.Run, Path, str], None],
) -> an.Run:
    begin(finished, tmp_path / "run", "evaluate")
    return an.run(an.Recipe.load(tiny_recipe, data=toy, out=tmp_path / "run", **SETTINGS))


def states(run: an.Run) -> dict[str, str]:
    return {status.name: str(status) for status in an.Run.open(run.recipe.out).status()}


def test_corrections_win_everywhere_but_in_the_figures(run: an.Run, tmp_path: Path) -> None:
    root, manifest = run.recipe.out, run.manifest
    sample = manifest.split("train")[0]
    before = {file: file.read_bytes() for file in (root / "pseudo").glob("*.png")}
    plain = {row["stage"]: row for row in run.figures()}
    raw = read_labels(root / "masks" / f"{sample.id}.png")
    label = 1 + (sample.tags[0] + 1) % len(manifest.classes)
    drawn = np.full(raw.shape, 255, np.uint8)
    drawn[:20] = label
    write_correction(root, manifest, sample, drawn)
    assert "the corrections changed: were none, are 1 image" in states(run)["train_segmenter"]
    assert states(run)["propagate"] == "done"

    # Before the segmenter is trained again: an export has them all the same.
    out = an.export_run(root, tmp_path / "first", format="png")
    assert np.array_equal(read_labels(out / f"{sample.id}.png"), np.where(drawn < 255, drawn, raw))
    with pytest.raises(UserError, match="--redo train_segmenter"):
        an.run(run.recipe)
    again = an.run(run.recipe, redo="train_segmenter")
    assert again.metrics("train_segmenter")["corrected"] == 1
    now = states(run)
    assert now.pop("train_segmenter") == "done (1 mask corrected by hand)"
    assert set(now.values()) == {"done"}
    final = read_labels(root / "masks" / f"{sample.id}.png")
    assert (final[:20] == label).all()
    assert np.array_equal(read_labels(correction_file(root, sample.id)), drawn)
    assert {file: file.read_bytes() for file in (root / "pseudo").glob("*.png")} == before

    # Figures are of what the method made: a correction to all wrong changes none of them.
    write_correction(root, manifest, sample, np.full(raw.shape, label, np.uint8))
    uncorrected = read_labels(root / "uncorrected" / f"{sample.id}.png")
    masks = tmp_path / "masks"
    shutil.copytree(root / "masks", masks)
    shutil.copy(root / "uncorrected" / f"{sample.id}.png", masks / f"{sample.id}.png")
    rows = {row["stage"]: row for row in again.figures()}
    assert uncorrected.shape == raw.shape
    assert rows["masks"]["iou"] == an.evaluate_run(root, masks)[0]["iou"]
    assert rows["pseudo"]["iou"] == plain["pseudo"]["iou"]


def test_a_removed_correction_is_noticed(run: an.Run) -> None:
    root, manifest = run.recipe.out, run.manifest
    sample = manifest.split("train")[0]
    shape = read_labels(root / "masks" / f"{sample.id}.png").shape
    write_correction(root, manifest, sample, np.zeros(shape, np.uint8))
    an.run(run.recipe, redo="train_segmenter")
    correction_file(root, sample.id).unlink()
    assert "were 1 image, are none" in states(run)["train_segmenter"]


def draw(run: an.Run) -> None:
    sample = run.manifest.split("train")[0]
    write_correction(run.recipe.out, run.manifest, sample, np.ones((64, 64), np.uint8))


def test_what_is_drawn_before_the_training_begins_belongs_to_it(
    finished: an.Run,
    begin: Callable[[an.Run, Path, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin(finished, tmp_path / "run", "propagate")
    run = an.Run(finished.recipe.model_copy(update={"out": tmp_path / "run"}), finished.manifest)

    def with_drawing(stage: Stage) -> Callable[[Context], dict[str, Any]]:
        if stage.name == "propagate":  # on the page, meanwhile
            draw(run)
        return work_of(stage)

    monkeypatch.setattr("affinitynet.pipeline.work_of", with_drawing)
    run.go(anyway=True)
    assert run.metrics("train_segmenter")["corrected"] == 1
    assert set(states(run).values()) == {"done", "done (1 mask corrected by hand)"}
    # One that joins, and had looked before it was drawn, sees that nothing is left to do.
    look = iter([Freshness(finished.recipe), Freshness(run.recipe)])
    known = _Known(lambda: next(look))
    known._freshness.root = run.recipe.out
    assert known.begun(find_stage("train_segmenter", run.stages), done=True)
