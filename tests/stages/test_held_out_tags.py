"""What held-out images say of each tag, and what a run does where none was learned."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import affinitynet as an
from affinitynet.data import Sample
from affinitynet.data.labels import read_labels
from affinitynet.data.toy import make_toy
from affinitynet.data.verdicts import failed_classes, read_verdicts
from affinitynet.pipeline import Run
from affinitynet.stages import train_classifier
from affinitynet.stages.context import Context

FAST = {"classifier.steps": 1, "classifier.hold_out": 0.5}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training images and thirty of val, so that each tag can be judged."""
    return make_toy(tmp_path_factory.mktemp("many") / "toy", train=8, val=30, size=32)


@pytest.fixture
def recipe(many: Path, tiny_recipe: Path, tmp_path: Path) -> an.Recipe:
    return an.Recipe.load(tiny_recipe, data=many, out=tmp_path / "run", **FAST)


def scored(monkeypatch: pytest.MonkeyPatch, sign: float, wrong: str = "") -> None:
    """Let the classifier's logits be the tags times a sign, those of one image turned round."""

    def tag_scores(context: Context, _: Any, samples: Sequence[Sample]) -> NDArray[np.float64]:
        logits = np.full((len(samples), len(context.manifest.classes)), -3.0 * sign)
        for row, sample in zip(logits, samples, strict=True):
            row[list(sample.tags)] = 3.0 * sign
            if sample.id == wrong:
                row *= -1
        return logits

    monkeypatch.setattr(train_classifier, "tag_scores", tag_scores)


def test_the_networks_scores_are_judged_and_recorded(recipe: an.Recipe) -> None:
    figures = an.run(recipe, until="train_classifier").metrics("train_classifier")
    assert [row["images"] for row in figures["tags"]] == [30] * len(figures["tags"])
    assert all(0 <= row["ap"] <= 1 for row in figures["tags"] if row["ap"] is not None)
    assert figures["images"] == 8  # val has tags: all of train is learned from


def test_a_batch_of_whole_images_is_scored_as_the_network_does(recipe: an.Recipe) -> None:
    """At the middle of the sizes learned from, without a crop."""
    import torch

    from affinitynet.data import load_image
    from affinitynet.data.transforms import resize_image
    from affinitynet.models.classifier import Classifier

    run = an.run(recipe, until="train_classifier")
    model = Classifier.load(recipe.out / "classifier")
    samples = run.manifest.split("val")[:2]
    scores = train_classifier.tag_scores(run.context, model, samples)
    pixels = resize_image(load_image(samples[1].image), 64, 64)  # long_side: [48, 80]
    with torch.no_grad():
        expected = model(model.backbone.normalization.apply(pixels[None]))  # type: ignore[operator,union-attr]
    np.testing.assert_allclose(scores[1], expected[0].numpy(), rtol=1e-4, atol=1e-5)


def test_a_wrong_tag_is_listed(recipe: an.Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Run.create(recipe).manifest
    sample = next(sample for sample in manifest.split("val") if sample.tags)
    scored(monkeypatch, 1, wrong=sample.id)
    figures = an.run(recipe, until="train_classifier").metrics("train_classifier")
    listed = figures["suspicious_tags"]
    assert {entry["image"] for entry in listed} == {
        sample.image.relative_to(manifest.root).as_posix()
    }
    tagged = {entry["class"] for entry in listed if entry["tagged"]}
    assert tagged <= {manifest.classes[tag] for tag in sample.tags}
    with (recipe.out / "classifier" / "suspicious_tags.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["tagged"] == "yes" for row in rows] == [entry["tagged"] for entry in listed]


def test_a_run_that_learned_nothing_ends_and_goes_on_when_told(
    recipe: an.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, -1)
    with pytest.raises(an.UserError) as caught:
        an.run(recipe, until="compute_cams")
    said = str(caught.value)
    assert "tells no class better than chance" in said
    assert "add --classifier.norm trained --redo train_classifier" in said
    assert "held-out images: " in said
    with pytest.raises(an.UserError, match="or go on with --anyway"):  # not trained again
        an.run(recipe, until="compute_cams")
    assert not (recipe.out / "cams").exists()
    assert not failed_classes(recipe.out)  # who goes on anyway gets all maps
    an.run(recipe, until="compute_cams", anyway=True)
    assert (recipe.out / "cams" / "stage.json").is_file()


def test_a_failed_class_is_neutral_in_confident_areas_and_masks(
    recipe: an.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One class fails, so what its maps claim becomes 255; nothing else changes."""
    scored(monkeypatch, 1)
    good = an.run(recipe, until="propagate")
    failed = next(
        index
        for index, row in enumerate(read_verdicts(recipe.out))
        if row["verdict"] == "learned" and label_count(good, "pseudo", index + 1)
    )
    assert label_count(good, "confident", failed + 1)
    right = train_classifier.tag_scores

    def one_wrong(*words: Any) -> NDArray[np.float64]:
        logits = right(*words)
        logits[:, failed] *= -1
        return logits

    monkeypatch.setattr(train_classifier, "tag_scores", one_wrong)
    other = recipe.model_copy(update={"out": recipe.out.with_name("other")})
    bad = an.run(other, until="propagate")
    assert failed_classes(other.out) == (failed,)
    for sample in good.manifest.split("train"):
        before, after = read(good, "pseudo", sample), read(bad, "pseudo", sample)
        assert np.array_equal(after, np.where(before == failed + 1, 255, before))
        before, after = read(good, "confident", sample), read(bad, "confident", sample)
        assert np.array_equal(after, np.where(before == failed + 1, 255, before))


def read(run: Run, folder: str, sample: Sample) -> NDArray[Any]:
    return read_labels(run.recipe.out / folder / f"{sample.id}.png")


def label_count(run: Run, folder: str, label: int) -> int:
    samples = run.manifest.split("train")
    return sum(int((read(run, folder, sample) == label).sum()) for sample in samples)


def test_without_val_a_share_of_train_is_held_out(
    recipe: an.Recipe, tmp_path: Path, tiny_recipe: Path
) -> None:
    data = make_toy(tmp_path / "toy", train=40, val=1, size=32)
    changes = {**FAST, "dataset.val": None}
    own = an.Recipe.load(tiny_recipe, data=data, out=tmp_path / "own", **changes)
    figures = an.run(own, until="train_classifier").metrics("train_classifier")
    assert figures["images"] == 20
    assert {row["images"] for row in figures["tags"]} == {20}


def test_a_set_too_small_to_judge_is_learned_from_whole(
    toy: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    changes = {**FAST, "dataset.val": None}
    own = an.Recipe.load(tiny_recipe, data=toy, out=tmp_path / "own", **changes)
    figures = an.run(own, until="train_classifier").metrics("train_classifier")
    assert figures["images"] == 9
    assert "tags" not in figures
    assert any("too few of 9 images can be held out" in said for said in figures["warnings"])


def test_by_default_nothing_is_held_out(toy: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    own = an.Recipe.load(tiny_recipe, data=toy, out=tmp_path, **{"classifier.steps": 1})
    figures = an.run(own, until="train_classifier").metrics("train_classifier")
    assert "tags" not in figures
    assert read_verdicts(tmp_path) == []
