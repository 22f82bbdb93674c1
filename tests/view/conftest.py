"""A finished run of tiny images, and its page."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import affinitynet as an
from affinitynet.view.viewed import Viewed


@pytest.fixture(scope="session")
def shown(
    tiny_text: str,
    toy: Path,
    tmp_path_factory: pytest.TempPathFactory,
    finished: an.Run,
    begin: Callable[[an.Run, Path, str], None],
) -> Path:
    """A run that is done; tests take copies of it."""
    folder = tmp_path_factory.mktemp("view")
    recipe = folder / "tiny.yaml"
    recipe.write_text(tiny_text.replace("walk: {steps: 20,", "walk: {steps: 20, guard: true,"))
    begin(finished, folder / "run", "propagate")
    an.run(an.Recipe.load(recipe, data=toy, out=folder / "run", **{"relabel.enabled": True}))
    return folder / "run"


@pytest.fixture
def root(shown: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shown, tmp_path / "run"))


@pytest.fixture
def viewed(root: Path) -> Iterator[Viewed]:
    opened = Viewed(root)
    yield opened
    opened.close()
