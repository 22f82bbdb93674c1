"""Runs whose CAMs come by contrast, or from the better of two sources."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import affinitynet as an
from affinitynet.data import read_dataset
from affinitynet.data.cams import load_cams
from affinitynet.data.toy import make_toy
from affinitynet.errors import UserError
from affinitynet.ops import background_map
from affinitynet.ops.contrast import as_cams
from affinitynet.pipeline import Run
from affinitynet.run_folder.settings import EvaluateSettings
from affinitynet.run_folder.stages import stages_of, trains_classifier

SMALL = {"contrast.long_side": 64, "contrast.bank": 100}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough images that each class is missing from five."""
    return make_toy(tmp_path_factory.mktemp("small") / "toy", train=16, val=2, size=64)


def load(recipe: Path, data: Path, out: Path, source: str, **more: Any) -> an.Recipe:
    return an.Recipe.load(recipe, data=data, out=out, **{"cams.source": source, **SMALL, **more})


def names(recipe: an.Recipe) -> list[str]:
    return [stage.name for stage in stages_of(recipe)]


def maps(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.npz"))}


def test_contrast_needs_no_classifier() -> None:
    recipe = an.Recipe.model_validate({"cams": {"source": "contrast"}})
    assert names(recipe)[:2] == ["compute_contrast", "mine_confident"]
    assert not trains_classifier(recipe)
    learnt = recipe.model_copy(
        update={"contrast": recipe.contrast.model_copy(update={"features": "classifier"})}
    )
    assert names(learnt)[:2] == ["train_classifier", "compute_contrast"]
    assert trains_classifier(learnt)


def test_auto_has_both_and_a_choice() -> None:
    recipe = an.Recipe.model_validate({"cams": {"source": "auto"}})
    first = ["train_classifier", "compute_cams", "compute_contrast", "choose_cams"]
    assert names(recipe)[:4] == first
    folders = [stage.folder for stage in stages_of(recipe)][1:4]
    assert folders == ["cams_classifier", "cams_contrast", "cams"]
    assert trains_classifier(recipe)


def test_a_score_of_one_lies_on_the_border_of_the_later_stages() -> None:
    scores = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0]).view(5, 1, 1)
    cams = as_cams(scores, (4, 6))
    assert cams.shape == (5, 4, 6)
    torch.testing.assert_close(cams[:, 0, 0], torch.tensor([0, 0.05, 0.2, 0.8, 1]))
    assert EvaluateSettings().cam_background == 0.2
    # With the alphas of confident areas: 1.1 is not yet foreground, 0.65 no longer background.
    for alpha, score, wins in [(4, 1.1, False), (4, 1.2, True), (32, 0.6, False), (32, 0.65, True)]:
        cam = as_cams(torch.full((1, 1, 1), score), (1, 1))
        assert bool(cam > background_map(cam, alpha)) == wins


def test_a_run_by_contrast(tiny_recipe: Path, small: Path, tmp_path: Path) -> None:
    recipe = load(tiny_recipe, small, tmp_path / "run", "contrast")
    run = an.run(recipe, until="compute_contrast")
    assert not (tmp_path / "run" / "classifier").exists()
    for sample in run.manifest.samples:
        classes, cams = load_cams(tmp_path / "run" / "cams" / f"{sample.id}.npz")
        assert tuple(classes) == sample.tags
        assert cams.shape == (len(sample.tags), 64, 64)
        assert not len(cams) or 0 <= cams.min() <= cams.max() <= 1
    record = run.metrics("compute_contrast")
    assert record["bank"] == dict.fromkeys(run.manifest.classes, 100)
    assert all(zero < one for zero, one in record["zero and one"].values())


