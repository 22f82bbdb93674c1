"""A toy data set and a recipe small enough for tests of the whole pipeline."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import affinitynet as an
from affinitynet.data import Manifest, Sample, voc_palette, write_labels
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


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, toy: Path, tiny_text: str) -> Path:
    """A finished run with its own copy of the data; tests work on copies of both."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(toy, folder / "data")
    (folder / "tiny.yaml").write_text(tiny_text, encoding="utf-8")
    an.run(an.Recipe.load(folder / "tiny.yaml", data=folder / "data", out=folder / "run"))
    return folder


@pytest.fixture(scope="session")
def begin() -> Callable[[an.Run, Path, str], None]:
    """Take a run's folder as it was before a stage: it and what follows is not there."""

    def begin(whole: an.Run, out: Path, without: str) -> None:
        shutil.copytree(whole.recipe.out, out)
        names = [stage.name for stage in whole.stages]
        for stage in whole.stages[names.index(without) :]:
            for artifact in stage.artifacts:
                shutil.rmtree(out / artifact.folder, ignore_errors=True)

    return begin


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """The tiny recipe as a file."""
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY, encoding="utf-8")
    return file


@pytest.fixture
def nothing_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have text files refuse to be read as another user's do; root could read those."""

    really = Path.open

    def refuse(path: Path, mode: str = "r", *more: Any, **others: Any) -> Any:
        if "w" in mode:  # write_text goes through here in some releases of Python
            return really(path, mode, *more, **others)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_text", lambda path, *_, **__: refuse(path))


@pytest.fixture
def masked_run(tmp_path: Path) -> Path:
    """A run with masks that are hard to write down, in `pseudo`; the last class is in none.

    Holes, islands in holes, pixels that touch at corners, rows one pixel wide, single pixels, void,
    an image without any class, and one that its EXIF data turns.
    """
    data, run = tmp_path / "data", tmp_path / "run"
    (data / "deep").mkdir(parents=True)
    random = np.random.default_rng(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    names = ("a b.jpg", "deep/b.png", "turned.jpg", "empty.png")
    samples = []
    for number, name in enumerate(names):
        pixels = random.integers(0, 256, (37 + number, 53, 3), dtype=np.uint8)
        turned = {"exif": exif} if name == "turned.jpg" else {}
        Image.fromarray(pixels).save(data / name, **turned)
        shape = (53, 37 + number) if turned else (37 + number, 53)
        blocks = random.choice([0, 1, 2, 255], (12, 14), p=[0.4, 0.3, 0.25, 0.05])
        labels = np.kron(blocks, np.ones((4, 4)))[: shape[0], : shape[1]]
        grid = np.zeros(shape, dtype=np.uint8)
        grid[: labels.shape[0], : labels.shape[1]] = labels
        noise = random.random(shape) < 0.05
        grid[noise] = random.choice([0, 1, 2], int(noise.sum()))
        grid[30], grid[:, -1], grid[-1, -1] = 0, 1, 2
        grid[30, 3:9] = 2
        tags = (0, 1)
        if name == "empty.png":
            grid[:], tags = 0, ()
        sample_id = name.rpartition(".")[0]
        write_labels(run / "pseudo" / f"{sample_id}.png", grid, voc_palette())
        samples.append(Sample(sample_id, data / name, tags))
    (run / "pseudo" / "stage.json").write_text("{}", encoding="utf-8")
    classes = ("cat", "dog & <co>", "grün")
    Manifest(data, classes, {"train": tuple(samples)}).write(run)
    (run / "recipe.yaml").write_text("{}", encoding="utf-8")
    return run
