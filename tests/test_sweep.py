"""`affinitynet sweep`: values side by side, decided as the run decides."""

import json
from pathlib import Path

import pytest

from affinitynet.cli import main
from affinitynet.data import Manifest, Sample
from affinitynet.data.scoring import confusion_of_folder, intersection_over_union
from affinitynet.errors import UserError
from affinitynet.pipeline import Run
from affinitynet.run_folder.recipe import Recipe
from affinitynet.tuning.decide import find_samples
from affinitynet.tuning.sweep import sweep_run


def files(run: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}


def test_the_recipes_own_values_have_the_figures_of_the_run(made: Path) -> None:
    run = made / "run"
    before = files(run)
    found = sweep_run(run, {"walk.beta": [8, 1], "walk.alpha": [16, 0.01]}, images=1000)
    assert files(run) == before
    manifest = Run.open(run).manifest
    tagged = [sample for sample in manifest.splits["train"] if sample.tags]
    assert (found["images"], found["by"]) == (len(tagged), "truth")
    confusion = confusion_of_folder(manifest, tagged, run / "pseudo", "pseudo")
    own = intersection_over_union(confusion)
    assert found["rows"][0] == {"walk.beta": 8, "walk.alpha": 16, "miou": own["miou"]}
    assert found["rows"][1]["miou"] != own["miou"]  # hardly anything but background is left


def test_values_come_as_flags(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sweep", str(made / "run"), "--walk.steps", "0", "20", "--json", "--images", "2"])
    found = json.loads(capsys.readouterr().out)
    assert [row["walk.steps"] for row in found["rows"]] == [0, 20]
    main(["sweep", "--walk.alpha=4", "--images", "2", str(made / "run")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["walk.alpha", "miou"]
    assert lines[1].split()[0] == "4"
    assert "by ground truth on 2 images" in lines[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classifier.epochs", "3", "4"], "--classifier.epochs: asks for a network's work"),
        (["--walk.precision", "bf16"], "try each value with affinitynet run RECIPE --walk.prec"),
        (["--walk.betta", "3"], "unknown setting --walk.betta: did you mean walk.beta"),
        (["--walk.beta"], "--walk.beta needs a value"),
        (["--walk.beta", "-1"], "walk.beta"),
        ([], "0 combinations to try"),
    ],
)
def test_mistakes_are_one_line(
    made: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", str(made / "run"), *words])
    assert message in capsys.readouterr().err


def test_without_truth_there_are_measures(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="give 1 or more"):
        sweep_run(made / "run", {"walk.beta": [8]}, images=0)

    def without(recipe: Recipe, manifest: Manifest, count: int) -> list[Sample]:
        return [sample.replace(mask=None) for sample in find_samples(recipe, manifest, count)]

    monkeypatch.setattr("affinitynet.tuning.sweep.find_samples", without)
    found = sweep_run(made / "run", {"walk.beta": [8, 4]}, images=3)
    assert found["by"] == "measures"
    assert all(0 <= row["agreement with the CAM"] <= 1 for row in found["rows"])
