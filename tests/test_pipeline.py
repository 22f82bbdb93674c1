"""The whole pipeline at a tiny size: what it writes, resuming, staleness, bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import affinitynet as an
from affinitynet.data import read_labels
from affinitynet.data.cams import load_cams
from affinitynet.errors import UserError
from affinitynet.pipeline import Run
from affinitynet.progress import Task
from affinitynet.run_folder.choices import BY_TRUTH, Choice, add_choices
from affinitynet.run_folder.stages import find_stage, stages_of

RESULTS = (".png", ".npz", ".safetensors")


def results(folder: Path) -> dict[str, bytes]:
    """All results of a run by name: masks, maps and weights, not the records' times."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in RESULTS)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.fixture
def copy(finished: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.recipe.out, tmp_path / "run"))


def test_every_stage_is_done_and_leaves_its_record(finished: Run) -> None:
    assert [str(status) for status in finished.status()] == ["done"] * len(finished.stages)
    for stage in finished.stages:
        record = json.loads((finished.recipe.out / stage.folder / "stage.json").read_text())
        assert record["stage"] == stage.name
        assert record["versions"]["torch"]
        assert record["settings"]


def test_cams_hold_the_tagged_classes_only(finished: Run) -> None:
    for sample in finished.manifest.samples:
        classes, cams = load_cams(finished.recipe.out / "cams" / f"{sample.id}.npz")
        assert tuple(classes) == sample.tags
        assert cams.shape == (len(sample.tags), 64, 64)
        assert not len(cams) or 0 <= cams.min() <= cams.max() <= 1


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="compiling needs g++")
def test_a_compiled_network_makes_the_same_cams(finished: Run, copy: Path) -> None:
    made = {}
    for compiled in (False, True):
        cams = finished.recipe.cams.model_copy(update={"compile": compiled, "precision": "float32"})
        recipe = finished.recipe.model_copy(update={"out": copy, "cams": cams})
        Run(recipe, finished.manifest).go(until="compute_cams", redo="compute_cams")
        for sample in finished.manifest.samples:
            _, maps = load_cams(copy / "cams" / f"{sample.id}.npz")
            np.testing.assert_allclose(maps, made.setdefault(sample.id, maps), atol=1e-2)


def test_masks_hold_nothing_but_tags_background_and_neutral(finished: Run) -> None:
    for sample in finished.manifest.split("train"):
        allowed = {0, *(tag + 1 for tag in sample.tags)}
        for folder, extra in (("confident", {255}), ("walk", set()), ("pseudo", set())):
            labels = read_labels(finished.recipe.out / folder / f"{sample.id}.png")
            assert labels.shape == (64, 64)
            assert set(np.unique(labels).tolist()) <= allowed | extra


