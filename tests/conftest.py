"""A toy data set and a recipe small enough for tests of the whole pipeline."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from affinitynet.data.toy import make_toy

TINY = """
device: cpu
workers: 1
backbone: {name: test_resnet, weights: none}
classifier: {output_stride: 8, crop: 64, long_side: [48, 80], epochs: 2, batch_size: 4}
cams: {scales: [1.0]}
confident: {crf: {iterations: 2}}
affinity: {crop: 64, epochs: 2, batch_size: 4, start: classifier, radius: 3}
walk: {steps: 20, crf: {iterations: 2}}
segmenter:
  {architecture: unet, start: classifier, crop: 64, epochs: 2, batch_size: 4, scales: [1.0]}
"""


@pytest.fixture(autouse=True)
def _links_or_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip a test that makes symbolic links where the system lets only some users (Windows)."""
    link = Path.symlink_to

    def link_or_skip(path: Path, *args: Any, **options: Any) -> None:
        try:
            link(path, *args, **options)
        except (OSError, NotImplementedError) as error:
            pytest.skip(f"no symbolic links here ({error})")

    monkeypatch.setattr(Path, "symlink_to", link_or_skip)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine training and three val images of 64 pixels."""
    return make_toy(tmp_path_factory.mktemp("toy") / "toy", train=9, val=3, size=64)


@pytest.fixture(scope="session")
def tiny_text() -> str:
    """The text of a recipe that runs all stages in seconds; its masks are no good."""
    return TINY


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """The tiny recipe as a file."""
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY, encoding="utf-8")
    return file


@pytest.fixture
def nothing_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have text files refuse to be read as another user's do; root could read those."""

    def refuse(path: Path, *_: Any, **__: Any) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(Path, "open", refuse)
