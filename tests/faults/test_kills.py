"""kill -9 at any moment: the next run goes on and ends with the same bytes."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import affinitynet as an
from affinitynet.pipeline import Run
from affinitynet.run_folder.folder import locked

Begin = Callable[[Run, Path, str], None]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")

RESULTS = (".png", ".npz", ".safetensors", ".csv")
# With all the stages there are: contrast beside the classifier, and masks by the segmenter.
ALL = {
    "cams.source": "auto",
    "contrast.features": "classifier",
    "contrast.long_side": 64,
    "relabel.enabled": True,
    "relabel.rounds": 2,
    "relabel.confidence": 0.5,
    "segmenter.ema": 0.9,
    "workers": 2,
}
# Where the process is killed: before the n-th rename of a file in a folder, when the file is
# complete under its temporary name.
KILLER = """
import os, pathlib, signal, sys
folder, count = sys.argv[1], int(sys.argv[2])
replace = pathlib.Path.replace
seen = 0
def kill(path, target):
    global seen
    if folder in pathlib.Path(target).relative_to(sys.argv[5]).as_posix():
        seen += 1
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)
pathlib.Path.replace = kill
import affinitynet as an
from affinitynet.run_folder.recipe import Recipe
recipe = Recipe.load(sys.argv[3], data=sys.argv[4], out=sys.argv[5])
an.run(recipe, anyway=True)
"""


def results(folder: Path) -> dict[str, bytes]:
    files = sorted(p for p in folder.rglob("*") if p.suffix in RESULTS)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, toy: Path, tiny_text: str) -> Run:
    """The run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    file = folder / "tiny.yaml"
    file.write_text(tiny_text, encoding="utf-8")
    recipe = an.Recipe.load(file, data=toy, out=folder / "run", **ALL)
    file.write_text(recipe.dump(), encoding="utf-8")
    return an.run(recipe, anyway=True)


def kill(template: Any, whole: Run, out: Path, folder: str, count: int) -> None:
    recipe, data = whole.recipe.out.parent / "tiny.yaml", whole.recipe.data
    words = (folder, str(count), str(recipe), str(data), str(out))
    said = out.with_suffix(".log")
    template.start(KILLER, *words, said=said)
    assert template.wait() == -signal.SIGKILL, said.read_text()


def finish(whole: Run, out: Path) -> None:
    with locked(out):  # at once: no process that loads holds it
        pass
    recipe = whole.recipe.model_copy(update={"out": out})
    finished = an.run(recipe, anyway=True)
    assert all(status.finished for status in finished.status())
    assert results(out) == results(whole.recipe.out)
    figures = "evaluation/figures.json"
    assert (out / figures).read_bytes() == (whole.recipe.out / figures).read_bytes()
    assert not [p for p in out.rglob(".*") if p.name != ".lock"]


# A stage, the folder whose n-th file is not renamed any more.
KILLS = [
    ("train_classifier", "classifier/checkpoint", 2),
    ("choose_cams", "cams/", 5),
    ("train_segmenter", "segmenter/stage", 1),
]
MORE_KILLS = [
    ("train_classifier", "manifest", 1),
    ("train_classifier", "classifier/plan", 1),
    ("train_classifier", "classifier/checkpoint", 1),
    ("train_classifier", "classifier/weights", 1),
    ("train_classifier", "classifier/model", 1),
    ("train_classifier", "classifier/stage", 1),
    ("compute_cams", "cams_classifier/", 4),
    ("compute_contrast", "cams_contrast/banks", 1),
    ("compute_contrast", "cams_contrast/", 6),
    ("choose_cams", "cams/choice", 1),
    ("choose_cams", "cams/shards", 1),
    ("mine_confident", "confident/", 3),
    ("train_affinity", "affinity/checkpoint", 2),
    ("train_affinity", "affinity/stage", 1),
    ("propagate", "walk/", 3),
    ("propagate", "pseudo/", 5),
    ("train_segmenter", "segmenter/checkpoint", 1),
    ("train_segmenter", "predictions/", 2),
    ("relabel", "masks/", 4),
    ("train_segmenter_1", "segmenter_1/checkpoint", 2),
    ("relabel_1", "certain_1/", 3),
    ("relabel_1", "masks_1/stage", 1),
    ("evaluate", "evaluation/", 2),
]


@pytest.mark.parametrize(("stage", "folder", "count"), KILLS)
def test_killed_and_resumed_ends_with_the_same_bytes(
    template: Any, whole: Run, begin: Begin, tmp_path: Path, stage: str, folder: str, count: int
) -> None:
    out = tmp_path / "run"
    begin(whole, out, stage)
    kill(template, whole, out, folder, count)
    finish(whole, out)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "folder", "count"), MORE_KILLS)
def test_killed_anywhere_and_resumed_ends_with_the_same_bytes(
    template: Any, whole: Run, begin: Begin, tmp_path: Path, stage: str, folder: str, count: int
) -> None:
    test_killed_and_resumed_ends_with_the_same_bytes(
        template, whole, begin, tmp_path, stage, folder, count
    )


@pytest.mark.parametrize("stopped", [False, True])
def test_no_process_outlives_a_killed_training(
    template: Any,
    toy: Path,
    tiny_recipe: Path,
    tmp_path: Path,
    children: Callable[[int], list[int]],
    stays: Callable[[int], bool],
    stopped: bool,
) -> None:
    """Orphans would hold memory; the lock is free at once, even where one can't end (stopped)."""
    out = tmp_path / "run"
    code = (
        "import sys, affinitynet as an\n"
        "recipe, data, out = sys.argv[1:]\n"
        "settings = {'classifier.epochs': 100000, 'workers': 2}\n"
        "an.run(an.Recipe.load(recipe, data=data, out=out, **settings))"
    )
    words = (str(tiny_recipe), str(toy), str(out))
    process = template.start(code, *words, said=tmp_path / "said")
    orphans: list[int] = []
    try:
        deadline = time.monotonic() + 250
        while not orphans and time.monotonic() < deadline:
            time.sleep(0.05)
            if (out / "classifier" / "checkpoint.pt").exists():
                orphans = children(process)
        assert len(orphans) == 2
        for orphan in orphans if stopped else ():
            os.kill(orphan, signal.SIGSTOP)
        os.kill(process, signal.SIGKILL)
        assert template.wait() == -signal.SIGKILL
        with locked(out, patience=0.0):
            pass
        assert stopped or not stays(process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        template.wait()
