"""A researcher comes in with CAMs, affinities or masks of their own, and leaves with masks."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import affinitynet as an
from affinitynet.data import read_labels, voc_palette, write_labels
from affinitynet.data.cams import load_cams
from affinitynet.data.voc import VOC_CLASSES
from affinitynet.errors import UserError
from affinitynet.ops import neighbor_offsets
from affinitynet.pipeline import Run
from affinitynet.report import write_report

CLASSES = ("cat", "dog")  # of VOC's twenty: numbers 7 and 11 in the files of other programs
SIZE = (48, 64)
TAGS = {"2007_1": (0,), "2007_2": (1,), "2007_3": (0, 1), "2007_4": ()}


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A devkit with four training images and one of val."""
    root = tmp_path_factory.mktemp("voc") / "VOC"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    rng = np.random.default_rng(0)
    rows = ["image,labels"]
    for name, tags in {**TAGS, "2007_5": (0,)}.items():
        pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
        rows.append(f"{name}.jpg,{';'.join(CLASSES[tag] for tag in tags)}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (lists / "train.txt").write_text("".join(f"{name}\n" for name in TAGS), encoding="utf-8")
    (lists / "val.txt").write_text("2007_5\n", encoding="utf-8")
    return root


def number(tag: int) -> int:
    return VOC_CLASSES.index(CLASSES[tag])


def cam(tag: int) -> NDArray[np.float32]:
    """A bump on the left for cats, on the right for dogs."""
    rows, columns = np.indices(SIZE)
    distance = (rows - 24) ** 2 + (columns - (16, 48)[tag]) ** 2
    return np.exp(-distance / 200).astype(np.float32)


def write_psa(folder: Path, name: str, tags: tuple[int, ...]) -> None:
    np.save(folder / f"{name}.npy", np.array({number(tag): cam(tag) for tag in tags}, object))


def write_irn(folder: Path, name: str, tags: tuple[int, ...]) -> None:
    maps = np.stack([cam(tag) for tag in tags])
    keys = np.array([number(tag) for tag in tags])
    content = {"keys": keys, "cam": maps[:, ::4, ::4], "high_res": maps}
    np.save(folder / f"{name}.npy", np.array(content, object))


def write_own(folder: Path, name: str, tags: tuple[int, ...]) -> None:
    np.savez(folder / f"{name}.npz", **{CLASSES[tag]: cam(tag) for tag in tags})


def cams_folder(folder: Path, write: Callable[[Path, str, tuple[int, ...]], None]) -> Path:
    folder.mkdir()
    for name, tags in TAGS.items():
        if tags:
            write(folder, name, tags)
    return folder


def load(tiny: Path, voc: Path, out: Path, **settings: Any) -> an.Recipe:
    return an.Recipe.load(tiny, data=voc, out=out, **settings)


def states(run: Run) -> dict[str, str]:
    return {status.name: str(status) for status in run.status()}


@pytest.mark.parametrize("write", [write_psa, write_irn, write_own])
def test_own_cams_end_in_masks_without_a_classifier(
    write: Callable[..., None], voc: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    source = f"files:{cams_folder(tmp_path / 'cams', write)}"
    run = an.run(load(tiny_recipe, voc, tmp_path / "run", **{"cams.source": source}))
    found = states(run)
    assert "train_classifier" not in found
    assert found.pop("compute_cams") == f"imported (from {source})"
    assert set(found.values()) == {"done"}
    assert not (tmp_path / "run" / "classifier").exists()
    classes, maps = load_cams(tmp_path / "run" / "cams" / "2007_3.npz")
    assert classes.tolist() == [0, 1]
    np.testing.assert_allclose(maps, np.stack([cam(0), cam(1)]), atol=5e-3)
    for name, tags in TAGS.items():
        labels = read_labels(tmp_path / "run" / "pseudo" / f"{name}.png")
        assert set(np.unique(labels)) <= {0, *(tag + 1 for tag in tags)}
    assert f"imported (from {source})" in write_report(tmp_path / "run").read_text()


def test_the_command_line_goes_from_own_cams_to_masks(
    voc: Path, tmp_path: Path, tiny_text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from affinitynet.cli import main

    cams, recipe = cams_folder(tmp_path / "cams", write_psa), tmp_path / "own"
    recipe.write_text(tiny_text, encoding="utf-8")
    words = f"run {recipe} --data {voc} --out {tmp_path / 'run'} --cams.source files:{cams}"
    main([*words.split(), "--backbone.weights", "none", "--until", "propagate"])
    assert len(list((tmp_path / "run" / "pseudo").glob("*.png"))) == len(TAGS)
    said = capsys.readouterr().err
    assert said.count("no classifier is trained in this run") == 1
    main(["status", str(tmp_path / "run")])
    assert "imported (from files:" in capsys.readouterr().out


def affinities_folder(folder: Path) -> Path:
    folder.mkdir()
    pairs, (height, width) = len(neighbor_offsets(5)), SIZE
    for name in TAGS:
        affinity = np.full((pairs, height // 8, width // 8), 0.9, np.float32)
        np.savez(folder / f"{name}.npz", affinity=affinity)
    return folder


def test_own_affinities_take_the_place_of_the_network(
    voc: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    sources = {
        "cams.source": f"files:{cams_folder(tmp_path / 'cams', write_psa)}",
        "affinity.source": f"files:{affinities_folder(tmp_path / 'affinities')}",
    }
    run = an.run(load(tiny_recipe, voc, tmp_path / "run", **sources), until="propagate")
    names = [stage.name for stage in run.stages]
    assert names == [
        *("compute_cams", "train_affinity", "propagate"),
        *("train_segmenter", "evaluate"),
    ]
    assert states(run)["train_affinity"].startswith("imported (from files:")
    assert read_labels(tmp_path / "run" / "walk" / "2007_3.png").any()
    # They are kept when the walk is made anew.
    recipe = load(tiny_recipe, voc, tmp_path / "run", **sources, **{"walk.beta": 2.0})
    an.run(recipe, until="propagate", redo="propagate")
    assert len(list((tmp_path / "run" / "affinities").glob("*.npz"))) == len(TAGS)


def masks_folder(folder: Path) -> Path:
    for name, tags in TAGS.items():
        labels = np.zeros(SIZE, np.uint8)
        for tag in tags:
            labels[cam(tag) > 0.5] = number(tag) + 1
        labels[0] = 255
        write_labels(folder / f"{name}.png", labels, voc_palette())
    return folder


def test_own_masks_train_the_segmenter_at_once(
    voc: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    source = f"files:{masks_folder(tmp_path / 'masks')}"
    run = an.run(load(tiny_recipe, voc, tmp_path / "run", **{"pseudo.source": source}))
    assert [stage.name for stage in run.stages] == ["propagate", "train_segmenter", "evaluate"]
    labels = read_labels(tmp_path / "run" / "pseudo" / "2007_3.png")
    assert np.unique(labels).tolist() == [0, 1, 2, 255]  # the data set's numbers, not VOC's
    assert (tmp_path / "run" / "predictions" / "2007_5.png").is_file()
    with pytest.raises(UserError, match=r"this run has no stage mine_confident"):
        run.metrics("mine_confident")


def test_own_confident_areas_train_the_affinity(
    voc: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    source = f"files:{masks_folder(tmp_path / 'masks')}"
    recipe = load(tiny_recipe, voc, tmp_path / "run", **{"confident.source": source})
    found = states(an.run(recipe, until="train_affinity"))
    assert found["mine_confident"] == f"imported (from {source})"
    assert found["train_classifier"] == found["train_affinity"] == "done"


def test_a_python_function_gives_the_cams(voc: Path, tmp_path: Path, tiny_recipe: Path) -> None:
    asked = []

    def own(image: NDArray[np.uint8], tags: tuple[str, ...]) -> NDArray[np.float32]:
        asked.append((image.shape, tags))
        return np.stack([cam(CLASSES.index(tag)) for tag in tags])

    recipe = load(tiny_recipe, voc, tmp_path / "run", workers=1)
    run = an.run(recipe, cams=own, cams_version="1", until="compute_cams")
    assert ((*SIZE, 3), ("cat", "dog")) in asked
    assert len(asked) == 4  # the image without a tag has nothing to ask
    count = len(asked)
    an.run(recipe, cams=own, cams_version="1", until="compute_cams")
    assert len(asked) == count
    assert states(run)["compute_cams"].startswith("imported (from function:")
    with pytest.raises(UserError, match=r"cams\.source was .*own 1.*is .*own 2"):
        an.run(recipe, cams=own, cams_version="2", until="compute_cams")
    shutil.rmtree(tmp_path / "run" / "cams")
    with pytest.raises(UserError, match=r"go on from Python"):
        Run.open(tmp_path / "run").go(until="compute_cams")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda image, tags: np.zeros((len(tags), 3, 3)), r"returned maps of \(1, 3, 3\)"),
        (lambda image, tags: np.full((len(tags), *SIZE), np.nan), "not finite"),
        (lambda image, tags: np.full((len(tags), *SIZE), -1.0), "below 0"),
        (lambda image, tags: np.full((len(tags), *SIZE), 1.5), "above 1"),
    ],
)
def test_a_function_that_gives_other_maps_is_named_with_the_image(
    made: Callable[..., Any], message: str, voc: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    with pytest.raises(UserError, match=rf"compute_cams, image 2007_1: .*{message}"):
        an.run(load(tiny_recipe, voc, tmp_path / "run"), cams=made)


class Runs:
    """A pickle of this would touch a file when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_crafted_file_is_refused_and_runs_nothing(
    voc: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    cams, marker = cams_folder(tmp_path / "cams", write_psa), tmp_path / "ran"
    file = cams / "2007_2.npy"
    np.save(file, np.array({11: Runs(marker)}, object))
    assert pickle.loads(pickle.dumps(Runs(tmp_path / "works"))) is None  # it would run
    assert (tmp_path / "works").exists()
    with pytest.raises(UserError, match=rf"compute_cams, image 2007_2: {file}"):
        an.run(load(tiny_recipe, voc, tmp_path / "run", **{"cams.source": f"files:{cams}"}))
    assert not marker.exists()


def with_number(folder: Path) -> None:
    np.save(folder / "2007_1.npy", np.array({20: cam(0)}, object))


def with_size(folder: Path) -> None:
    np.save(folder / "2007_1.npy", np.array({7: cam(0)[:-5]}, object))


def with_nan(folder: Path) -> None:
    np.save(folder / "2007_1.npy", np.array({7: cam(0) * np.nan}, object))


def with_another_class(folder: Path) -> None:
    np.save(folder / "2007_1.npy", np.array({7: cam(0), 11: cam(1)}, object))


def with_a_missing_file(folder: Path) -> None:
    (folder / "2007_1.npy").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_number, r"2007_1\.npy: entry 20 is no class number"),
        (with_size, r"2007_1\.npy: entry 7 is 43 x 64, the image 48 x 64"),
        (with_nan, r"2007_1\.npy: entry 7 holds values that are not finite"),
        (with_another_class, r"2007_1\.npy: holds a map of dog, which the image is not tagged"),
        (with_a_missing_file, r"cams\.source = .*1 of 4 images have no file there \(2007_1\)"),
    ],
)
def test_cams_that_do_not_fit_are_refused_at_once(
    spoil: Callable[[Path], None], message: str, voc: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    cams = cams_folder(tmp_path / "cams", write_psa)
    spoil(cams)
    with pytest.raises(UserError, match=message):
        an.run(load(tiny_recipe, voc, tmp_path / "run", **{"cams.source": f"files:{cams}"}))


def test_masks_by_other_numbers_are_refused_not_turned_into_void(
    voc: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    """The data set's own numbers, in a VOC devkit, where numbers mean VOC's twenty."""
    for name, tags in TAGS.items():
        labels = np.zeros(SIZE, np.uint8)
        labels[:9] = tags[0] + 1 if tags else 0
        write_labels(tmp_path / "masks" / f"{name}.png", labels, voc_palette())
    own = {"pseudo.source": f"files:{tmp_path / 'masks'}"}
    with pytest.raises(UserError, match=r"2007_1\.png: holds aeroplane \(1\).*cams\.classes"):
        an.run(load(tiny_recipe, voc, tmp_path / "run", **own))
    own["cams.classes"] = list(CLASSES)  # type: ignore[assignment]
    an.run(load(tiny_recipe, voc, tmp_path / "run", **own), until="propagate")
    assert np.unique(read_labels(tmp_path / "run" / "pseudo" / "2007_2.png")).tolist() == [0, 2]


def test_a_folder_that_is_not_there_is_named_before_anything_is_made(
    voc: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    for key in ("cams", "confident", "affinity", "pseudo"):
        with pytest.raises(UserError, match=rf"{key}\.source = 'files:none': no such folder"):
            an.run(load(tiny_recipe, voc, tmp_path / "run", **{f"{key}.source": "files:none"}))
    with pytest.raises(UserError, match=r"cams\.source = 'psa': a source is classifier, contrast"):
        load(tiny_recipe, voc, tmp_path / "run", **{"cams.source": "psa"})
