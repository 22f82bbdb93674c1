"""Runs whose affinities are not the paper's: same bytes when resumed, kept, or brought back in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import affinitynet as an
from affinitynet.data import load_image, read_labels
from affinitynet.data.cams import load_cams
from affinitynet.errors import UserError
from affinitynet.ops import confident_labels, dense_crf
from affinitynet.ops.guard import seed_scores
from affinitynet.pipeline import Run
from affinitynet.progress import Task
from affinitynet.run_folder.freshness import Freshness
from affinitynet.run_folder.stages import find_stage

Begin = Callable[[Run, Path, str], None]


def recipe(tiny: Path, toy: Path, out: Path, **settings: Any) -> an.Recipe:
    return an.Recipe.load(tiny, data=toy, out=out, **settings)


def files(root: Path, *folders: str) -> dict[str, bytes]:
    found = (p for folder in folders for p in (root / folder).rglob("*"))
    keep = (".png", ".npz", ".safetensors")
    return {str(p.relative_to(root)): p.read_bytes() for p in found if p.suffix in keep}


@pytest.fixture(scope="module")
def boundary(
    tmp_path_factory: pytest.TempPathFactory, toy: Path, tiny_text: str, finished: Run, begin: Begin
) -> Run:
    """A whole run with boundary affinities."""
    folder = tmp_path_factory.mktemp("boundary")
    (folder / "tiny.yaml").write_text(tiny_text, encoding="utf-8")
    begin(finished, folder / "run", "mine_confident")
    own = recipe(folder / "tiny.yaml", toy, folder / "run", **{"affinity.source": "boundary"})
    return an.run(own)


def test_a_whole_run_with_boundaries(boundary: Run) -> None:
    out = boundary.recipe.out
    assert [str(status) for status in boundary.status()] == ["done"] * len(boundary.stages)
    kept = sorted((out / "affinities").rglob("*.npz"))
    affinity = np.load(kept[0])["affinity"]
    assert affinity.shape == (12, 16, 16)  # radius 3, stride 4 of 64 pixels
    assert len(files(out, "pseudo")) == 9
    described = json.loads((out / "affinity" / "model.json").read_text())
    assert (described["kind"], described["stride"], described["radius"]) == ("boundary", 4, 3)


def test_resumed_it_ends_with_the_same_bytes(
    boundary: Run, begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = boundary.recipe.model_copy(update={"out": tmp_path / "run"})
    begin(boundary, own.out, "mine_confident")
    left, advance = {("train_affinity", 3), ("propagate", 4)}, Task.advance

    def interrupting(task: Task, note: str = "") -> None:
        advance(task, note)
        if (task.name, task.done) in left:
            left.remove((task.name, task.done))
            raise KeyboardInterrupt

    monkeypatch.setattr(Task, "advance", interrupting)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            an.run(own, until="propagate")
    an.run(own, until="propagate")
    assert not left
    folders = ("affinity", "affinities", "scores", "walk", "pseudo")
    assert files(own.out, *folders) == files(boundary.recipe.out, *folders)


def test_kept_affinities_are_a_source_of_files(
    boundary: Run, with_cams: Path, toy: Path, tiny_recipe: Path
) -> None:
    """At stride 4, which is told from the size of the grid."""
    source = f"files:{boundary.recipe.out / 'affinities'}"
    run = an.run(
        recipe(tiny_recipe, toy, with_cams, **{"affinity.source": source}), until="propagate"
    )
    folders = ("scores", "walk", "pseudo")
    assert files(run.recipe.out, *folders) == files(boundary.recipe.out, *folders)


def test_the_learnt_affinity_on_a_finer_grid(with_cams: Path, toy: Path, tiny_recipe: Path) -> None:
    settings = {"affinity.stride": 4, "affinity.train_radius": 4}
    run = an.run(recipe(tiny_recipe, toy, with_cams, **settings), until="propagate")
    kept = sorted((run.recipe.out / "affinities").rglob("*.npz"))
    assert np.load(kept[0])["affinity"].shape == (12, 16, 16)


def test_without_a_walk_the_crf_goes_on_from_the_cams(
    with_cams: Path, toy: Path, tiny_recipe: Path
) -> None:
    own = recipe(tiny_recipe, toy, with_cams, **{"affinity.source": "none"})
    run = an.run(own, until="propagate")
    names = [stage.name for stage in run.stages]
    assert not {"mine_confident", "train_affinity"} & set(names)
    assert not any((own.out / name).exists() for name in ("walk", "affinities", "scores"))
    assert run.metrics("propagate")["background"] == "alpha"
    sample = run.manifest.split("train")[0]
    classes, cams = load_cams(own.out / "cams" / f"{sample.id}.npz")
    seeds = seed_scores(torch.from_numpy(cams), own.walk.alpha)
    image = torch.from_numpy(load_image(sample.image))
    labels = dense_crf(image, seeds, iterations=2).argmax(0).numpy()
    expected = np.concatenate([[0], classes + 1])[labels]
    np.testing.assert_array_equal(read_labels(own.out / "pseudo" / f"{sample.id}.png"), expected)
    with pytest.raises(UserError, match="no stage train_affinity: nothing in it needs"):
        find_stage("train_affinity", run.stages)
    # No walk, so that its steps make nothing stale.
    longer = recipe(tiny_recipe, toy, own.out, **{"affinity.source": "none", "walk.steps": 7})
    assert str(Run.create(longer).status()[2]) == "done"


@pytest.mark.parametrize("start", ["classifier", "backbone"])
def test_features_walk_without_a_training(
    with_cams: Path, toy: Path, tiny_recipe: Path, start: str
) -> None:
    settings = {"affinity.source": "features", "affinity.start": start, "walk.method": "restart"}
    own = recipe(tiny_recipe, toy, with_cams, **settings)
    run = an.run(own, until="propagate")
    assert not {"mine_confident", "train_affinity"} & {stage.name for stage in run.stages}
    kept = sorted((own.out / "affinities").rglob("*.npz"))
    assert np.load(kept[0])["affinity"].shape == (12, 8, 8)
    before = files(own.out, "affinities", "pseudo")
    kept[0].unlink()
    for folder in ("pseudo", "walk"):
        (own.out / folder / kept[0].with_suffix(".png").name).unlink()
    (own.out / "pseudo" / "stage.json").unlink()
    an.run(own, until="propagate")
    assert files(own.out, "affinities", "pseudo") == before


def test_a_relative_background_does_not_walk(
    boundary: Run, with_cams: Path, toy: Path, tiny_recipe: Path
) -> None:
    source = f"files:{boundary.recipe.out / 'affinities'}"
    settings = {"affinity.source": source, "walk.background": "relative", "walk.guard": True}
    run = an.run(recipe(tiny_recipe, toy, with_cams, **settings), until="propagate")
    for file in (run.recipe.out / "scores").rglob("*.npz"):
        scores = np.load(file)["scores"]
        assert (scores[0] == 0.25).all()
        assert len(scores) == 1 or scores[1:].max() == pytest.approx(1, abs=1e-3)


def test_settings_that_came_later_are_in_no_fingerprint_until_they_are_set(
    tmp_path: Path, toy: Path, tiny_recipe: Path
) -> None:
    """So that no run of before is stale; set, they are named."""

    def ingredients(**settings: Any) -> dict[str, Any]:
        own = recipe(tiny_recipe, toy, tmp_path / "run", **settings)
        return Freshness(own).ingredients["train_affinity"]

    own = ingredients()
    assert own["affinity.radius"] == 3
    assert not {"affinity.stride", "affinity.train_radius"} & set(own)
    assert ingredients(**{"affinity.stride": 4})["affinity.stride"] == 4


def test_confident_areas_by_thresholds(with_cams: Path, toy: Path, tiny_recipe: Path) -> None:
    settings = {"confident.rule": "thresholds", "confident.foreground_over": 0.4}
    own = recipe(tiny_recipe, toy, with_cams, **settings)
    run = an.run(own, until="mine_confident")
    sample = run.manifest.split("train")[0]
    classes, cams = load_cams(own.out / "cams" / f"{sample.id}.npz")
    local = confident_labels(
        load_image(sample.image), cams, thresholds=(0.4, 0.05), iterations=2
    ).numpy()
    expected = np.full(local.shape, 255)
    for label, value in enumerate([0, *(classes + 1)]):
        expected[local == label] = value
    np.testing.assert_array_equal(read_labels(own.out / "confident" / f"{sample.id}.png"), expected)
    with pytest.raises(UserError, match="background_under must be at most foreground_over"):
        recipe(tiny_recipe, toy, own.out, **{"confident.background_under": 0.5})
