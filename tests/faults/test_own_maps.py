"""Maps that other programs made: what they say in silence, or say nothing at all."""

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import affinitynet as an
from affinitynet.data import Manifest, Sample, read_dataset
from affinitynet.data.cams import save_cams
from affinitynet.data.label_statistics import LabelCounts, judge_segmenter
from affinitynet.data.readings import settle_reading
from affinitynet.data.sources import find_source, read_cams, read_labels_source
from affinitynet.data.sources.regions import read_regions
from affinitynet.engine.shards import Helped
from affinitynet.errors import UserError
from affinitynet.stages import import_files

SIZE = (64, 64)
Values = Callable[[Sample], np.ndarray[Any, Any]]


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def half(sample: Sample) -> np.ndarray[Any, Any]:
    """The image's first class above, background below."""
    labels = np.zeros(SIZE, np.uint8)
    labels[:32] = sample.tags[0] + 1 if sample.tags else 0
    return labels


def black_and_white(sample: Sample) -> np.ndarray[Any, Any]:
    labels = np.zeros(SIZE, np.uint8)
    labels[:32] = 255
    return labels


def write(folder: Path, data: Path, values: Values, *roles: str) -> Path:
    folder.mkdir()
    for role in roles or ("train", "val"):
        for sample in read_dataset(data).splits[role]:
            Image.fromarray(values(sample)).save(folder / f"{sample.id}.png")
    return folder


def write_cams(folder: Path, data: Path, *roles: str) -> Path:
    folder.mkdir()
    manifest = read_dataset(data)
    for role in roles:
        for sample in manifest.splits[role]:
            maps = {manifest.classes[tag]: half(sample) / np.float32(300) for tag in sample.tags}
            np.savez(folder / f"{sample.id}.npz", **maps)
    return folder


@pytest.mark.parametrize(
    ("values", "held"),
    [
        (black_and_white, "0 and 255"),
        (lambda sample: np.zeros(SIZE, np.uint8), "0"),
        (lambda sample: np.full(SIZE, 255, np.uint8), "255"),
    ],
)
def test_masks_none_of_which_shows_a_class_are_refused(
    toy: Path, tiny_recipe: Path, tmp_path: Path, values: Values, held: str
) -> None:
    source = f"files:{write(tmp_path / 'own', toy, values)}"
    recipe = an.Recipe.load(
        tiny_recipe, data=toy, out=tmp_path / "run", **{"pseudo.source": source}
    )
    with pytest.raises(UserError, match=rf"pseudo\.source = .* 8 tagged images hold {held} only"):
        an.run(recipe, until="propagate")
    assert not list((tmp_path / "run" / "pseudo").glob("*.png"))


