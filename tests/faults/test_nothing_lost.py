"""Nothing is deleted before its replacement is complete, and nothing is written elsewhere."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import affinitynet as an
from affinitynet.data.manifest import Manifest
from affinitynet.data.sample import Sample
from affinitynet.errors import UserError
from affinitynet.export import export_run
from affinitynet.pipeline import Run
from affinitynet.progress import Task
from affinitynet.report import write_report
from affinitynet.run_folder.folder import _HOST
from affinitynet.run_folder.records import CHECKPOINT, Record, StageFolder


def recipe(home: Path, **changes: object) -> an.Recipe:
    given = {"data": home / "data", "out": home / "run"}
    return an.Recipe.load(home / "tiny.yaml", **given | changes)


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


# Figures.


@pytest.mark.parametrize("command", ["evaluate", "redo"])
@pytest.mark.parametrize("fault", ["mask", "gone", "work", "disk"])
def test_old_figures_outlive_a_failed_evaluation(
    home: Path, monkeypatch: pytest.MonkeyPatch, command: str, fault: str
) -> None:
    mask = Manifest.of_run(home / "run").split("val")[0].mask
    assert mask is not None

    def fail(*_: Any, **__: Any) -> Any:
        raise UserError("no space left")

    if fault == "mask":
        mask.write_bytes(b"x")
    elif fault == "gone":
        shutil.rmtree(home / "data")
    else:
        name = {"work": "measure", "disk": "write_json"}[fault]
        monkeypatch.setattr(f"affinitynet.stages.evaluate.{name}", fail)
    before = contents(home / "run" / "evaluation")
    running = Run.open(home / "run")
    with pytest.raises((UserError, OSError)):
        running.evaluate() if command == "evaluate" else an.run(recipe(home), redo="evaluate")
    assert contents(home / "run" / "evaluation") == before


# Stages made anew.


def test_what_is_made_anew_waits_until_it_is_complete(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, run = contents(home / "run" / "pseudo"), home / "run"

    def fail(*_: Any) -> Any:
        raise UserError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("affinitynet.stages.propagate.work", fail)
        for _ in range(2):  # the second finds half a stage, and keeps the whole one
            with pytest.raises(UserError, match="no space left"):
                an.run(recipe(home), redo="propagate")
            assert contents(run / ".pseudo.discarded") == before
    an.run(recipe(home))
    assert not list(run.glob(".*discarded"))
    made = contents(run / "pseudo")
    changed = {name for name in made if made[name] != before[name]}
    assert changed <= {"stage.json", "contents.json"}  # which hold times


@pytest.mark.parametrize("linked", ["pseudo", "walk", "segmenter"])
def test_a_linked_folder_is_replaced_and_its_files_stay(home: Path, linked: str) -> None:
    run, elsewhere = home / "run", home / "elsewhere"
    (run / linked).rename(elsewhere)
    (run / linked).symlink_to(elsewhere)
    before = contents(elsewhere)
    finished = an.run(recipe(home), until="propagate", redo="propagate")
    assert contents(elsewhere) == before
    assert str(finished.status()[4]) == "done"
    assert (run / "classifier" / "stage.json").is_file()


@pytest.mark.parametrize("stage", ["train_classifier", "train_affinity", "train_segmenter"])
def test_a_training_that_ended_is_not_done_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """The process dies when all is trained and the record is not written."""
    finish, trained = StageFolder.finish, []
    advance = Task.advance

    def die(folder: StageFolder, record: Record) -> None:
        if folder.stage == stage:
            raise KeyboardInterrupt
        finish(folder, record)

    def count(task: Task, note: str = "") -> None:
        trained.append(task.name)
        advance(task, note)

    with monkeypatch.context() as patched:
        patched.setattr(StageFolder, "finish", die)
        with pytest.raises(KeyboardInterrupt):
            an.run(recipe(home), redo=stage, until=stage)
    folder = {"train_classifier": "classifier", "train_affinity": "affinity"}
    place = home / "run" / folder.get(stage, "segmenter")
    weights = (place / "weights.safetensors").read_bytes()
    assert (place / CHECKPOINT).is_file()
    monkeypatch.setattr(Task, "advance", count)
    an.run(recipe(home), until=stage)
    assert stage not in trained
    assert (place / "weights.safetensors").read_bytes() == weights
    assert not (place / CHECKPOINT).exists()


# Run folders that lack something.


def test_a_run_folder_without_its_manifest_is_usable(home: Path) -> None:
    manifest = home / "run" / "manifest.jsonl"
    before = manifest.read_bytes()
    manifest.unlink()
    assert {str(status) for status in Run.open(home / "run").status()} == {"done"}
    write_report(home / "run")
    export_run(home / "run", home / "masks")
    an.run(recipe(home))
    assert manifest.read_bytes() == before
    manifest.unlink()
    shutil.rmtree(home / "data")
    with pytest.raises(UserError, match=r"manifest\.jsonl is missing, and can't be made again"):
        write_report(home / "run")


@pytest.mark.parametrize("name", ["cat.part", "deep/{}", "{}"])
def test_ids_that_look_half_written_are_refused(tmp_path: Path, name: str) -> None:
    given = name.format(f".{_HOST}-999999-3.part")
    sample = Sample(given, tmp_path / "a.png", (0,))
    if name == "cat.part":
        assert Manifest(tmp_path, ("cat",), {"train": (sample,)}).samples
        return
    with pytest.raises(UserError, match="rename it"):
        Manifest(tmp_path, ("cat",), {"train": (sample,)})


@pytest.mark.parametrize("file", ["a.json", "deep/stage.json", "b.png"])
def test_no_file_is_written_over_a_folder(tmp_path: Path, file: str) -> None:
    from affinitynet.run_folder.folder import write_json

    (tmp_path / file / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match="is a folder, where a file belongs; move it away"):
        write_json(tmp_path / file, 1)
    assert (tmp_path / file / "mine").is_dir()


# Links in a folder from elsewhere.


@pytest.mark.parametrize("link", ["report", "shards", ".lock"])
def test_links_lead_nothing_out_of_a_run_folder(home: Path, link: str) -> None:
    outside = home / "outside"
    outside.mkdir()
    target = outside / "lock" if link == ".lock" else outside
    place = home / "run" / ("pseudo/shards" if link == "shards" else link)
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(target)
    (home / "run" / "pseudo" / "stage.json").unlink()

    def write() -> None:
        write_report(home / "run") if link == "report" else an.run(recipe(home), until="propagate")

    with pytest.raises(UserError, match="symbolic link"):
        write()
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["../..", "/tmp/x", "a/../../b", "..", ""])
def test_a_recipes_name_does_not_lead_out_of_runs(tmp_path: Path, name: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(f"name: '{name}'\n")
    with pytest.raises(UserError, match=r"not a plain relative path"):
        an.Recipe.load(file)