def test_a_resumed_run_makes_the_same_maps(tiny_recipe: Path, small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "cams"
    recipe = load(tiny_recipe, small, tmp_path / "run", "contrast")
    an.run(recipe, until="compute_contrast")
    whole = maps(folder)
    for file in list(folder.glob("*.npz"))[::2]:
        file.unlink()
    (folder / "stage.json").unlink()
    (folder / "banks.safetensors").write_bytes(b"half")  # made again, from the seed
    an.run(recipe, until="compute_contrast")
    assert maps(folder) == whole
    with pytest.raises(UserError, match=r"seed was 0, is 1.*--redo compute_contrast"):
        an.run(recipe.model_copy(update={"seed": 1}), until="compute_contrast")


def test_auto_writes_the_maps_of_the_source_it_chose(
    tiny_recipe: Path, small: Path, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    recipe = load(tiny_recipe, small, root, "auto")
    run = an.run(recipe, until="choose_cams")
    choice = run.metrics("choose_cams")["choice"]
    assert set(choice) == set(run.manifest.classes)
    for name, chosen in choice.items():
        assert chosen["images"] > 0
        assert str(chosen["images"]) in chosen["reason"], name
    for sample in run.manifest.samples:
        _, cams = load_cams(root / "cams" / f"{sample.id}.npz")
        for number, tag in enumerate(sample.tags):
            source = choice[run.manifest.classes[tag]]["source"]
            _, own = load_cams(root / f"cams_{source}" / f"{sample.id}.npz")
            expected = own[number] ** 1.25 if source == "classifier" else own[number]
            # A byte a pixel: a step of the file is what a map may lose on being written twice.
            np.testing.assert_allclose(cams[number], expected, atol=1 / 255)
    rows = {(row["stage"], row["split"], row["threshold"]): row for row in run.evaluate()}
    for split in ("train", "val"):  # both sources, as the maps that were chosen are
        for stage in ("cam", "cams_classifier", "cams_contrast"):
            assert (stage, split, 0.2) in rows
    assert [key[2] for key in rows if key[0] == "cams_contrast" and rows[key]["ground_truth_chose"]]
    assert rows["cams_contrast", "train", 0.2]["tta"] == "none"
    assert rows["cams_classifier", "train", 0.2]["tta"] != "none"
    shares = [rows[stage, "train", 0.2]["iou"] for stage in ("cams_classifier", "cams_contrast")]
    assert shares[0] != shares[1]
    # An interrupted stage keeps its choice, and later stages read what was chosen.
    kept = root / "cams" / "choice.json"
    other = {"classifier": "contrast", "contrast": "classifier"}
    turned = {k: v | {"source": other[v["source"]]} for k, v in choice.items()}
    kept.write_text(json.dumps(turned), encoding="utf-8")
    whole = maps(root / "cams")
    for file in (root / "cams").glob("*.npz"):
        file.unlink()
    (root / "cams" / "stage.json").unlink()
    Run.open(root).go(until="mine_confident")
    assert maps(root / "cams").keys() == whole.keys()
    assert maps(root / "cams") != whole
    assert (root / "confident" / "stage.json").is_file()


def test_a_class_in_every_image_is_said(tiny_recipe: Path, small: Path, tmp_path: Path) -> None:
    """Images of one class alone: it has nothing to be contrasted with, others have."""
    data = tmp_path / "data"
    data.mkdir()
    rows = ["image,labels,split"]
    for number, sample in enumerate(read_dataset(small).split("train")):
        (data / f"{number}.png").write_bytes(sample.image.read_bytes())
        rows.append(f"{number}.png,{'dust;scratch' if number % 2 else 'dust'},train")
    (data / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    recipe = load(tiny_recipe, data, tmp_path / "run", "contrast")
    run = an.run(recipe, until="compute_contrast")
    (warning,) = run.metrics("compute_contrast")["warnings"]
    assert "class dust is in all training images" in warning
    _, cams = load_cams(tmp_path / "run" / "cams" / "1.npz")
    assert (cams[0] == 0).all()
    assert (cams[1] > 0).any()


def test_nothing_to_contrast_at_all(tiny_recipe: Path, tmp_path: Path) -> None:
    few = make_toy(tmp_path / "few", train=4, val=1, size=64)
    with pytest.raises(UserError, match="nothing to contrast it with; add images without it"):
        an.run(load(tiny_recipe, few, tmp_path / "run", "contrast"), until="compute_contrast")


def test_auto_goes_on_where_there_is_nothing_to_contrast(tiny_recipe: Path, tmp_path: Path) -> None:
    few = make_toy(tmp_path / "few", train=4, val=1, size=64)
    run = an.run(load(tiny_recipe, few, tmp_path / "run", "auto"), until="choose_cams")
    choice = run.metrics("choose_cams")["choice"]
    assert {chosen["source"] for chosen in choice.values()} == {"classifier"}
    made, own = (maps(tmp_path / "run" / folder) for folder in ("cams", "cams_classifier"))
    assert made.keys() == own.keys()
    for name in made:
        _, cams = load_cams(tmp_path / "run" / "cams" / name)
        _, before = load_cams(tmp_path / "run" / "cams_classifier" / name)
        np.testing.assert_allclose(cams, before**1.25, atol=1 / 255)


def test_the_background_that_the_maps_decide_is_the_one_named(
    tiny_recipe: Path, small: Path, tmp_path: Path
) -> None:
    """`auto` makes the masks of the setting it becomes, whichever that is."""
    auto = {"walk.background": "auto", "affinity.steps": 1, "walk.crf.iterations": 1}
    root = tmp_path / "run"
    run = an.run(load(tiny_recipe, small, root, "auto", **auto), until="propagate")
    for source, background in (("classifier", "constant"), ("contrast", "alpha")):
        for kept in (root / "cams").glob("*.npz"):
            kept.unlink()
        (root / "cams" / "stage.json").unlink()
        chosen = {name: {"source": source} for name in run.manifest.classes}
        (root / "cams" / "choice.json").write_text(json.dumps(chosen), encoding="utf-8")
        made = []
        for walk in ("auto", background):
            changed = load(tiny_recipe, small, root, "auto", **auto | {"walk.background": walk})
            again = an.run(changed, redo="mine_confident", until="propagate")
            assert again.metrics("propagate")["background"] == background
            masks = sorted((root / "pseudo").glob("*.png"))
            made.append([file.read_bytes() for file in masks])
        assert made[0] == made[1]


def test_cams_measured_by_images_without_the_tag(
    tiny_recipe: Path, small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    recipe = load(tiny_recipe, small, out, "classifier", **{"cams.threshold": "quantile"})
    run = an.run(recipe, until="compute_cams")
    ranges = run.metrics("compute_cams")["zero and one"]
    assert list(ranges) == list(run.manifest.classes)
    assert all(zero < one for zero, one in ranges.values())
    made = maps(out / "cams")
    largest = [load_cams(out / "cams" / name)[1].max(initial=0) for name in made]
    # By its own maximum each map would reach one.
    assert min(value for value in largest if value > 0) < 0.95

    # A stage that was interrupted goes on with the same numbers.
    (out / "cams" / next(iter(made))).unlink()
    (out / "cams" / "stage.json").unlink()
    an.run(recipe, until="compute_cams")
    assert maps(out / "cams") == made
    with pytest.raises(UserError, match="stage compute_cams was made with something else"):
        an.run(
            load(
                tiny_recipe,
                small,
                out,
                "classifier",
                **{"cams.threshold": "quantile", "contrast.quantile": 0.9},
            ),
            until="compute_cams",
        )
