"""What the README promises: its make targets, its commands and its Python run as they stand."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import affinitynet as an
from affinitynet.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_are_make_targets(target: str) -> None:
    assert f"make {target} " in blocks("")[0]
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_commands_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command line of the README is one that the program understands."""
    called: list[Any] = []
    for command in ("Check", "Run", "Predict"):
        monkeypatch.setattr(f"affinitynet.cli.{command}.__call__", lambda *a: called.append(a[0]))
    lines = re.findall(r"^\.venv/bin/affinitynet (.*)$", README, re.MULTILINE)
    for line in lines:
        main(line.split())
    assert len(called) == len(lines) == 3


def test_the_library_snippet_runs(toy: Path, tmp_path: Path, tiny_text: str) -> None:
    snippet = next(block for block in blocks("python") if "random_walk" in block)
    ops, pipeline = snippet.split("run = an.run")
    image = torch.randint(0, 256, (16, 24, 3), dtype=torch.uint8)
    names = {
        "features": torch.rand(1, 8, 6, 7),
        "cams": torch.rand(1, 2, 6, 7),
        "image": image,
        "probabilities": torch.rand(3, 16, 24),
    }
    exec(ops, names)
    assert names["spread"].shape == (1, 2, 6, 7)
    assert names["refined"].shape == (3, 16, 24)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(tiny_text, encoding="utf-8")
    code = "run = an.run" + pipeline
    for said, real in (
        ('"demo"', f'"{recipe}"'),
        ('"photos"', f'"{toy}"'),
        ("runs/photos", str(tmp_path / "run")),
        ('"photo.jpg"', f'"{next((toy / "images").iterdir())}"'),
    ):
        assert said in code
        code = code.replace(said, real)
    results: dict[str, Any] = {"an": an}
    exec(code, results)
    assert results["mask"].shape == (64, 64)


def test_documents_link_to_files_that_exist() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_examples_run() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "spread_your_cams.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cam, walk, crf = (float(share) for share in re.findall(r"([\d.]+)%", done.stdout))
    assert cam < walk < crf
