"""New tagged images get masks by the networks of a run: the run's own, when they are its own."""

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import affinitynet as an
from affinitynet import applying
from affinitynet.cli import main
from affinitynet.data import read_labels
from affinitynet.data.cams import load_cams
from affinitynet.data.toy import make_toy
from affinitynet.errors import UserError
from affinitynet.pipeline import Run

# Two sources of CAMs with all that is learned of the whole data set, and masks by the segmenter.
SETTINGS = {
    "cams.source": "auto",
    "cams.threshold": "quantile",
    "contrast.features": "classifier",
    "contrast.long_side": 64,
    "contrast.bank": 100,
    "relabel.enabled": True,
    "walk.guard": True,
    "classifier.hold_out": 0.2,
}
MADE = ("cams", "cams_classifier", "cams_contrast", "walk", "pseudo", "scores", "masks")
# Killed before the n-th file of a folder gets its name.
KILLER = """
import os, pathlib, signal, sys
folder, count, run, data, out = sys.argv[1:]
replace, seen = pathlib.Path.replace, 0
def kill(path, target):
    global seen
    if folder in pathlib.Path(target).as_posix().removeprefix(out):
        seen += 1
        if seen == int(count):
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)
pathlib.Path.replace = kill
import affinitynet as an
an.apply_run(run, data, out)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_text: str) -> Run:
    """A finished run, whose data set nothing changes."""
    folder = tmp_path_factory.mktemp("whole")
    data = make_toy(folder / "toy", train=12, val=3, size=64)
    (folder / "tiny.yaml").write_text(tiny_text, encoding="utf-8")
    return an.run(
        an.Recipe.load(folder / "tiny.yaml", data=data, out=folder / "run", **SETTINGS),
        anyway=True,
    )


@pytest.fixture(scope="module")
def applied(whole: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run applied to its own images."""
    assert whole.recipe.data is not None
    return an.apply_run(whole, whole.recipe.data, tmp_path_factory.mktemp("applied") / "run")


def files_of(folder: Path, ids: set[str]) -> dict[str, bytes]:
    files = (file for name in MADE for file in (folder / name).iterdir() if file.stem in ids)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(files)}


def new_data(folder: Path, *rows: str) -> Path:
    """Images of another toy set, with the rows of a table."""
    make_toy(folder / "other", train=4, val=1, size=64, seed=7)
    (folder / "new").mkdir()
    shutil.copytree(folder / "other" / "images", folder / "new" / "images")
    table = "\n".join(["image,labels", *rows]) + "\n"
    (folder / "new" / "labels.csv").write_text(table, encoding="utf-8")
    return folder / "new"


def test_the_runs_own_images_get_the_runs_own_files(whole: Run, applied: Run) -> None:
    ids = {sample.id for sample in whole.manifest.split("train")}
    assert len(files_of(whole.recipe.out, ids)) == len(MADE) * len(ids)
    assert files_of(applied.recipe.out, ids) == files_of(whole.recipe.out, ids)
    for name in ("cams/choice.json", "cams_classifier/ranges.json"):
        assert (applied.recipe.out / name).read_bytes() == (whole.recipe.out / name).read_bytes()


def test_all_splits_get_masks_and_nothing_is_trained(whole: Run, applied: Run) -> None:
    out = applied.recipe.out
    assert len(list((out / "masks").glob("*.png"))) == len(whole.manifest.samples)
    states = {status.name: str(status) for status in applied.status()}
    source = f"imported (from run:{whole.recipe.out.resolve()})"
    assert [name for name, state in states.items() if state == source] == [
        *("train_classifier", "train_affinity", "train_segmenter"),
    ]
    assert "mine_confident" not in states
    assert set(states.values()) == {source, "done"}
    assert not (out / "predictions").exists()
    assert all(status.finished for status in applied.status(verify=True))


