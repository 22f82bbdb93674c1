"""The first stages of runs whose maps come from a transformer's attention, or from texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import affinitynet as an
from affinitynet.data import load_image
from affinitynet.data.cams import load_cams
from affinitynet.errors import UserError
from affinitynet.models.attention import attended_cams
from affinitynet.models.classifier import Classifier
from affinitynet.run_folder.artifacts import CAMS, PSEUDO
from affinitynet.run_folder.stages import stages_of
from affinitynet.stages.compute_cams import multi_scale_cams, scale_maps

VIT = {
    "backbone.name": "test_vit",
    "classifier.output_stride": None,
}


def test_a_run_by_attention(toy: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    settings = {**VIT, "cams.source": "attention", "classifier.epochs": 1}
    out = tmp_path / "run"
    run = an.run(an.Recipe.load(tiny_recipe, data=toy, out=out, **settings), until="mine_confident")
    assert [str(status) for status in run.status()][:3] == ["done"] * 3
    sample = next(sample for sample in run.manifest.split("train") if sample.tags)
    model = Classifier.load(out / "classifier")
    image = torch.from_numpy(load_image(sample.image)).permute(2, 0, 1)
    with torch.inference_mode():
        maps = multi_scale_cams(
            lambda pixels: attended_cams(model, pixels),
            model.backbone.normalization,  # type: ignore[arg-type]
            image,
            sample.tags,
            (1.0,),
            flip=True,
            multiple=16,
        )
    labels, found = load_cams(run.context.file(CAMS, sample))
    assert tuple(labels) == sample.tags
    assert found.max() > 0.9
    np.testing.assert_allclose(found, scale_maps(maps, sample.tags, {}), atol=0.01)  # bytes


def test_a_network_without_class_token_is_refused_before_it_is_trained(
    toy: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    recipe = an.Recipe.load(
        tiny_recipe, data=toy, out=tmp_path / "run", **{"cams.source": "attention"}
    )
    with pytest.raises(UserError, match="test_resnet has no class token"):
        an.run(recipe)
    assert not (tmp_path / "run" / "classifier").exists()


def test_attention_asks_the_classifier_and_is_not_compiled() -> None:
    recipe = an.Recipe.model_validate({"cams": {"source": "attention"}})
    assert [stage.name for stage in stages_of(recipe)][:2] == ["train_classifier", "compute_cams"]
    with pytest.raises(ValueError, match="compile is for the classifier's maps"):
        an.Recipe.model_validate({"cams": {"source": "attention", "compile": True}})


@pytest.fixture
def texts(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file of texts and what it holds, for towers that are tiny from here on."""
    create, width = timm.create_model, {"embed_dim": 24, "depth": 6, "num_heads": 2}
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, **{**k, **width}))
    keys = [*(f"class/{name}" for name in an.read_dataset(toy).classes), "background/floor"]
    rows = {"scale": torch.tensor([50.0]), **{key: torch.randn(8) for key in keys}}
    save_file(rows, tmp_path / "texts.safetensors")
    return tmp_path / "texts.safetensors", rows


def by_text(file: Path) -> dict[str, Any]:
    return {
        **VIT,
        "backbone.name": "vit_base_patch16_clip_224",
        "cams.source": "text",
        "cams.text": str(file),
        "cams.splits": ["train"],
    }


def test_a_run_by_text(
    toy: Path, tiny_recipe: Path, tmp_path: Path, texts: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    file, rows = texts
    last = [key for key in rows if key.startswith("class/")][-1]
    save_file({key: row for key, row in rows.items() if key != last}, file)
    recipe = an.Recipe.load(tiny_recipe, data=toy, out=tmp_path / "run", **by_text(file))
    assert [stage.name for stage in stages_of(recipe)][:2] == ["compute_cams", "mine_confident"]
    with pytest.raises(UserError, match=f"texts.safetensors: has no row {last}"):
        an.run(recipe)
    save_file(rows, file)
    run = an.run(recipe, until="mine_confident")
    assert [str(status) for status in run.status()][:2] == ["done"] * 2
    sample = next(sample for sample in run.manifest.split("train") if sample.tags)
    labels, found = load_cams(run.context.file(CAMS, sample))
    assert tuple(labels) == sample.tags
    assert found.shape[1:] == (64, 64)
    assert found.max() > 0.9
    save_file({**rows, last: torch.ones(8)}, file)
    changed = run.status(verify=True)[0]
    assert changed.state == "stale"
    assert "cams.text was" in changed.detail
    file.unlink()
    assert run.status(verify=True)[0].finished  # what is made stays readable


def test_new_images_are_labelled_by_the_runs_texts(
    toy: Path, tiny_recipe: Path, tmp_path: Path, texts: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    file, rows = texts
    settings = {**by_text(file), "affinity.epochs": 1, "affinity.output_stride": None}
    recipe = an.Recipe.load(tiny_recipe, data=toy, out=tmp_path / "run", **settings)
    run = an.run(recipe, until="propagate", anyway=True)
    applied = an.apply_run(run, toy, tmp_path / "applied")
    for sample in run.manifest.split("train"):
        for folder in (CAMS, PSEUDO):
            own, new = (made.context.file(folder, sample) for made in (run, applied))
            assert own.read_bytes() == new.read_bytes()
    save_file({key: row + 1 for key, row in rows.items()}, file)
    with pytest.raises(UserError, match="holds other texts than"):
        an.apply_run(run, toy, tmp_path / "again")
