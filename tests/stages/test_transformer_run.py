"""A whole run on a transformer: classifier, affinities, walk, DPT's head, final masks."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

import affinitynet as an
from affinitynet.data import read_labels
from affinitynet.errors import UserError

VIT = {
    "backbone.name": "test_vit",
    "classifier.output_stride": None,
    "classifier.optimizer": "adamw",
    "classifier.layer_decay": 0.8,
    "affinity.learns": "head",
    "affinity.scale": 2,
    "segmenter.architecture": "dpt",
    "segmenter.learns": "head",
    "relabel.enabled": True,
    "relabel.refine": False,
}


def test_all_stages_run_on_a_transformer(toy: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    run = an.run(an.Recipe.load(tiny_recipe, data=toy, out=tmp_path / "run", **VIT))
    assert {str(status) for status in run.status()} == {"done"}
    sample = run.manifest.split("train")[0]
    assert read_labels(tmp_path / "run/masks" / f"{sample.id}.png").shape == (64, 64)
    classifier, affinity, segmenter = (
        load_file(tmp_path / "run" / name / "weights.safetensors")
        for name in ("classifier", "affinity", "segmenter")
    )
    # They started from the classifier, and what was not to learn has not.
    name = "blocks.0.attn.qkv.weight"
    trained = classifier[f"backbone.net.{name}"]
    assert trained.equal(affinity[f"backbone.net.{name}"])
    assert trained.equal(segmenter[f"network.encoder.model.{name}"])
    predicted = an.Segmenter.load(tmp_path / "run/segmenter").predict(sample.image)
    assert predicted.shape == (64, 64)


def test_a_head_that_does_not_stand_is_refused_before_the_run(
    toy: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    settings = {**VIT, "segmenter.architecture": "unet"}
    with pytest.raises(UserError, match="test_vit is a transformer, on which stand dpt"):
        an.run(an.Recipe.load(tiny_recipe, data=toy, out=tmp_path / "run", **settings))
    assert not (tmp_path / "run" / "classifier").exists()