def test_it_is_measured_shown_and_exported_like_a_run(
    applied: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = applied.recipe.out
    rows = {row["stage"]: row for row in applied.figures()}
    assert {"cam", "walk", "pseudo", "masks"} <= rows.keys()
    assert rows["masks"]["split"] == "all"
    assert "networks from" in rows["masks"]["imported"]
    assert set(applied.trust["image"]) == {sample.id for sample in applied.manifest.samples}
    main(["status", str(out)])
    assert "train_segmenter    imported" in capsys.readouterr().out
    assert "imported (from run:" in an.write_report(out).read_text(encoding="utf-8")
    an.export_run(out, tmp_path / "coco", format="coco")
    an.export_run(out, tmp_path / "png", format="png")
    exported = read_labels(tmp_path / "png" / "0000.png")
    np.testing.assert_array_equal(exported, read_labels(out / "masks" / "0000.png"))
    assert an.Segmenter.load(out / "segmenter").classes == applied.manifest.classes


def test_the_command_line_makes_masks_of_new_images(
    whole: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fewer classes than the run has, without ground truth, and an image without a tag."""
    name = whole.manifest.classes[-1]
    data = new_data(tmp_path, f"images/0000.png,{name}", "images/0001.png,")
    words = ["apply", str(whole.recipe.out), str(data), "--out", str(tmp_path / "out")]
    main(words)
    assert capsys.readouterr().out.splitlines() == [
        f"masks: {tmp_path / 'out' / 'masks'}",
        f"report: {tmp_path / 'out' / 'report' / 'index.html'}",
    ]
    run = Run.open(tmp_path / "out")
    assert run.manifest.classes == whole.manifest.classes
    labels = read_labels(tmp_path / "out" / "masks" / "0000.png")
    assert set(np.unique(labels)) <= {0, len(run.manifest.classes), 255}
    assert not read_labels(tmp_path / "out" / "masks" / "0001.png").any()
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "out" / "masks").iterdir()}
    main(words)  # once more: all is there
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "out" / "masks").iterdir()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
@pytest.mark.parametrize(("folder", "count"), [("affinity/", 1), ("masks/", 4)])
def test_killed_and_started_again_it_ends_with_the_same_bytes(
    template: Any, whole: Run, applied: Run, tmp_path: Path, folder: str, count: int
) -> None:
    out, said = tmp_path / "run", tmp_path / "said"
    shutil.copytree(applied.recipe.out, out)
    behind = {"affinity/": ("affinity", "walk", "pseudo", "scores", "masks", "evaluation")}
    for name in behind.get(folder, ("masks", "evaluation")):
        shutil.rmtree(out / name)
    words = (folder, str(count), str(whole.recipe.out), str(whole.recipe.data), str(out))
    template.start(KILLER, *words, said=said)
    assert template.wait() == -signal.SIGKILL, said.read_text()
    assert whole.recipe.data is not None
    run = an.apply_run(whole, whole.recipe.data, out)
    assert all(status.finished for status in run.status())
    ids = {sample.id for sample in run.manifest.samples}
    assert files_of(out, ids) == files_of(applied.recipe.out, ids)


def test_it_stays_whole_when_the_run_is_gone_and_refuses_one_that_changed(
    whole: Run, tmp_path: Path
) -> None:
    name = whole.manifest.classes[0]
    data = new_data(tmp_path, f"images/0000.png,{name}")
    shutil.copytree(whole.recipe.out, tmp_path / "run")
    an.apply_run(tmp_path / "run", data, tmp_path / "out")
    weights = tmp_path / "run" / "segmenter" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"stage train_segmenter was made with something else"):
        an.apply_run(tmp_path / "run", data, tmp_path / "out")
    shutil.rmtree(tmp_path / "run")
    gone = Run.open(tmp_path / "out")
    assert all(status.finished for status in gone.status(verify=True))
    gone.go()


def test_an_unknown_tag_is_named_with_its_image(whole: Run, tmp_path: Path) -> None:
    data = new_data(tmp_path, "images/0000.png,zebra")
    with pytest.raises(UserError, match=r"line 2 \(images/0000\.png\): the tag 'zebra' is not"):
        an.apply_run(whole, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # With a class list of its own as well.
    (data / "classes.txt").write_text("zebra\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"images/0000\.png.*: the tag 'zebra' is not"):
        an.apply_run(whole, data, tmp_path / "out")


def test_a_class_list_of_the_new_data_says_what_its_masks_mean(whole: Run, tmp_path: Path) -> None:
    first, second, *_ = whole.manifest.classes
    data = new_data(tmp_path, f"images/0000.png,{second}")
    (data / "classes.txt").write_text(f"zebra\n{second}\n{first}\n", encoding="utf-8")
    from PIL import Image

    from affinitynet.data import load_truth

    raw = np.zeros((64, 64), np.uint8)
    raw[0, :5] = 1, 2, 3, 255, 0
    (data / "masks").mkdir()
    Image.fromarray(raw).save(data / "masks" / "0000.png")
    run = an.apply_run(whole, data, tmp_path / "out")
    truth = load_truth(run.manifest, run.manifest.samples[0])
    assert truth[0, :5].tolist() == [255, 2, 1, 255, 0]


def test_an_unfinished_run_says_which_stage_lacks(whole: Run, tmp_path: Path) -> None:
    assert whole.recipe.data is not None
    shutil.copytree(whole.recipe.out, tmp_path / "run")
    for name in ("segmenter", "masks"):
        shutil.rmtree(tmp_path / "run" / name)
    with pytest.raises(UserError, match=r"train_segmenter is to do, relabel is to do; finish it"):
        an.apply_run(tmp_path / "run", whole.recipe.data, tmp_path / "out")


def test_what_the_run_found_out_of_its_classes_holds_for_new_images(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *_ = whole.manifest.classes
    found = {"failed": (), "unlearnt": (second,)}
    monkeypatch.setattr(applying, "_found_out", lambda run: found)
    data = new_data(tmp_path, f"images/0000.png,{first}", f"images/0001.png,{second}")
    an.apply_run(whole, data, tmp_path / "plain")
    found["failed"] = (first,)
    an.apply_run(whole, data, tmp_path / "out")
    # The network was told nothing of a failed class, so the pseudo masks stay.
    plain, failed = (
        read_labels(tmp_path / name / "0000.png") for name in ("plain/pseudo", "out/masks")
    )
    if (plain == 1).any():
        assert np.array_equal(failed, np.where(plain == 1, 255, plain))
    else:  # the background too: the object is there somewhere
        assert set(np.unique(failed)) == {255}
    masks, pseudo = (
        (tmp_path / "out" / name / "0001.png").read_bytes() for name in ("masks", "pseudo")
    )
    assert masks == pseudo
    # Applied once more, it passes on what it was told.
    monkeypatch.undo()
    again = an.apply_run(tmp_path / "out", data, tmp_path / "again")
    assert again.recipe.networks.failed == (first,)


def test_what_a_run_recorded_of_its_classes_is_read(whole: Run, tmp_path: Path) -> None:
    shutil.copytree(whole.recipe.out, tmp_path / "run")
    edit(tmp_path / "run" / "masks" / "stage.json", found={whole.manifest.classes[1]: 0.4})
    rows = [
        {"class": name, "images": 9, "empty": 0, "failed": "empty seeds" if not index else ""}
        for index, name in enumerate(whole.manifest.classes)
    ]
    edit(tmp_path / "run" / "confident" / "stage.json", seeds=rows)
    found = applying._found_out(Run.open(tmp_path / "run"))
    assert found == {
        "failed": (whole.manifest.classes[0],),
        "unlearnt": (whole.manifest.classes[1],),
    }


def edit(record: Path, **figures: Any) -> None:
    found = json.loads(record.read_text(encoding="utf-8"))
    found["figures"] |= figures
    record.write_text(json.dumps(found), encoding="utf-8")


def test_other_folders_are_not_written_to(whole: Run, applied: Run, tmp_path: Path) -> None:
    assert whole.recipe.data is not None
    shutil.copytree(whole.recipe.out, tmp_path / "run")
    for out, said in (
        (whole.recipe.out, "is the run itself"),
        (tmp_path / "run", "is a run of its own"),
    ):
        with pytest.raises(UserError, match=said):
            an.apply_run(whole, whole.recipe.data, out)
    with pytest.raises(UserError, match="uses the networks of"):
        an.apply_run(tmp_path / "run", whole.recipe.data, applied.recipe.out)


def test_a_run_without_final_masks_needs_no_segmenter(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    for name in ("segmenter", "predictions", "evaluation"):
        shutil.rmtree(tmp_path / "run" / name)
    run = an.apply_run(tmp_path / "run", made / "data", tmp_path / "out")
    assert [stage.name for stage in run.stages] == [
        *("train_classifier", "compute_cams", "train_affinity", "propagate", "evaluate"),
    ]
    for file in (made / "run" / "pseudo").glob("*.png"):
        assert (tmp_path / "out" / "pseudo" / file.name).read_bytes() == file.read_bytes()


def test_cams_from_files_come_from_files_again(
    whole: Run, applied: Run, tmp_path: Path, tiny_recipe: Path
) -> None:
    data, cams = whole.manifest.root, tmp_path / "cams"
    cams.mkdir()
    for sample in applied.manifest.samples:
        classes, maps = load_cams(applied.recipe.out / "cams" / f"{sample.id}.npz")
        named = zip(classes, maps, strict=True)
        if sample.tags:
            own = {applied.manifest.classes[index]: cam for index, cam in named}
            np.savez(cams / f"{sample.id}.npz", **own)
    settings = {"cams.source": f"files:{cams}"}
    recipe = an.Recipe.load(tiny_recipe, data=data, out=tmp_path / "run", **settings)
    an.run(recipe, until="propagate")
    with pytest.raises(UserError, match="give theirs with --cams FOLDER"):
        an.apply_run(tmp_path / "run", data, tmp_path / "out")
    run = an.apply_run(tmp_path / "run", data, tmp_path / "out", cams=cams)
    assert all(status.finished for status in run.status())
    for mask in (tmp_path / "run" / "pseudo").glob("*.png"):
        assert (run.recipe.out / "pseudo" / mask.name).read_bytes() == mask.read_bytes()
    with pytest.raises(UserError, match="makes CAMs itself"):
        an.apply_run(whole, data, tmp_path / "other", cams=cams)


def test_a_mistake_is_one_line(whole: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="device = 'gpu': a device is auto"):
        an.apply_run(whole, whole.manifest.root, tmp_path / "out", device="gpu")
    with pytest.raises(UserError, match="there is no such data set folder"):
        an.apply_run(whole, tmp_path / "none", tmp_path / "out")
    with pytest.raises(UserError, match="is no run folder"):
        an.apply_run(tmp_path / "none", whole.manifest.root, tmp_path / "out")


def test_networks_of_other_classes_are_refused(whole: Run, tmp_path: Path) -> None:
    """As someone finds who writes the section by hand."""
    first, second, *rest = whole.manifest.classes
    recipe = an.Recipe.load(
        whole.recipe.out / "recipe.yaml",
        out=tmp_path / "out",
        **{"networks.run": whole.recipe.out, "dataset.classes": [second, first, *rest]},
    )
    with pytest.raises(UserError, match=r"its classes are .* use affinitynet apply"):
        an.run(recipe)


def test_weights_that_changed_since_are_refused(tmp_path: Path, tiny_text: str) -> None:
    """What contrast describes patches with is no network of the run's, but a file beside it."""
    import timm
    from safetensors.torch import save_file

    toy = make_toy(tmp_path / "toy", train=16, val=2, size=64)  # each class lacks in five images
    shutil.copytree(toy, tmp_path / "data")
    file = tmp_path / "data" / "start.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)
    (tmp_path / "tiny.yaml").write_text(tiny_text, encoding="utf-8")
    settings = {"cams.source": "contrast", "contrast.long_side": 64, "contrast.bank": 100}
    recipe = an.Recipe.load(
        tmp_path / "tiny.yaml",
        data=tmp_path / "data",
        out=tmp_path / "run",
        **settings,
        **{"backbone.weights": "start.safetensors", "segmenter.start": "backbone"},
    )
    an.run(recipe, until="propagate")
    run = an.apply_run(tmp_path / "run", toy, tmp_path / "out")
    for mask in (tmp_path / "run" / "pseudo").glob("*.png"):
        assert (run.recipe.out / "pseudo" / mask.name).read_bytes() == mask.read_bytes()
    save_file(timm.create_model("test_resnet").state_dict(), file)
    with pytest.raises(UserError, match="holds other weights than"):
        an.apply_run(tmp_path / "run", toy, tmp_path / "other")
