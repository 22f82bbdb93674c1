"""What the README promises: its make targets, its commands and its Python run as they stand."""

import contextlib
import io
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import affinitynet as an
from affinitynet.cli import main
from affinitynet.data.toy import make_toy
from affinitynet.models.text import read_texts
from affinitynet.pipeline import Run
from affinitynet.preflight import check_roles

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\.venv/bin/affinitynet (.*)$", README, re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def printed(command: str) -> str:
    """What a command of the program prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        main(command.split())
    return output.getvalue()


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory: pytest.TempPathFactory, toy: Path, tiny_text: str) -> Path:
    """A folder with what the README names: photos, new images, and (quick) recipes."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(toy, folder / "photos")
    shutil.copytree(toy / "images", folder / "new_images")
    shutil.copy(toy / "images" / "0000.png", folder / "photo.jpg")
    for recipe in ("own_images", "demo"):
        (folder / recipe).write_text(tiny_text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def answers(readers_folder: Path) -> dict[str, str]:
    """What the README's commands print, run one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(readers_folder)
        return {line.split()[0]: printed(line) for line in COMMANDS}


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_are_make_targets(target: str) -> None:
    assert f"make {target} " in blocks("")[0]
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_commands_run(readers_folder: Path, answers: dict[str, str]) -> None:
    assert list(answers) == ["check", "run", "predict"]
    assert "12 different images" in answers["check"]
    assert "pseudo" in answers["run"]
    assert (readers_folder / "runs" / "photos" / "report" / "index.html").is_file()
    assert len(list((readers_folder / "masks").glob("*.png"))) == 12


def test_the_recipe_for_own_images_fits_them(toy: Path, tmp_path: Path) -> None:
    """The quick recipe stands in for it above; what it asks of a data set is asked here."""
    run = Run.create(an.Recipe.load("own_images", data=toy, out=tmp_path))
    check_roles(run.recipe, run.manifest)
    assert run.context.samples("train", "val")


@pytest.mark.usefixtures("answers")
def test_a_run_is_looked_at(readers_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(readers_folder)
    assert printed("status runs/photos").count("done") == 7
    assert printed("report runs/photos").strip() == "runs/photos/report/index.html"


@pytest.mark.usefixtures("answers")
def test_the_demo_shows_figures_and_report(
    readers_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a small toy set, whose run is there already: the path through the command is new."""
    monkeypatch.chdir(readers_folder)
    small = partial(make_toy, train=9, val=3, size=64)
    monkeypatch.setattr("affinitynet.data.toy.make_toy", small)
    shutil.copytree("runs/photos", "runs/demo/run")
    output = printed("demo")
    assert "segmenter" in output
    assert "report: runs/demo/run/report/index.html" in output
    assert Path("runs/demo/toy/labels.csv").is_file()


def test_settings_are_listed() -> None:
    lines = [line.split() for line in printed("settings").splitlines()]
    assert ["walk.beta", "8"] in [line[:2] for line in lines]


def test_weights_are_converted(tmp_path: Path) -> None:
    from affinitynet.models.vgg16 import VGG16

    torch.save(VGG16(width=1 / 16).state_dict(), tmp_path / "vgg16.pth")
    report = printed(f"convert-weights {tmp_path}/vgg16.pth {tmp_path}/vgg16.safetensors")
    assert "recognised: 30 tensors" in report
    assert (tmp_path / "vgg16.safetensors").is_file()


def test_the_functions_of_the_snippet_run() -> None:
    names = {
        "features": torch.rand(1, 8, 6, 7),
        "cams": torch.rand(1, 2, 6, 7),
        "image": torch.randint(0, 256, (16, 24, 3), dtype=torch.uint8),
        "probabilities": torch.rand(3, 16, 24),
    }
    exec(snippet()[0], names)
    assert names["spread"].shape == (1, 2, 6, 7)
    assert names["refined"].shape == (3, 16, 24)


@pytest.mark.usefixtures("answers")
def test_the_pipeline_of_the_snippet_runs(
    readers_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(readers_folder)
    results: dict[str, Any] = {"an": an}
    exec(snippet()[1], results)
    assert results["mask"].shape == (64, 64)


def snippet() -> tuple[str, str]:
    """The README's Python: the pure functions, and the pipeline."""
    block = next(block for block in blocks("python") if "random_walk" in block)
    functions, _, pipeline = block.partition("run = an.run")
    return functions, "run = an.run" + pipeline


def test_documents_link_to_files_that_exist() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def example(name: str) -> Callable[..., None]:
    main_of_it: Callable[..., None] = runpy.run_path(str(ROOT / "examples" / name))["main"]
    return main_of_it


def test_the_example_with_own_cams_runs() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "spread_your_cams.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cam, walk, crf = (float(share) for share in re.findall(r"([\d.]+)%", done.stdout))
    assert cam < walk < crf


@pytest.mark.usefixtures("answers")
def test_the_example_from_python_runs(
    readers_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(readers_folder)
    # Its other walk starts from what is there up to the affinity network.
    later = shutil.ignore_patterns("pseudo", "walk", "segmenter", "predictions", "evaluation")
    shutil.copytree("runs/photos", "runs/python", ignore=later)
    example("run_from_python.py")(Path("photos"), Path("runs/python"))
    assert re.search(r"segmenter +on val +mIoU 0\.\d", capsys.readouterr().out)


@pytest.mark.usefixtures("answers")
def test_the_example_of_the_strip_runs(readers_folder: Path, tmp_path: Path) -> None:
    example("draw_strip.py")(readers_folder / "runs" / "photos", tmp_path / "strip.png")
    assert (tmp_path / "strip.png").is_file()


@pytest.fixture
def finished(made: Path, tmp_path: Path) -> Path:
    """A finished run that an example may change, and beside it masks as someone would draw them."""
    shutil.copytree(made, tmp_path / "made")
    (tmp_path / "drawn").mkdir()
    for mask in sorted((made / "data" / "masks").glob("*.png"))[:8]:
        shutil.copy(mask, tmp_path / "drawn")
    return tmp_path / "made" / "run"


def test_the_example_of_corrections_runs(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_of_it = example("correct_and_go_on.py")
    main_of_it(finished)
    listed = re.findall(r"trust ([\d.]+)", capsys.readouterr().out)
    assert listed == sorted(listed)
    main_of_it(finished, finished.parents[1] / "drawn")
    said = capsys.readouterr().out
    assert "trained with 8 corrected masks" in said
    assert re.search(r"segmenter +on val +mIoU 0\.\d", said)


def test_the_example_of_tuning_runs(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("tune_by_drawn_masks.py")(finished, finished.parents[1] / "drawn")
    said = capsys.readouterr().out
    assert re.search(r"mean IoU 0\.\d+ -> 0\.\d+ on masks that were left out", said)
    assert ("are made again" in said) != ("the recipe stays as it is" in said)
    assert all(status.finished for status in Run.open(finished).status())


def test_the_example_of_new_images_runs(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example("apply_to_new_images.py")(finished, finished.parent / "data", tmp_path / "out")
    assert "12 masks without the tags' help" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "tagged" / "pseudo").glob("*.png"))) == 12
    assert (tmp_path / "out" / "coco" / "annotations").is_dir()


def test_the_example_of_the_segmenter_runs(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = finished.parent / "data" / "images" / "0000.png"
    example("use_the_segmenter.py")(finished, photo, tmp_path / "network")
    shares = re.findall(r"([\d.]+)%", capsys.readouterr().out)
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.5)
    assert (tmp_path / "network" / "config.json").is_file()


def test_the_example_of_the_gallery_runs(made: Path, tmp_path: Path) -> None:
    example("draw_gallery.py")(made / "run", tmp_path / "pictures")
    names = sorted(file.name for file in (tmp_path / "pictures").iterdir())
    assert names == ["bad.jpg", "good.jpg", "usual.jpg"]


def test_the_example_of_texts_runs(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tower of another program's kind: open_clip is no dependency, its weights less so."""
    said: list[str] = []

    def embed(tokens: list[str], normalize: bool) -> torch.Tensor:
        assert normalize
        said.extend(tokens)
        return torch.nn.functional.normalize(torch.randn(len(tokens), 8)).half()

    tower = SimpleNamespace(encode_text=embed, logit_scale=torch.tensor(100.0).log())
    tower.eval = lambda: tower
    known = {
        "create_model": lambda name, pretrained: tower,
        "get_tokenizer": lambda name: lambda texts: texts,
    }
    monkeypatch.setitem(sys.modules, "open_clip", SimpleNamespace(**known))
    out = tmp_path / "texts.safetensors"
    example("text_embeddings.py")(toy, out, "ViT-B-16", None)
    classes = an.read_dataset(toy).classes
    texts = read_texts(out, classes)
    assert texts.classes.shape == (len(classes), 8)
    assert len(texts.background) + len(classes) == len(said)
    assert said[0] == f"a clean origami {classes[0]}."
    assert texts.scale == pytest.approx(100)


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    for file in (ROOT / "examples").glob("*.py"):
        assert f'"{file.name}"' in here
