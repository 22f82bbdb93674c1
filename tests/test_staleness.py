"""What makes a stage stale, what is refused before anything is deleted, and what is left alone."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import affinitynet as an
from affinitynet.data import read_labels, voc_palette, write_labels
from affinitynet.data.cams import load_cams, save_cams
from affinitynet.data.lookup import Lookup
from affinitynet.errors import UserError
from affinitynet.export import export_run
from affinitynet.pipeline import Run
from affinitynet.report import write_report
from affinitynet.run_folder.folder import _HOST
from affinitynet.run_folder.freshness import Freshness, difference, without_later
from affinitynet.run_folder.records import Plan, StageFolder

DONE = ["done"] * 7


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "home"))


def recipe(home: Path, **changes: object) -> an.Recipe:
    return an.Recipe.load(
        home / "tiny.yaml", **{"data": home / "data", "out": home / "run"} | changes
    )


def start(
    home: Path, *, until: str | None = None, redo: str | None = None, **changes: object
) -> Run:
    return an.run(recipe(home, **changes), until=until, redo=redo)


def states(home: Path, **changes: object) -> list[str]:
    return [str(status) for status in Run.create(recipe(home, **changes)).status(verify=True)]


def fingerprints(recipe: an.Recipe) -> dict[str, str]:
    return Freshness(recipe, Lookup(recipe, Run.create(recipe).manifest)).fingerprints


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def drop_row(home: Path, image: str) -> None:
    table = home / "data" / "labels.csv"
    rows = table.read_text().splitlines(keepends=True)
    kept = [row for row in rows if image not in row]
    assert len(kept) == len(rows) - 1
    table.write_text("".join(kept))


def first(home: Path, split: str) -> an.Sample:
    return Run.create(recipe(home)).manifest.split(split)[0]


# Nothing is deleted before everything is checked.


@pytest.mark.parametrize(
    ("redo", "changes", "message"),
    [
        ("compute_cams", {"seed": 7}, r"seed was 0, is 7.*--redo train_classifier"),
        ("train_classifier", {"backbone.weights": "no.pth"}, r"no\.pth'.* no such file"),
        ("train_classifier", {"dataset.train": "trian"}, r"no split 'trian'"),
        ("train_classifier", {"dataset.val": "vall"}, r"no split 'vall'; it has train, val"),
        ("train_classifier", {"dataset.figures": "x"}, r"no split 'x'"),
        ("train_segmenter", {"segmenter.architecture": "unett"}, r"segmenter\.architecture"),
        (
            "train_segmenter",
            {"segmenter.architecture": "deeplabv3plus", "segmenter.batch_size": 1},
            r"train_segmenter: .*batch_size 2 or more",
        ),
    ],
)
def test_what_can_be_checked_is_checked_before_redo_deletes(
    home: Path, redo: str, changes: dict[str, object], message: str
) -> None:
    before = contents(home / "run")
    with pytest.raises(UserError, match=message):
        start(home, redo=redo, **changes)
    assert contents(home / "run") == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_device_is_found_before_redo_deletes(home: Path) -> None:
    before = contents(home / "run")
    with pytest.raises(UserError, match="no CUDA device"):
        start(home, redo="train_classifier", device="cuda")
    assert contents(home / "run") == before


def test_segmenter_weights_are_looked_for_at_the_start(home: Path) -> None:
    backbone = {"name": "test_resnet", "weights": "no.pth"}
    changes = {"segmenter.backbone": backbone, "segmenter.start": "backbone"}
    with pytest.raises(UserError, match="no such file"):
        start(home, out=home / "new", **changes)
    assert not (home / "new" / "classifier").exists()


def test_a_val_split_that_nobody_asked_for_may_be_absent(home: Path) -> None:
    table = home / "data" / "labels.csv"
    table.write_text("".join(r for r in table.read_text().splitlines(True) if ",val" not in r))
    assert not Run.create(recipe(home)).manifest.splits.get("val")
    start(home, until="compute_cams", out=home / "new")


def test_several_processes_without_numbers_are_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK = None, WORLD_SIZE = '2': not the number of a"):
        start(home)


# Run folders that are none.


def test_the_data_sets_own_folder_is_no_run_folder(home: Path) -> None:
    before = contents(home / "data")
    with pytest.raises(UserError, match="is the data set's folder"):
        start(home, out=home / "data")
    assert contents(home / "data") == before


def test_class_folders_are_never_written_into_or_deleted(home: Path, tmp_path: Path) -> None:
    data = tmp_path / "acts"
    picture = next((home / "data" / "images").iterdir())
    for name in ("walk", "sit"):
        (data / name).mkdir(parents=True)
        shutil.copy(picture, data / name / f"{name}.png")
    before = contents(data)
    with pytest.raises(UserError, match="lies in the data set"):
        start(home, data=data, out=data / "out")
    with pytest.raises(UserError, match="is no run folder, but holds walk"):
        start(home, out=data, redo="propagate")
    with pytest.raises(UserError, match="its folder walk holds the data set"):
        start(home, data=shutil.copytree(data, home / "out" / "walk"), out=home / "out")
    assert contents(data) == before


# What a stage depends on.


def test_a_removed_val_image_costs_no_training(home: Path) -> None:
    drop_row(home, first(home, "val").image.name)
    classifier, cams, *_ = states(home)
    assert classifier == "done"
    assert cams == "stale (the images or tags of the val split changed)"


def test_a_removed_training_image_makes_the_classifier_stale_in_words(home: Path) -> None:
    drop_row(home, first(home, "train").image.name)
    assert states(home)[0] == "stale (the images or tags of the train split changed)"


def test_edited_ground_truth_makes_the_figures_stale(home: Path) -> None:
    mask = first(home, "val").mask
    assert mask is not None
    write_labels(mask, np.zeros_like(read_labels(mask)), voc_palette())
    assert states(home) == [*DONE[:6], "stale (the ground truth of the val split changed)"]


def test_a_copied_data_set_changes_nothing(home: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(home / "data", tmp_path / "copy", copy_function=shutil.copyfile)
    assert states(home, data=copy) == DONE


def test_confident_areas_from_truth_depend_on_it(home: Path) -> None:
    truth = {"confident.source": "truth"}
    start(home, until="mine_confident", redo="mine_confident", **truth)
    mask = first(home, "train").mask
    assert mask is not None
    write_labels(mask, np.zeros_like(read_labels(mask)), voc_palette())
    assert states(home, **truth)[2] == "stale (the ground truth of the train split changed)"


def test_segmenter_weights_count_by_content(home: Path) -> None:
    file = home / "w.pth"
    backbone = {"name": "test_resnet", "weights": str(file)}
    changes = {"segmenter.backbone": backbone, "segmenter.start": "backbone"}
    torch.save({"a": torch.zeros(1)}, file)
    one = fingerprints(recipe(home, **changes))
    torch.save({"a": torch.ones(1)}, file)
    two = fingerprints(recipe(home, **changes))
    assert {name for name in one if one[name] != two[name]} == {"train_segmenter", "evaluate"}


def test_a_finished_run_outlives_its_weights_file(home: Path, tmp_path: Path) -> None:
    from affinitynet.models.backbone import build_backbone
    from affinitynet.run_folder.settings import BackboneSettings

    file = tmp_path / "w.pth"
    net = build_backbone(BackboneSettings(name="test_resnet", weights="none"), 8)
    torch.save(net.state_dict(), file)
    weights = {"backbone.weights": str(file)}
    start(home, redo="train_classifier", **weights)
    file.unlink()
    opened = Run.open(home / "run")
    assert [str(status) for status in opened.status()] == DONE
    assert opened.evaluate()
    write_report(home / "run")
    with pytest.raises(UserError, match="no such file"):
        start(home, redo="train_classifier", **weights)
    assert states(home, **weights) == DONE
    assert states(home, **{"backbone.weights": "v.pth"})[0].startswith("stale")


# Folders between nothing and finished.


def test_a_plan_alone_is_no_work_and_is_replaced(home: Path) -> None:
    shutil.rmtree(home / "run" / "pseudo")
    StageFolder(home / "run" / "pseudo", "propagate").start(
        Plan(fingerprint="old", settings={"walk.beta": 3})
    )
    assert states(home)[4] == "to do"
    assert [str(status) for status in start(home).status()] == DONE


@pytest.mark.parametrize("text", [None, "{", "{}", "[1]"])
def test_results_without_a_readable_plan_are_stale(home: Path, text: str | None) -> None:
    plan = home / "run" / "pseudo" / "plan.json"
    plan.unlink()
    if text:
        plan.write_text(text)
    assert states(home)[4] == "stale (no readable plan.json says what made it)"
    before = contents(home / "run")
    with pytest.raises(UserError, match="--redo propagate"):
        start(home)
    assert contents(home / "run") == before
    assert [str(status) for status in start(home, redo="propagate").status()] == DONE


def test_a_damaged_record_is_mended_by_the_redo_it_asks_for(home: Path) -> None:
    (home / "run" / "pseudo" / "stage.json").write_text("{}")
    with pytest.raises(UserError, match=r"pseudo/stage\.json: .*--redo propagate"):
        start(home)
    assert [str(status) for status in start(home, redo="propagate").status()] == DONE


def test_predictions_of_a_deleted_segmenter_are_made_anew(home: Path) -> None:
    shutil.rmtree(home / "run" / "segmenter")
    mask = home / "run" / "predictions" / f"{first(home, 'val').id}.png"
    mask.write_bytes(b"old")
    start(home, until="train_segmenter")
    assert read_labels(mask).shape == (64, 64)


def test_half_written_files_of_a_killed_run_are_removed(home: Path) -> None:
    half = home / "run" / "cams" / f".{_HOST}-999999999-3.part.npz"
    half.write_bytes(b"half")
    start(home)
    assert not half.exists()


# Images that changed, and figures.


@pytest.mark.parametrize(
    ("until", "stage"),
    [
        ("compute_cams", "mine_confident"),
        ("mine_confident", "train_affinity"),
        ("train_affinity", "propagate"),
        ("propagate", "train_segmenter"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_of_another_size_is_named_by_the_next_stage(
    home: Path, until: str, stage: str, workers: int
) -> None:
    sample = first(home, "train")
    order = ("confident", "affinity", "pseudo", "segmenter")
    names = ("mine_confident", "train_affinity", "propagate", "train_segmenter")
    for folder in order[names.index(stage) :]:
        shutil.rmtree(home / "run" / folder)
    Image.open(sample.image).resize((40, 30)).save(sample.image)
    (home / "run" / "images.json").unlink()  # by which it would be noticed at the start
    with pytest.raises(UserError, match=rf"^{stage}, image {sample.id}: the image is 30 x 40"):
        start(home, workers=workers)


def test_cams_that_are_not_finite_are_refused(home: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = home / "run" / "classifier" / "weights.safetensors"
    tensors = load_file(weights)
    tensors["head.fc.weight"].fill_(float("nan"))
    save_file(tensors, weights)
    description = weights.with_name("model.json")
    values = json.loads(description.read_text())
    values["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    description.write_text(json.dumps(values))
    with pytest.raises(
        UserError, match=r"compute_cams, image .*NaN or infinite values: train with a lower"
    ):
        start(home, redo="compute_cams")


def test_truth_of_another_size_than_its_image_is_refused(home: Path) -> None:
    sample = first(home, "train")
    assert sample.mask is not None
    write_labels(sample.mask, np.zeros((20, 20), np.uint8), voc_palette())
    with pytest.raises(UserError, match=rf"{sample.mask.name}: is 20 x 20, but its image is 64"):
        start(home, redo="evaluate")
    with pytest.raises(UserError, match=rf"image {sample.id}: .*is 20 x 20, but its image"):
        start(home, redo="mine_confident", **{"confident.source": "truth"})


def test_evaluate_makes_nothing_but_figures(home: Path) -> None:
    shutil.rmtree(home / "run" / "segmenter")
    shutil.rmtree(home / "run" / "predictions")
    before = contents(home / "run")
    rows = Run.open(home / "run").evaluate()
    assert {row["stage"] for row in rows} == {"cam", "confident", "walk", "pseudo"}
    assert contents(home / "run") == before


def test_evaluate_measures_a_finished_run_anew(home: Path) -> None:
    figures = home / "run" / "evaluation" / "figures.json"
    good = json.loads(figures.read_text())
    figures.write_text("{}")
    with pytest.raises(UserError, match=r"figures\.json: .*--redo evaluate"):
        Run.open(home / "run").figures()
    assert Run.open(home / "run").evaluate() == good["figures"]
    assert json.loads(figures.read_text()) == good


def test_masks_of_some_images_are_not_measured_in_silence(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "run" / "predictions" / f"{first(home, 'val').id}.png").unlink()
    (home / "run" / "segmenter" / "contents.json").unlink()  # as of an earlier version
    rows = Run.open(home / "run").evaluate()
    assert "segmenter" not in {row["stage"] for row in rows}
    assert "predictions holds 2 of 3 files of val: not measured" in capsys.readouterr().err


def test_export_and_report_say_that_masks_are_older_than_the_settings(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_run(home / "run", home / "fresh")
    assert "warning" not in capsys.readouterr().err
    start(home, until="compute_cams", **{"walk.beta": 3.0})
    capsys.readouterr()
    export_run(home / "run", home / "old")
    said = "warning: the pseudo masks are out of date (walk.beta was 8.0, is 3.0)"
    assert capsys.readouterr().err.splitlines() == [said]
    export_run(home / "run", home / "older", stage="predictions")
    assert "an earlier stage changed" in capsys.readouterr().err
    write_report(home / "run")
    assert "warning: propagate is stale (walk.beta was" in capsys.readouterr().err


def test_a_damaged_result_names_the_stage_to_redo(home: Path) -> None:
    cams = home / "run" / "cams" / f"{first(home, 'train').id}.npz"
    before = cams.read_bytes()
    cams.write_bytes(b"x")
    with pytest.raises(UserError, match="--redo compute_cams"):
        load_cams(cams)
    save_cams(cams, [0], np.zeros((1, 2, 3), np.float32))
    assert load_cams(cams)[1].shape == (1, 2, 3)
    cams.write_bytes(before)
    model = home / "run" / "segmenter" / "model.json"
    for text in ("{}", "[]", '{"settings": {}, "backbone": {"nam": 1}, "classes": []}'):
        model.write_text(text)
        with pytest.raises(UserError, match=r"model\.json: .*--redo train_segmenter"):
            an.Segmenter.load(model.parent)
    (home / "run" / "affinity" / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="--redo train_affinity"):
        start(home, redo="propagate")


def test_a_folder_that_can_not_be_deleted_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(UserError, match="can't be deleted"):
        start(home, redo="evaluate")


def ingredients(home: Path, **changes: object) -> dict[str, dict[str, object]]:
    own = recipe(home, **changes)
    return Freshness(own, Lookup(own, Run.create(own).manifest)).ingredients


@pytest.mark.parametrize(
    ("stage", "setting", "of"),
    [
        ("propagate", {"affinity.pairs": "cropped"}, {"affinity.source": "features"}),
        ("propagate", {"walk.block": 512}, {"affinity.source": "none"}),
        ("propagate", {"dataset.page": 1}, {"cams.source": "files:c", "affinity.source": "none"}),
        ("mine_confident", {"classifier.hold_out": 0.1}, {"cams.source": "contrast"}),
        ("propagate", {"classifier.hold_out": 0.1}, {"cams.source": "contrast"}),
    ],
)
def test_a_setting_that_a_stage_reads_is_one_of_its_ingredients(
    home: Path, stage: str, setting: dict[str, object], of: dict[str, object]
) -> None:
    before, after = ingredients(home, **of), ingredients(home, **of, **setting)
    assert before[stage] != after[stage]
    # A plan of before it was noted says nothing of it, where it changes nothing.
    known = {key: value for key, value in before[stage].items() if key not in setting}
    assert without_later(before[stage], known) == known


def test_groups_are_an_ingredient_where_they_choose_who_is_held_out(home: Path) -> None:
    held, table = {"classifier.hold_out": 0.3, "dataset.val": None}, home / "data" / "groups.csv"
    alone = ingredients(home, **held)["train_classifier"]
    assert alone["groups"] == "none"
    image = first(home, "train").image.name
    table.write_text(f"image,group\nimages/{image},plant\n")
    grouped = ingredients(home, **held)["train_classifier"]
    assert difference(alone, grouped) == "the groups of images changed"
    before = {key: value for key, value in alone.items() if key != "groups"}
    assert without_later(grouped, before) == before  # of a run whose plan did not note them
    # The tags of val judge it, and without hold_out nothing does.
    assert "groups" not in ingredients(home, **{"classifier.hold_out": 0.3})["train_classifier"]
    assert "groups" not in ingredients(home)["train_classifier"]


def test_a_record_of_another_plan_finishes_nothing(home: Path) -> None:
    folder = StageFolder(home / "run" / "evaluation", "evaluate")
    plan = folder.plan()
    assert plan is not None
    folder.start(Plan(fingerprint=plan.fingerprint, settings=plan.settings))
    assert states(home) == DONE
    record = folder.record()
    assert record is not None
    folder.finish(record.model_copy(update={"fingerprint": "of an earlier one"}))
    assert states(home)[-1] == "partial"
    start(home)
    assert states(home) == DONE


def test_a_kill_before_the_recipe_loses_no_reason(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = an.Recipe.load("own_images", data=home / "data", out=tmp_path / "own")
    run = Run.create(own)
    monkeypatch.setattr("affinitynet.pipeline.atomic_write", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run._write_inputs()
    assert (own.out / "choices.json").is_file()


def test_corrections_are_an_ingredient_of_the_final_masks_of_an_applied_run(home: Path) -> None:
    own = {"networks.run": home / "run", "relabel.enabled": True}
    before = ingredients(home, **own)
    write_labels(
        home / "run" / "corrections" / f"{first(home, 'train').id}.png",
        np.ones((64, 64), np.uint8),
        voc_palette(),
    )
    changed = difference(before["relabel"], ingredients(home, **own)["relabel"])
    assert changed == "the corrections changed: were none, are 1 image"
