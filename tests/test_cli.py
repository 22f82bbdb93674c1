"""The command line: one line for a mistake, exit code 2, `--help` without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from affinitynet.cli import main, parse_overrides
from affinitynet.errors import UserError


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "affinitynet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line a command fails with."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("affinitynet: ")
    return said[0]


def test_overrides_are_read_as_their_settings_ask() -> None:
    given = ["--walk.beta", "10", "--cams.scales", "0.5", "1", "--cams.flip=false", "--name", "on"]
    assert parse_overrides(given) == {
        "walk.beta": 10,
        "cams.scales": [0.5, 1],
        "cams.flip": False,
        "name": "on",
    }


@pytest.mark.parametrize("given", [["stray"], ["--walk.beta"], ["--walk.beta", "*a"]])
def test_overrides_that_make_no_sense_are_refused(given: list[str]) -> None:
    with pytest.raises(UserError):
        parse_overrides(given)


def test_help_and_import_need_no_torch() -> None:
    code = (
        "import sys, affinitynet.cli\n"
        "try: affinitynet.cli.main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Run a recipe" in done.stdout


def test_commands_of_the_package(tmp_path: Path, toy: Path, tiny_recipe: Path) -> None:
    """run, status, evaluate, report, export and predict, typed as a user types them."""
    out = tmp_path / "run"
    done = call("run", tiny_recipe, "--data", toy, "--out", out, "--walk.steps", "5")
    assert done.returncode == 0, done.stderr
    assert "pseudo" in done.stdout
    assert (out / "report" / "index.html").is_file()
    assert call("status", out).stdout.count("done") == 7
    again = call("run", tiny_recipe, "--data", toy, "--out", out, "--walk.steps", "6")
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].endswith("or choose another --out")
    measured = call("evaluate", out, "--masks", out / "walk", "--split", "train")
    assert measured.returncode == 0, measured.stderr
    assert call("evaluate", out).returncode == 0
    assert call("report", out).returncode == 0
    exported = call("export", out, "--out", tmp_path / "voc")
    assert exported.returncode == 0, exported.stderr
    assert call("check", tmp_path / "voc").returncode == 0
    predicted = call("predict", out, toy / "images", "--out", tmp_path / "masks")
    assert predicted.returncode == 0, predicted.stderr
    assert len(list((tmp_path / "masks").rglob("*.png"))) == 12


def test_mistakes_are_one_line_each(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_recipe: Path, toy: Path
) -> None:
    assert "none of the package's own" in fails(capsys, "run", "demmo")
    assert "--data" in fails(capsys, "run", tiny_recipe)
    assert "did you mean beta?" in fails(capsys, "run", tiny_recipe, "--walk.betta", "3")
    assert "is no stage" in fails(
        capsys, "run", tiny_recipe, "--data", toy, "--out", tmp_path / "r", "--until", "walk"
    )
    assert "no data set folder" in fails(capsys, "run", tiny_recipe, "--data", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "is empty" in fails(capsys, "run", tiny_recipe, "--data", tmp_path / "empty")
    assert "is no run folder" in fails(capsys, "status", tmp_path)
    assert "unknown argument" in fails(capsys, "status", tmp_path, "--verbose")
    assert "holds no trained model" in fails(capsys, "predict", tmp_path, toy, "--out", tmp_path)


def test_check_names_problems(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    (tmp_path / "labels.csv").write_text("image,labels\nimages/a.png,cat\n")
    assert "1 problems" in fails(capsys, "check", tmp_path)