def test_masks_are_palette_pictures(finished: Run) -> None:
    sample = finished.manifest.split("train")[0]
    with Image.open(finished.recipe.out / "pseudo" / f"{sample.id}.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[3:6] == [128, 0, 0]


def test_figures_say_their_conditions(finished: Run) -> None:
    rows = finished.figures()
    seen = {(row["stage"], row["split"], row["tags_given"], row["crf"]) for row in rows}
    assert seen == {
        ("cam", "train", True, False),
        ("cam", "val", True, False),
        ("confident", "train", True, True),
        ("walk", "train", True, False),
        ("pseudo", "train", True, True),
        ("segmenter", "val", False, False),
    }
    chosen = [row["ground_truth_chose"] for row in rows if row["stage"] == "cam"]
    assert chosen == ["background threshold", None] * 2
    best, fixed = rows[0], rows[1]
    assert best["miou"] >= fixed["miou"]
    assert fixed["threshold"] == 0.2


def test_metrics_of_a_stage(finished: Run) -> None:
    figures = finished.metrics("propagate")
    assert figures["precision"] == finished.context.hardware_at("auto").chosen_precision
    assert {row["stage"] for row in figures["evaluation"]} == {"walk", "pseudo"}
    with pytest.raises(UserError, match=r"is no stage: did you mean propagate\?"):
        finished.metrics("propagation")
    with pytest.raises(UserError, match="is no stage: choose from"):
        finished.metrics("x")


def test_the_segmenter_predicts_from_file_and_array(finished: Run) -> None:
    segmenter = an.Segmenter.load(finished.recipe.out / "segmenter")
    sample = finished.manifest.split("val")[0]
    mask = segmenter.predict(sample.image)
    with Image.open(sample.image) as image:
        np.testing.assert_array_equal(mask, segmenter.predict(np.asarray(image.convert("RGB"))))
    stored = read_labels(finished.recipe.out / "predictions" / f"{sample.id}.png")
    np.testing.assert_array_equal(mask, stored)


def test_a_second_run_does_nothing(copy: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*.png")}
    Run.open(copy).go()
    assert before == {p: p.stat().st_mtime_ns for p in copy.rglob("*.png")}


# What is interrupted, and after which step: two steps are an epoch of a training, and the three
# val images are what "predict val" has to do.
INTERRUPTIONS = {
    ("train_classifier", 3),
    ("compute_cams", 5),
    ("mine_confident", 4),
    ("train_affinity", 3),
    ("propagate", 4),
    ("train_segmenter", 3),
    ("predict val", 1),
    ("evaluate pseudo", 4),
}


def test_interrupted_at_any_stage_and_resumed_ends_with_the_same_bytes(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the second epoch of each training and after a few images of each loop."""
    recipe = finished.recipe.model_copy(update={"out": tmp_path / "run"})
    left, checkpoints = set(INTERRUPTIONS), []
    advance = Task.advance

    def interrupting(task: Task, note: str = "") -> None:
        advance(task, note)
        if (task.name, task.done) in left:
            left.remove((task.name, task.done))
            if task.name.startswith("train_"):
                checkpoints.append(len(list(recipe.out.rglob("checkpoint.pt"))))
            raise KeyboardInterrupt

    monkeypatch.setattr(Task, "advance", interrupting)
    for _ in INTERRUPTIONS:
        with pytest.raises(KeyboardInterrupt):
            an.run(recipe)
    assert not left
    assert checkpoints == [1, 1, 1]  # so each training had an epoch behind it
    resumed = an.run(recipe)
    assert [str(status) for status in resumed.status()] == ["done"] * len(resumed.stages)
    assert results(recipe.out) == results(finished.recipe.out)
    assert figures_file(recipe.out) == figures_file(finished.recipe.out)


def figures_file(run: Path) -> bytes:
    return (run / "evaluation" / "figures.json").read_bytes()


def test_the_number_of_workers_changes_nothing(finished: Run, tmp_path: Path) -> None:
    recipe = finished.recipe.model_copy(update={"out": tmp_path / "run", "workers": 2})
    an.run(recipe, until="propagate")
    ours, theirs = results(recipe.out), results(finished.recipe.out)
    assert ours == {name: theirs[name] for name in ours}


def test_changed_settings_are_refused_by_name_and_nothing_is_lost(
    finished: Run, copy: Path
) -> None:
    before = results(copy)
    walk = finished.recipe.walk.model_copy(update={"beta": 3.0})
    recipe = finished.recipe.model_copy(update={"out": copy, "walk": walk})
    states = {status.name: str(status) for status in Run.create(recipe).status()}
    assert states["train_affinity"] == "done"
    assert states["propagate"] == "stale (walk.beta was 8.0, is 3.0)"
    assert states["train_segmenter"] == "stale (an earlier stage changed)"
    with pytest.raises(UserError, match=r"walk\.beta was 8\.0, is 3\.0.*--redo propagate"):
        an.run(recipe)
    assert results(copy) == before
    an.run(recipe, redo="propagate")
    after = results(copy)
    assert {n for n in after if after[n] != before[n]} <= {
        n
        for n in after
        if n.startswith(("scores/", "walk/", "pseudo/", "segmenter/", "predictions/"))
    }


def test_status_counts_the_images_of_a_partial_stage(copy: Path) -> None:
    (copy / "pseudo" / "stage.json").unlink()
    for mask in sorted((copy / "pseudo").rglob("*.png"))[:4]:
        mask.unlink()
    states = {status.name: str(status) for status in Run.open(copy).status()}
    assert states["propagate"] == "partial 5 of 9"


def test_a_corrupt_image_is_named_and_costs_nothing_done(
    toy: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    data = Path(shutil.copytree(toy, tmp_path / "data"))
    recipe = an.Recipe.load(tiny_recipe, data=data, out=tmp_path / "run")
    running = an.run(recipe, until="train_classifier")
    victim = running.manifest.split("train")[4]
    good = victim.image.read_bytes()
    victim.image.write_bytes(good[: len(good) // 2])
    (recipe.out / "images.json").unlink()  # by which it would be noticed at the start
    with pytest.raises(UserError, match=rf"compute_cams, image {victim.id}: .*{victim.image.name}"):
        an.run(recipe, until="compute_cams")
    done = len(list((recipe.out / "cams").rglob("*.npz")))
    assert done >= 4
    (recipe.out / "images.json").unlink()  # which knows the damaged one
    victim.image.write_bytes(good)
    assert str(an.run(recipe, until="compute_cams").status()[1]) == "done"


def test_awkward_images_go_through(toy: Path, tmp_path: Path, tiny_recipe: Path) -> None:
    """Grey, RGBA, palette, EXIF-rotated, smaller than the crop, without tags."""
    data = Path(shutil.copytree(toy, tmp_path / "data"))
    for name in ("masks", "labels.csv"):
        target = data / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    files = sorted((data / "images").iterdir())[:6]
    for extra in sorted((data / "images").iterdir())[6:]:
        extra.unlink()
    pictures = [Image.open(file).convert("RGB") for file in files]
    rows = ["image,labels"]
    modes = ("L", "RGBA", "P", "RGB", "RGB", "RGB")
    classes = (data / "classes.txt").read_text().split()
    for index, (file, picture, mode) in enumerate(zip(files, pictures, modes, strict=True)):
        file.unlink()
        exif = Image.Exif()
        exif[0x0112] = 6 if index == 3 else 1
        size = (20, 13) if index == 4 else (64, 48)
        name = f"awkward{index}.png"
        picture.resize(size).convert(mode).save(data / "images" / name, exif=exif)
        rows.append(f"images/{name},{'' if index == 5 else classes[index % 2]}")
    (data / "labels.csv").write_text("\n".join(rows) + "\n")
    running = an.run(
        an.Recipe.load(tiny_recipe, data=data, out=tmp_path / "run"), until="train_segmenter"
    )
    shapes = [
        read_labels(running.recipe.out / "pseudo" / f"{sample.id}.png").shape
        for sample in running.manifest.split("train")
    ]
    assert shapes == [(48, 64)] * 3 + [(64, 48), (13, 20), (48, 64)]
    bare = running.manifest.split("train")[5]
    assert bare.tags == ()
    assert not read_labels(running.recipe.out / "pseudo" / f"{bare.id}.png").any()


def test_a_run_without_data_says_what_to_give(tiny_recipe: Path) -> None:
    with pytest.raises(UserError, match="--data"):
        an.run(an.Recipe.load(tiny_recipe))


def test_stages_are_found_by_name() -> None:
    stages = stages_of(an.Recipe())
    assert find_stage("propagate", stages).folder == "pseudo"
    for number, stage in enumerate(stages):
        assert set(stage.reads) <= {earlier.name for earlier in stages[:number]}


def test_tune_decides_as_the_stage_does(finished: Run) -> None:
    from affinitynet.tuning.decide import decide, in_data_set, load_case

    for sample in finished.context.samples("train"):
        case = load_case(finished.recipe, finished.manifest, sample)
        decision = decide(case, finished.recipe.walk)
        for folder, labels in (("walk", decision.walk), ("pseudo", decision.mask)):
            kept = read_labels(finished.recipe.out / folder / f"{sample.id}.png")
            np.testing.assert_array_equal(in_data_set(case, labels), kept)


def test_a_run_tells_its_trust_and_history(finished: Run) -> None:
    assert set(finished.trust["image"]) == {
        sample.id for sample in finished.context.samples("train", "figures")
    }
    assert finished.trust["trust"] == sorted(finished.trust["trust"])
    assert set(finished.history) == {"classifier", "affinity", "segmenter"}
    for table in finished.history.values():
        assert table["step"] == sorted(table["step"])
        assert {"step", "epoch", "loss", "learning_rate"} <= set(table)
    assert finished.metrics()["miou"] == [row["miou"] for row in finished.figures()]
    page = finished._repr_html_()
    assert finished.trust["image"][0] in page
    assert "train_classifier" in page


def test_figures_say_that_truth_chose_a_setting(copy: Path) -> None:
    opened = Run.open(copy)
    reason = f"{BY_TRUTH} on 8 images"
    add_choices(
        copy,
        {"walk.beta": Choice(opened.recipe.walk.beta, reason), "walk.steps": Choice(7, reason)},
    )
    # What is behind the setting, and only as long as the recipe has the value that was chosen.
    chose = {row["stage"]: row["ground_truth_chose"] for row in opened.evaluate()}
    assert {chose[name] for name in ("walk", "pseudo", "segmenter")} == {"walk.beta"}
    assert chose["confident"] is None
