"""What the command line makes of errors that are nobody's mistake."""

import subprocess
import sys
from pathlib import Path

import pytest

from affinitynet import cli


def test_what_the_system_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(command: cli.Settings) -> None:
        raise PermissionError(13, "Permission denied", "runs/x/manifest.json")

    monkeypatch.setattr(cli.Settings, "__call__", refuse)
    with pytest.raises(SystemExit) as caught:
        cli.main(["settings"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "affinitynet: runs/x/manifest.json: Permission denied\n"


def test_a_reader_that_has_enough_is_no_error() -> None:
    """As in `affinitynet settings | head -1`."""
    code = (
        "import os, sys; from affinitynet.cli import main\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "sys.stdout.reconfigure(line_buffering=True)\n"
        "main(['settings'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_image_that_a_loading_process_can_not_read_is_one_line(
    tmp_path: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "images" / "a.png").write_bytes(b"no picture")
    (data / "labels.csv").write_text("image,labels\nimages/a.png,cat\n")
    with pytest.raises(SystemExit):
        cli.main(["run", str(tiny_recipe), "--data", str(data), "--out", str(tmp_path / "run")])
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("affinitynet: train_classifier, image a: The image")
