"""What tests of several processes compare with: the run of one."""

from pathlib import Path

import pytest

import affinitynet as an
from affinitynet.pipeline import Run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, toy: Path, tiny_text: str) -> Run:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("whole")
    file = folder / "tiny.yaml"
    file.write_text(tiny_text, encoding="utf-8")
    return an.run(an.Recipe.load(file, data=toy, out=folder / "run"), anyway=True)
