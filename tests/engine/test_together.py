"""Several processes on one run folder end with the files of one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import affinitynet as an
from affinitynet.cli import main
from affinitynet.command_line.seeds import summarize
from affinitynet.data import Sample, contents
from affinitynet.engine.place import Place, placed
from affinitynet.errors import UserError
from affinitynet.helping import help_through
from affinitynet.pipeline import Run
from affinitynet.run_folder.compare import compare_runs
from affinitynet.run_folder.folder import atomic_write, remove_tree
from affinitynet.run_folder.origin import read_origin
from affinitynet.run_folder.records import Plan
from affinitynet.run_folder.stages import Stage, find_stage
from affinitynet.stages.context import Context
from affinitynet.stages.counting import count_together
from affinitynet.stages.works import work_of

Begin = Callable[[Run, Path, str], None]

# Shards of two images, as the toy set has twelve.
CODE = """
import sys
from affinitynet.run_folder import records
records.SHARD_IMAGES = 2
from affinitynet.cli import main
main(sys.argv[1:])
"""


def join(whole: Run, out: Path, *words: str, log: Path | None = None) -> "subprocess.Popen[bytes]":
    recipe, data = whole.recipe.out.parent / "tiny.yaml", str(whole.recipe.data)
    command = [sys.executable, "-c", CODE, "run", str(recipe), "--data", data, "--out", str(out)]
    with (log or Path(os.devnull)).open("w") as error:
        return subprocess.Popen([*command, "--anyway", *words], stderr=error)


def wait_until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not there() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert there()


def check_same(whole: Run, out: Path) -> None:
    assert all(status.finished for status in Run.open(out).status())
    rows = compare_runs(whole.recipe.out, out, whole.stages)
    assert [row.differ for row in rows] == [()] * len(whole.stages)
    assert all(row.files for row in rows)
    assert not [file for file in out.rglob(".*") if file.name != ".lock"]
    assert not (out / "evaluation" / "counts").exists()


def test_two_shards_end_with_the_bytes_of_one_process(
    whole: Run, begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("affinitynet.run_folder.records.SHARD_IMAGES", 2)
    out, log = tmp_path / "run", tmp_path / "log"
    begin(whole, out, "propagate")
    other = join(whole, out, "--shard", "1/2", log=log)
    with placed(Place(0, 2)):
        an.run(whole.recipe.model_copy(update={"out": out}), anyway=True)
    assert other.wait(timeout=100) == 0, log.read_text()
    check_same(whole, out)


def test_what_a_helper_left_half_written_is_gone_at_the_end(
    whole: Run, begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, recorded = tmp_path / "run", contents.record_files
    begin(whole, out, "evaluate")

    def leave(*words: object) -> None:
        recorded(*words)
        with monkeypatch.context() as other, suppress(KeyboardInterrupt):
            other.setattr(os, "getpid", lambda: 2**22 + 1)  # above what Linux gives a process
            other.setattr(Path, "unlink", lambda file: None)
            with atomic_write(out / "walk" / "toy.png") as temporary:
                temporary.touch()
                raise KeyboardInterrupt
        assert temporary.is_file()

    monkeypatch.setattr(contents, "record_files", leave)
    an.run(whole.recipe.model_copy(update={"out": out}), anyway=True)
    check_same(whole, out)


def test_who_counts_late_revives_no_folder(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("affinitynet.run_folder.records.SHARD_IMAGES", 2)
    helper = Context(whole.recipe, whole.manifest, tmp_path, leads=False)
    folder, asked = tmp_path / "evaluation" / "counts", []
    folder.mkdir(parents=True)

    def count(samples: Sequence[Sample]) -> tuple[NDArray[np.int64], ...]:
        asked.append(samples)
        if len(asked) == 2:  # meanwhile the leading process has added all up
            remove_tree(folder)
        return (np.zeros(1, np.int64),)

    assert count_together(helper, "train-cams", whole.manifest.samples, count) == ()
    assert len(asked) == 2
    assert not folder.exists()


def test_a_split_may_be_named_as_a_folder_in_a_folder(whole: Run, tmp_path: Path) -> None:
    leader = Context(whole.recipe, whole.manifest, tmp_path, leads=True)
    with placed(Place(0, 2)):
        sums = count_together(
            leader, "site/b-cams", whole.manifest.samples, lambda part: (np.array([len(part)]),)
        )
    assert sums == (np.array([len(whole.manifest.samples)]),)


def test_who_helps_writes_nothing_into_a_stage_that_was_begun_anew(
    whole: Run, begin: Begin, tmp_path: Path
) -> None:
    begin(whole, tmp_path / "run", "propagate")
    run = Run(whole.recipe.model_copy(update={"out": tmp_path / "run"}), whole.manifest)
    stage, look = find_stage("propagate", run.stages), run._look_up()
    folder = look().folder(stage)
    folder.start(look().plan(stage))

    def work(stage: Stage) -> Callable[[Context], dict[str, Any]]:
        # Meanwhile the one that led is killed, and another begins the stage with other settings.
        folder.start(Plan(fingerprint="of other settings", settings={}))
        return work_of(stage)

    helper = replace(run.context, leads=False)
    assert not help_through(helper, look, [stage], work, anyway=True)
    assert not list((run.recipe.out / "pseudo").glob("*.png"))


def test_a_tree_is_deleted_though_another_takes_files_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, deleted = tmp_path / "counts", shutil.rmtree
    for name in ("first", "second"):
        (folder / name).mkdir(parents=True)

    def meanwhile(path: Path) -> None:
        monkeypatch.setattr(shutil, "rmtree", deleted)
        (path / "first").rmdir()
        raise FileNotFoundError(path / "first")

    monkeypatch.setattr(shutil, "rmtree", meanwhile)
    remove_tree(folder)
    assert not folder.exists()


@pytest.mark.slow
def test_another_takes_the_part_of_a_leading_process_that_is_killed(
    whole: Run, begin: Begin, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    begin(whole, out, "compute_cams")
    logs = [tmp_path / f"log{number}" for number in range(3)]
    processes = [join(whole, out, "--shard", f"{i}/3", log=logs[i]) for i in range(3)]
    wait_until(lambda: any((out / "pseudo").glob("*.png")))
    leads = next(number for number, log in enumerate(logs) if "[1/7]" in log.read_text())
    processes[leads].kill()
    codes = [process.wait(timeout=200) for process in processes]
    assert sorted(codes) == [-signal.SIGKILL, 0, 0]
    check_same(whole, out)


@pytest.mark.slow
def test_sigterm_finishes_the_image_and_a_rerun_goes_on(
    whole: Run, begin: Begin, tmp_path: Path
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    begin(whole, out, "compute_cams")
    process = join(whole, out, log=log)
    wait_until(lambda: any((out / "cams").glob("*.npz")))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=100) == 75
    assert "stopped by SIGTERM, all is saved" in log.read_text()
    assert join(whole, out).wait(timeout=200) == 0
    check_same(whole, out)


def test_several_processes_make_nothing_anew(whole: Run) -> None:
    with placed(Place(1, 2)), pytest.raises(UserError, match="let others join it without --redo"):
        whole.go(redo="compute_cams")


def test_a_run_is_reproduced(
    whole: Run, begin: Begin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, again = tmp_path / "run", tmp_path / "again"
    begin(whole, first, "mine_confident")
    assert read_origin(first)["data"] == whole.manifest.fingerprint()
    main(["reproduce", str(first), "--out", str(again)])
    said = capsys.readouterr().out
    assert "compute_cams           12 files, 0 differ" in said
    assert "mine_confident" not in said
    (first / "cams" / f"{whole.manifest.samples[0].id}.npz").write_bytes(b"changed")
    with pytest.raises(SystemExit):
        main(["reproduce", str(first), "--out", str(again)])
    assert "1 files differ" in capsys.readouterr().err


def test_seeds_are_summed_up() -> None:
    def row(miou: float) -> dict[str, object]:
        return {"stage": "pseudo", "split": "train", "miou": miou, "ground_truth_chose": None}

    lines = summarize([[row(0.5)], [row(0.6)], [row(0.7)]])
    assert " ".join(lines[1].split()) == "pseudo on train 60.0 ± 10.0 (50.0 to 70.0)"
