"""Stages that judge themselves, in whole runs of the toy set."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import affinitynet as an
from affinitynet.data.cams import save_cams
from affinitynet.data.contents import record_files
from affinitynet.data.labels import read_labels
from affinitynet.data.toy import make_toy
from affinitynet.run_folder.settings import AffinitySettings
from affinitynet.run_folder.stages import find_stage
from affinitynet.stages.judge_walk import Areas, crf_judgements, judgements, summarize
from affinitynet.stages.train_affinity import judge
from affinitynet.stages.train_segmenter import count_pixels

NEUTRAL = 255


def test_areas_become_rows_and_sentences() -> None:
    lost = [Areas((0, 2), (100, 50), (5, 40), (0, 45), 1000)] * 3
    kept = [
        Areas((0,), (100,), (60,), (50,), 1000),
        Areas((0, 2), (0, 10), (900, 600), (9, 9), 1000),
    ]
    rows = summarize([*lost, *kept], ("ant", "bee", "cow"), failed=())
    few = {"refined": None}
    assert rows == [
        {"class": "ant", "images": 4, "floods": 0, "eats": 3, "walk": 0.05, "pseudo": 0.0} | few,
        {"class": "cow", "images": 4, "floods": 1, "eats": 0, "walk": 0.8, "pseudo": 0.9} | few,
    ]
    (said,) = judgements(rows, guarded=False)
    assert said == (
        "the walk leaves next to nothing of ant in 3 of 4 images (its area is 0.05 times the "
        "seeds' in the middle image); set walk.guard = true to keep their seeds there"
    )
    (guarded,) = judgements(rows, guarded=True)
    assert guarded.endswith("; they keep their seeds there")
    (flood,) = judgements([rows[1] | {"floods": 2}], guarded=True)
    assert "the walk floods images with cow in 2 of 4" in flood
    assert [row["class"] for row in summarize(lost, ("ant", "bee", "cow"), failed=[0])] == ["cow"]


def test_a_crf_that_takes_objects_away_is_named() -> None:
    taken = [Areas((0, 1), (100, 100), (80, 80), (left, 70), 1000) for left in (0, 20, 40, 50, 80)]
    # Where the guard keeps the seeds, the walk's area says nothing of the CRF.
    eaten = [Areas((1,), (100,), (5,), (0,), 1000)] * 9
    rows = summarize([*taken, *eaten], ("ant", "bee"), failed=())
    assert [row["refined"] for row in rows] == [0.5, 0.875]
    (said,) = crf_judgements(rows)
    assert said.startswith("the dense CRF leaves 50% of the walk's area of ant in the middle image")
    assert crf_judgements(summarize(taken[:4], ("ant", "bee"), failed=())) == []


def parts(total: float, positive: float) -> dict[str, float]:
    return {"total": total, "background": 0.1, "foreground": positive, "negative": 0.1}


def test_an_affinity_network_no_better_than_a_constant_is_named() -> None:
    mean, text = AffinitySettings(), AffinitySettings(distance="sum")
    assert judge(parts(0.69, 1.0), mean) == []
    (said,) = judge(parts(0.70, 1.0), mean)
    assert "its loss is 0.70, the same affinity for all pairs has 0.69" in said
    assert "train longer (affinity.epochs, now 8)" in said
    (stuck,) = judge(parts(2.9, 11.5), text)
    assert "affinities stay at zero: set affinity.distance = mean" in stuck
    assert "train longer" in judge(parts(0.8, 1.0), text)[0]


def test_labels_are_counted_in_the_crops_that_are_trained_on() -> None:
    """Of 250 crops every third; the neutral label, and what weights make of the others."""
    labels = [torch.tensor([[0, 0, 255], [number % 3, 0, 0]]) for number in range(250)]
    crops: Any = [(torch.zeros(3, 2, 3), own.to(torch.uint8)) for own in labels]
    assert count_pixels(crops, NEUTRAL) == {0: 84 * 5}
    assert count_pixels(crops[:4], NEUTRAL) == {0: 18, 1: 1, 2: 1}
    assert count_pixels(crops[:4], NEUTRAL, [0.5, 1.0, 3.0]) == {0: 9, 1: 1, 2: 3}
    draws = [1.0, 2.0, 1.0, 1.0]
    assert count_pixels(crops[:4], NEUTRAL, draws=draws) == {0: 22, 1: 2, 2: 1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("judged") / "toy", train=18, val=2, size=48)


Load = Callable[..., an.Recipe]


@pytest.fixture
def load(pictures: Path, tiny_recipe: Path, tmp_path: Path) -> Load:
    def make(name: str = "run", **changes: Any) -> an.Recipe:
        fast = {"classifier.steps": 1, "affinity.epochs": 1} | changes
        return an.Recipe.load(tiny_recipe, data=pictures, out=tmp_path / name, **fast)

    return make


def spots(run: an.Run, shown: Callable[[int, int], bool] = lambda tag, number: True) -> None:
    """Replace the CAMs by a spot of two pixels a tag, or by nothing."""
    for number, sample in enumerate(run.manifest.samples):
        cams = np.zeros((len(sample.tags), 48, 48), np.float32)
        for row, tag in enumerate(sample.tags):
            if shown(tag, number):
                cams[row, 10 + 12 * row, 20:22] = 0.9
        save_cams(run.recipe.out / "cams" / f"{sample.id}.npz", sample.tags, cams)
    # As if the stage had made them: a run refuses what was changed since.
    record_files(run.recipe, run.manifest, find_stage("compute_cams", run.stages))


def read(run: an.Run, folder: str) -> dict[str, NDArray[Any]]:
    root = run.recipe.out / folder
    return {
        sample.id: read_labels(root / f"{sample.id}.png") for sample in run.manifest.split("train")
    }


WALK = {"walk.refine": False, "walk.steps": 64}


def test_the_guard_gives_back_what_the_walk_eats(load: Load) -> None:
    free = an.run(load(**WALK), until="compute_cams")
    spots(free)
    shutil.copytree(free.recipe.out, free.recipe.out.with_name("guarded"))
    an.run(free.recipe, until="propagate")
    guarded = an.run(load("guarded", **WALK, **{"walk.guard": True}), until="propagate")
    seeds, walks, masks = 0, read(guarded, "walk"), read(guarded, "pseudo")
    for name, walk in read(free, "walk").items():
        np.testing.assert_array_equal(walks[name], walk)  # the walk itself is shown as it is
        np.testing.assert_array_equal(read(free, "pseudo")[name], walk)
    for sample in guarded.manifest.split("train"):
        for row, tag in enumerate(sample.tags):
            spot = masks[sample.id][10 + 12 * row, 20:22]
            assert (spot == tag + 1).all(), sample.id
            seeds += 2
        assert (masks[sample.id] > 0).sum() == 2 * len(sample.tags)
    assert seeds
    figures = guarded.metrics("propagate")
    assert sum(row["eats"] for row in figures["walk"]) == seeds / 2
    assert figures["empty"]["empty"] == 0
    lost = free.metrics("propagate")
    assert lost["empty"]["empty"] == lost["empty"]["images"] > 0
    assert any("set walk.guard = true" in said for said in lost["judgements"])
    assert set(lost["judgements"]) == set(lost["warnings"])


def test_images_of_an_interrupted_walk_count_too(load: Load) -> None:
    run = an.run(load(**WALK), until="propagate")
    whole = run.metrics("propagate")
    folder = run.recipe.out / "pseudo"
    (folder / "stage.json").unlink()
    for sample in run.manifest.split("train")[::2]:
        (folder / f"{sample.id}.png").unlink()
    again = an.run(run.recipe, until="propagate").metrics("propagate")
    assert whole["walk"]
    assert (again["walk"], again["empty"]) == (whole["walk"], whole["empty"])


HELD = {"classifier.hold_out": 0.01}  # too little to judge a tag by, but it asks for judgement


def test_a_class_with_empty_seeds_is_neutral_in_its_images(load: Load) -> None:
    run = an.run(load(**HELD, **WALK), until="compute_cams")
    samples = run.manifest.split("train")
    counts = [sum(tag in sample.tags for sample in samples) for tag in range(3)]
    failed = int(np.argmax(counts))
    assert counts[failed] >= 5
    spots(run, lambda tag, number: tag != failed or number % 2 == 0)
    run = an.run(run.recipe, until="propagate")
    figures = run.metrics("mine_confident")
    row = figures["seeds"][failed]
    assert (row["images"], row["failed"]) == (counts[failed], "empty seeds")
    assert counts[failed] / 3 < row["empty"] < counts[failed]
    assert not any(other["failed"] for other in figures["seeds"] if other is not row)
    (said, *_) = figures["judgements"]
    assert (
        f"class {row['class']} is neutral in its images: empty seeds in {row['empty']} of" in said
    )
    assert "tag more images that show it" in said
    for folder in ("confident", "pseudo"):
        masks = read(run, folder)
        for sample in samples:
            assert not (masks[sample.id] == failed + 1).any()
            if failed in sample.tags and folder == "confident":
                assert (masks[sample.id] == NEUTRAL).any(), sample.id
                assert not (masks[sample.id] == 0).all()
    other = next(s for s in samples if failed not in s.tags and s.tags)
    assert (read(run, "confident")[other.id] == 0).any()


def test_no_class_fails_by_seeds_where_nothing_is_judged(load: Load) -> None:
    run = an.run(load(), until="compute_cams")
    spots(run, lambda tag, number: False)
    run = an.run(run.recipe, until="mine_confident")
    figures = run.metrics("mine_confident")
    assert not any(row["failed"] for row in figures["seeds"])
    assert any("has poor maps: empty seeds in" in said for said in figures["judgements"])
    assert all((labels == 0).all() for labels in read(run, "confident").values())


def test_a_run_ends_where_every_class_fails_and_goes_on_when_told(load: Load) -> None:
    run = an.run(load(**HELD), until="compute_cams")
    spots(run, lambda tag, number: False)
    with pytest.raises(an.UserError) as caught:
        an.run(run.recipe, until="train_affinity")
    assert "the maps of no class can be used (" in str(caught.value)
    assert "or go on with --anyway" in str(caught.value)
    assert not (run.recipe.out / "affinity" / "model.json").exists()
    run = an.run(run.recipe, until="train_affinity", anyway=True)
    assert all((labels == 0).all() for labels in read(run, "confident").values())
    said = run.metrics("mine_confident")["judgements"]
    assert all("goes on all the same" in text for text in said)
