"""A finished run of tiny images, and its page."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import affinitynet as an
from affinitynet.view.viewed import Viewed


@pytest.fixture(scope="session")
def finished(tiny_text: str, toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done; tests take copies of it."""
    folder = tmp_path_factory.mktemp("view")
    recipe = folder / "tiny.yaml"
    recipe.write_text(tiny_text.replace("walk: {steps: 20,", "walk: {steps: 20, guard: true,"))
    an.run(an.Recipe.load(recipe, data=toy, out=folder / "run", **{"relabel.enabled": True}))
    return folder / "run"


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def viewed(root: Path) -> Iterator[Viewed]:
    opened = Viewed(root)
    yield opened
    opened.close()
