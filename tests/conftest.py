"""A toy data set, a recipe small enough for tests of the whole pipeline, its run, and processes."""

import errno
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
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


# Everything is imported, and no thread started: what is forked from here begins its work at once.
# It leaves the loop, so that it ends as a program of its own does.
TEMPLATE = """
import json, os, pkgutil, sys
import accelerate, segmentation_models_pytorch, timm, torch, torchvision.transforms.v2
import affinitynet.cli, affinitynet.stages
for module in pkgutil.iter_modules(affinitynet.stages.__path__):
    __import__(f"affinitynet.stages.{module.name}")
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
os.setsid()
null = os.open(os.devnull, os.O_RDWR)
said = os.open(asked["said"], os.O_WRONLY | os.O_CREAT)
for number, file in enumerate((null, null, said)):
    os.dup2(file, number)
os.close(null), os.close(said)
# Anew: the old ones think that they can be rewound, if they were files.
sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))
sys.argv = ["-c", *asked["words"]]
exec(compile(asked["code"], "<code>", "exec"), {"__name__": "__main__"})
"""


class Template:
    """Starts processes that have imported everything: a run begins in a tenth of the time.

    One at a time; each is the leader of a session of its own.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", TEMPLATE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._code: int | None = None

    def start(self, code: str, *words: str, said: Path) -> int:
        """Run a program's text with its arguments, stderr into `said`; return its process id."""
        assert self._process.stdin is not None
        asked = {"code": code, "words": words, "said": str(said)}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._code = None
        return int(self._line())

    def wait(self) -> int:
        """Return the exit code of what was started, once it has ended."""
        if self._code is None:
            self._code = int(self._line())
        return self._code

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for end in (self._process.stdin, self._process.stdout):
            assert end is not None
            end.close()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], 300)[0]:
            raise TimeoutError("what was started does not end")
        return self._process.stdout.readline()


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
def finished(made: Path) -> an.Run:
    """That run itself; tests that change its files work on a copy."""
    return an.Run.open(made / "run")


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


@pytest.fixture(scope="session")
def template() -> Iterator[Template]:
    """A process to fork others from; POSIX."""
    made = Template()
    yield made
    made.close()


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
