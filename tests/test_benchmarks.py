"""Benchmarks import what there is, and the ablations decide as the pipeline does."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest

from affinitynet.evaluating import evaluate_run
from affinitynet.pipeline import Run
from affinitynet.run_folder.recipe import Recipe

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = sorted(file.stem for file in FOLDER.glob("*.py"))


@pytest.fixture(autouse=True)
def _as_a_script() -> Iterator[None]:
    """Let benchmarks find each other as scripts do; they leave no trace in this process."""
    with (
        patch.object(sys, "path", [str(FOLDER), *sys.path]),
        patch.object(sys, "dont_write_bytecode", True),
        patch.dict(os.environ),
    ):
        yield
    for name in NAMES:
        sys.modules.pop(name, None)


def load(name: str) -> Any:
    module: ModuleType = importlib.import_module(name)
    assert Path(str(module.__file__)).parent == FOLDER
    return module


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_imports(name: str) -> None:
    load(name)


def test_the_profile_times_functions_that_there_are() -> None:
    module = load("label_generation")
    for owner, function, _ in module.LINES:
        assert callable(getattr(owner, function))
    assert all(hasattr(stage, "make_each") for stage in module.STAGES.values())


@pytest.fixture(scope="module")
def walked(
    tmp_path_factory: pytest.TempPathFactory,
    finished: Run,
    begin: Callable[[Run, Path, str], None],
) -> Run:
    """A run up to the walk."""
    folder = tmp_path_factory.mktemp("walked") / "run"
    begin(finished, folder, "train_segmenter")
    return Run.open(folder)


def test_ablations_decide_as_the_pipeline(walked: Run) -> None:
    """The recipe's own setting gives the run's masks, from kept affinities and from the network."""
    ablations, out = load("ablations"), walked.recipe.out
    samples = walked.manifest.split("train")
    kept = ablations.load_source(out, "kept", samples)
    anew = ablations.load_source(out, "anew", samples, anew=True)
    assert (kept.radius, kept.reach, anew.radius, anew.reach) == (3, 3, 3, 7)

    rows = ablations.measure(walked.context, samples, [kept, anew])
    found = {variant.name: scores for variant, *scores in rows}
    run = {row["stage"]: row["miou"] for row in evaluate_run(walked) if row["split"] == "train"}
    own = [pytest.approx(100 * run["walk"]), pytest.approx(100 * run["pseudo"])]
    assert found["kept"] == own
    assert found["anew"] == own
    assert found["beta = 8"] == [own[0], None]
    assert found["radius = 3"] == [own[0], None]
    assert "radius = 5" not in found
    assert found["t = 1"] != found["t = 1024"]

    names = {variant.name for variant in ablations.variants_of(walked.context, [anew])}
    assert {"radius = 3", "radius = 5", "radius = 7"} <= names


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_whole_run_is_measured_stage_by_stage(walked: Run, tmp_path: Path) -> None:
    module = load("end_to_end")
    recipe = Recipe.load(walked.recipe.out / "recipe.yaml", out=tmp_path / "run")
    rows, machine, seconds = module.run(recipe, "compute_cams", 1)
    classifier, cams = rows
    assert (classifier.stage, cams.stage) == ("train_classifier", "compute_cams")
    assert classifier.steps > 0
    # Of both splits.
    assert cams.images == sum(len(samples) for samples in walked.manifest.splits.values())
    assert sum(row.seconds for row in rows) <= seconds
    for row in rows:
        assert row.flops > 0
        assert 0 < row.floor < row.seconds
        assert row.parts["network"] > 0
    assert machine.decoding > 0


def test_ranks_against_the_truth() -> None:
    module = load("trust")
    assert module.spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert module.spearman([4, 3, 2, 1], [10, 20, 30, 40]) == pytest.approx(-1)
    # Ties have the mean of their places: 1.5, 1.5, 3 against 1, 2, 3.
    assert module.spearman([0, 0, 1], [1, 2, 3]) == pytest.approx(0.8660254)
    assert module.spearman([1, 1, 1], [1, 2, 3]) == 0
    iou = [0.1, 0.5, 0.9, 0.7]
    assert module.ause(iou, iou) == pytest.approx(0)
    assert module.ause([-value for value in iou], iou) > 1
    assert module.ause([1, 1, 1, 1], iou) == pytest.approx(1, abs=0.3)
