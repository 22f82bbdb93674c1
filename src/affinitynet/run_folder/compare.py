"""Two runs of one recipe, file by file."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from affinitynet.run_folder.artifacts import EVALUATION, FIGURES
from affinitynet.run_folder.stages import Stage
from affinitynet.run_folder.store import content_name, members

# Of what a stage makes; its records hold times.
_SUFFIXES = (".png", ".npz", ".safetensors")


class Compared(NamedTuple):
    """How many files a stage made in either run, and the names of those that differ."""

    stage: str
    files: int
    differ: tuple[str, ...]


def compare_runs(first: Path, second: Path, stages: Sequence[Stage]) -> list[Compared]:
    """Compare the files that stages made in two run folders, byte by byte."""
    return [_compare(first, second, stage) for stage in stages]


def _compare(first: Path, second: Path, stage: Stage) -> Compared:
    names = sorted(
        name
        for artifact in stage.artifacts
        for name in _made(first, artifact.folder) | _made(second, artifact.folder)
    )
    differ = (name for name in names if content_name(first / name) != content_name(second / name))
    return Compared(stage.name, len(names), tuple(differ))


def _made(root: Path, folder: str) -> set[str]:
    files = (file for file in (root / folder).rglob("*") if file.is_file())
    figures = root / EVALUATION.folder / FIGURES
    loose = {
        file.relative_to(root).as_posix()
        for file in files
        if file.suffix in _SUFFIXES or file == figures
    }
    return loose | {f"{folder}/{name}" for name in members(root / folder)}
