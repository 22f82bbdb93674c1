"""What the command line makes of errors that are nobody's mistake."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from affinitynet import __version__, cli


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Run a command that raises an error; gives its exit code."""

    def run(error: BaseException) -> int:
        def work(**_: Any) -> None:
            raise error

        broken = cli.COMMANDS["settings"]._replace(work=work)
        monkeypatch.setitem(cli.COMMANDS, "settings", broken)
        with pytest.raises(SystemExit) as caught:
            cli.main(["settings"])
        return int(str(caught.value.code))

    return run


def test_what_the_system_refuses_is_one_line(
    broken: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert broken(PermissionError(13, "Permission denied", "runs/x/manifest.json")) == 2
    assert capsys.readouterr().err == "affinitynet: runs/x/manifest.json: Permission denied\n"
    assert broken(OSError("a disk\nof two lines")) == 2
    assert capsys.readouterr().err == "affinitynet: a disk of two lines\n"


def test_an_interruption_is_one_line(
    broken: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert broken(KeyboardInterrupt()) == 130
    said = "affinitynet: interrupted; give the same command again to continue\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), MemoryError()])
def test_a_bug_shows_its_traceback_and_asks_for_a_report(
    broken: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    assert broken(error) == 1
    first, *_, named, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Traceback")
    assert named.startswith(type(error).__name__)
    assert last.startswith("affinitynet: unexpected error; please report it")
    assert f"affinitynet {__version__}, Python" in last


@pytest.mark.parametrize("words", [["settings"], ["run", "--help"]])
def test_a_reader_that_has_enough_is_no_error(words: list[str]) -> None:
    """As in `affinitynet settings | head -1`."""
    code = (
        "import os, sys; from affinitynet.cli import main\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        f"main({words})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_image_that_a_loading_process_can_not_read_is_one_line(
    tmp_path: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "images" / "a.png").write_bytes(b"no picture")
    Image.new("RGB", (40, 40)).save(data / "images" / "b.png")
    (data / "labels.csv").write_text("image,labels\nimages/a.png,cat\nimages/b.png,\n")
    with pytest.raises(SystemExit):
        cli.main(["run", str(tiny_recipe), "--data", str(data), "--out", str(tmp_path / "run")])
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("affinitynet: train_classifier, image a: ")
    assert "a.png" in last