def test_one_mask_with_its_class_is_enough_and_the_others_are_counted(
    toy: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    first = read_dataset(toy).splits["train"][0]
    own = write(
        tmp_path / "own", toy, lambda s: half(s) if s.id == first.id else black_and_white(s)
    )
    recipe = an.Recipe.load(
        tiny_recipe, data=toy, out=tmp_path / "run", **{"pseudo.source": f"files:{own}"}
    )
    said = an.run(recipe, until="propagate").metrics("propagate")
    assert said["empty"] == {**said["empty"], "images": 8, "empty": 7}
    first_class = [line for line in said["warnings"] if "pseudo.source hold nothing of" in line]
    assert first_class == said["judgements"] != []


@pytest.mark.parametrize("orientation", [2, 3, 6])
@pytest.mark.parametrize("kind", ["labels", "regions", "cams"])
def test_a_map_that_exif_turns_is_refused(tmp_path: Path, orientation: int, kind: str) -> None:
    """The image is not: its map would lie upside down on it, and fit all the same."""
    file = tmp_path / "1" / "cat.png"
    file.parent.mkdir()
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(file, exif=turned(orientation))
    read = {
        "labels": lambda: read_labels_source(file, ("cat",), ("cat",), (0,), (8, 8)),
        "regions": lambda: read_regions(file, (8, 8)),
        "cams": lambda: read_cams(file.parent, ("cat",), ("cat",), (0,), (8, 8)),
    }
    with pytest.raises(UserError, match=r"cat\.png: its EXIF orientation turns it; save it"):
        read[kind]()


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {}), ("TIFF", {"compression": "jpeg"}), ("GIF", {}), ("BMP", {})]
)
def test_regions_are_png_whatever_the_suffix(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    file = tmp_path / "1.png"
    Image.fromarray(np.kron(np.eye(2, dtype=np.uint8), np.ones((8, 8), np.uint8))).save(
        file, format=kind, **options
    )
    with pytest.raises(UserError, match=rf"1\.png: is a {kind}, .* save it as PNG"):
        read_regions(file, (16, 16))


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_files_and_classes_are_found_in_either_form(
    tmp_path: Path, stored: Any, asked: Any
) -> None:
    there, name = (unicodedata.normalize(form, "caf\u00e9") for form in (stored, asked))
    (tmp_path / there).mkdir()
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(tmp_path / there / f"{there}.png")
    found = find_source(tmp_path, name, "cams", {})
    assert found is not None
    cams = read_cams(found, (name,), (name,), (0,), (8, 8)).cams
    assert cams.max() > 0.7


def test_images_of_val_without_maps_are_said(toy: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    source = f"files:{write_cams(tmp_path / 'own', toy, 'train')}"
    recipe = an.Recipe.load(tiny_recipe, data=toy, out=tmp_path / "run", **{"cams.source": source})
    said = an.run(recipe, until="compute_cams").metrics("compute_cams")["warnings"]
    assert said == [
        "3 of 12 images have no file for cams.source and are left out of its figures, 0009 first"
    ]


@pytest.mark.parametrize("key", ["confident.regions", "pseudo.regions"])
def test_regions_that_are_none_are_refused(
    toy: Path, tiny_recipe: Path, tmp_path: Path, key: str
) -> None:
    own = write(tmp_path / "regions", toy, lambda sample: np.zeros(SIZE, np.uint8))
    source = f"files:{write_cams(tmp_path / 'own', toy, 'train', 'val')}"
    settings = {"cams.source": source, key: f"files:{own}"}
    settings |= {"affinity.source": "none"} if key.startswith("pseudo") else {}
    recipe = an.Recipe.load(tiny_recipe, data=toy, out=tmp_path / "run", **settings)
    with pytest.raises(UserError, match=rf"{key} = .*: all 9 files are 0 everywhere"):
        an.run(recipe, until="propagate" if key.startswith("pseudo") else "mine_confident")


@pytest.fixture
def half_turned(tiny_recipe: Path, tmp_path: Path) -> Callable[[str], an.Recipe]:
    """Four images, two of them turned by EXIF, whose files hold a map of a class more."""
    data, own = tmp_path / "data", tmp_path / "own"
    (data / "images").mkdir(parents=True)
    own.mkdir()
    for number in range(4):
        pixels = Image.new("RGB", SIZE, (number, 0, 0))
        file = data / "images" / f"{number}.png"
        pixels.save(file, exif=turned(3 if number in (1, 2) else 1))
        half = np.full(SIZE, 0.5, np.float32)
        np.savez(own / f"{number}.npz", **{"ab"[number % 2]: half, "c": half})
    rows = "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(4))
    (data / "labels.csv").write_text(f"image,labels\n{rows}", encoding="utf-8")
    settings = {"cams.source": f"files:{own}", "cams.classes": ["a", "b", "c"], "workers": 1}
    return lambda name: an.Recipe.load(tiny_recipe, data=data, out=tmp_path / name, **settings)


def say(recipe: an.Recipe) -> Any:
    return an.run(recipe, until="compute_cams").metrics("compute_cams")["warnings"]


def test_maps_of_images_that_exif_turns_are_warned_of(
    half_turned: Callable[[str], an.Recipe],
) -> None:
    """Programs that look at no EXIF make maps that fit the image as it is stored."""
    left_out, line = say(half_turned("run"))
    assert left_out == "4 maps of c, a class that the data set lacks, were left out"
    assert line.partition(":")[0] == "2 images are turned by EXIF (1 first)"


@pytest.mark.parametrize("helped", [False, True])
def test_what_is_said_of_maps_is_of_all_whoever_brought_them_in(
    half_turned: Callable[[str], an.Recipe], monkeypatch: pytest.MonkeyPatch, helped: bool
) -> None:
    expected, recipe = say(half_turned("once")), half_turned("run")

    def save(*given: Any) -> None:
        if given[0].stem == "2":
            raise OSError("killed")
        save_cams(*given)

    with monkeypatch.context() as patch:
        patch.setattr(import_files, "save_cams", save)
        with pytest.raises(OSError, match="killed"):
            an.run(recipe, until="compute_cams")
    if helped:  # by another process, which made the other half
        context = replace(an.Run.open(recipe.out).context, leads=False)
        with pytest.raises(Helped):
            import_files.work(context, context.stage("compute_cams"))
    there = len(list((recipe.out / "cams").glob("*.npz")))
    assert there == 4 if helped else 0 < there < 4
    assert say(recipe) == expected


def test_masks_that_are_neutral_everywhere_teach_nothing(home: Path) -> None:
    for file in (home / "run" / "pseudo").glob("*.png"):
        Image.fromarray(np.full(SIZE, 255, np.uint8)).save(file)
    (home / "run" / "pseudo" / "contents.json").unlink()  # else the change is noticed
    recipe = an.Recipe.load(home / "tiny.yaml", data=home / "data", out=home / "run")
    with pytest.raises(UserError, match=r"train_segmenter: all masks in pseudo/ are neutral"):
        an.run(recipe, redo="train_segmenter")


def test_a_segmenter_that_learns_background_alone_is_told() -> None:
    for shown in ({}, {0: 9}):
        said = judge_segmenter(0.0, 0.0, LabelCounts(9, shown), LabelCounts(3, {0: 3}), ("cat",))
        assert said[0].startswith("none of the 9 masks that the segmenter learns from shows a clas")
    assert judge_segmenter(0.1, 0.6, LabelCounts(9, {1: 1}), LabelCounts(3, {0: 3}), ("cat",)) == []


@pytest.mark.parametrize("run", [None, "other"])
def test_networks_of_bytes_take_no_deeper_images(tmp_path: Path, run: str | None) -> None:
    """Masks of new images by a run's networks: they would be stretched as none ever was."""
    file = tmp_path / "1.png"
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 60).save(file)
    manifest = Manifest(tmp_path, ("cat",), {"train": (Sample("1", file, (0,)),)})
    recipe = an.Recipe.model_validate({"networks": {"run": run}, "out": tmp_path / "run"})
    if run is None:
        assert settle_reading(recipe, manifest)[0].backbone.input is not None
        return
    with pytest.raises(UserError, match=r"become 0 to 255 .* the networks of other learned from 8"):
        settle_reading(recipe, manifest)
