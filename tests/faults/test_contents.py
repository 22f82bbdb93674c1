"""An image replaced, a mask edited or deleted by hand: noticed, and never mixed."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

import affinitynet as an
from affinitynet.data.manifest import Manifest
from affinitynet.errors import UserError
from affinitynet.pipeline import Run
from affinitynet.stages.evaluate import measure


def recipe(home: Path, **settings: Any) -> an.Recipe:
    return an.Recipe.load(home / "tiny.yaml", data=home / "data", out=home / "run", **settings)


def states(home: Path) -> dict[str, str]:
    return {status.name: str(status) for status in Run.create(recipe(home)).status(verify=True)}


def mirror(file: Path) -> None:
    """Replace a picture by another of its size."""
    with Image.open(file) as picture:
        mirrored = ImageOps.mirror(picture)
    mirrored.save(file)
    os.utime(file, ns=(1, 1))


def edit(file: Path) -> None:
    """Change one pixel of a mask."""
    with Image.open(file) as picture:
        picture.load()
    picture.putpixel((3, 3), 1 - min(1, int(picture.getpixel((3, 3)) or 0)))
    picture.save(file)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("left", ["all", "propagate"])
def test_an_image_replaced_by_one_of_its_size_is_noticed(home: Path, split: str, left: str) -> None:
    if left == "propagate":  # the run is only half done
        for folder in ("pseudo", "walk", "segmenter", "predictions", "evaluation"):
            shutil.rmtree(home / "run" / folder)
    sample = Manifest.of_run(home / "run").split(split)[1]
    mirror(sample.image)
    first = {"train": "train_classifier", "val": "compute_cams"}[split]  # that reads it
    said = f"these images were replaced since {first} began: {sample.id};"
    with pytest.raises(UserError, match=rf"{said}.*--redo {first}$"):
        an.run(recipe(home))
    assert f"(these images were replaced: {sample.id})" in states(home)["compute_cams"]
    an.run(recipe(home), redo=first)
    assert set(states(home).values()) == {"done"}


def test_a_run_to_an_earlier_stage_forgets_no_replaced_image(home: Path) -> None:
    later = {"cams.splits": ["train"]}  # so that only the last two stages see val
    an.run(recipe(home, **later), redo="compute_cams")
    mirror(Manifest.of_run(home / "run").split("val")[1].image)
    for until in ("propagate", None):
        with pytest.raises(UserError, match="replaced since train_segmenter began"):
            an.run(recipe(home, **later), until=until)


def test_figures_of_edited_masks_are_not_kept_as_the_runs_own(home: Path) -> None:
    edit(sorted((home / "run" / "pseudo").glob("*.png"))[0])
    before = (home / "run" / "evaluation" / "figures.json").read_bytes()
    with pytest.raises(UserError, match="changed since propagate made them"):
        an.evaluate_run(home / "run")
    assert (home / "run" / "evaluation" / "figures.json").read_bytes() == before


def test_another_val_that_the_segmenter_has_not_seen_is_said(home: Path) -> None:
    """Its training does not depend on val, so that it is not stale."""
    for file in (home / "run" / "predictions").glob("*.png"):
        file.unlink()
    rows, warnings = measure(Run.open(home / "run").context)
    assert "segmenter" not in {row["stage"] for row in rows}
    said = "predictions holds 0 of 3 files of val: not measured; --redo train_segmenter makes them"
    assert warnings == [said]


def test_an_image_may_be_mended_that_no_stage_has_read(home: Path) -> None:
    for folder in (home / "run").iterdir():
        if folder.is_dir() and folder.name != "classifier":
            shutil.rmtree(folder)
    sample = Manifest.of_run(home / "run").split("val")[1]
    mirror(sample.image)
    an.run(recipe(home), until="compute_cams")
    assert states(home)["compute_cams"] == "done"


@pytest.mark.parametrize(
    ("folder", "stage"),
    [
        ("confident", "mine_confident"),
        ("pseudo", "propagate"),
        ("walk", "propagate"),
        ("predictions", "train_segmenter"),
    ],
)
@pytest.mark.parametrize("how", ["edited", "deleted"])
def test_a_mask_changed_by_hand_is_noticed(home: Path, folder: str, stage: str, how: str) -> None:
    split = "val" if folder == "predictions" else "train"
    mask = home / "run" / folder / f"{Manifest.of_run(home / 'run').split(split)[1].id}.png"
    before = mask.read_bytes()
    edit(mask) if how == "edited" else mask.unlink()
    with pytest.raises(UserError, match=rf"changed since {stage} made them: {folder}/.*--redo"):
        an.run(recipe(home))
    assert states(home)[stage].startswith("stale (")
    an.run(recipe(home), until=stage, redo=stage)
    assert mask.read_bytes() == before


def test_what_was_only_copied_or_touched_is_the_same(home: Path) -> None:
    for file in (*(home / "data" / "images").iterdir(), *(home / "run" / "pseudo").glob("*.png")):
        os.utime(file, ns=(1, 1))
    assert set(states(home).values()) == {"done"}
    an.run(recipe(home))


def test_a_run_of_a_version_without_these_records_goes_on(home: Path) -> None:
    (home / "run" / "images.json").unlink()
    for file in (home / "run").rglob("contents.json"):
        file.unlink()
    an.run(recipe(home))
    assert (home / "run" / "images.json").is_file()


@pytest.mark.parametrize(
    ("folder", "stage"),
    [("cams", "compute_cams"), ("scores", "propagate"), ("affinities", "propagate")],
)
def test_maps_changed_by_hand_are_noticed(home: Path, folder: str, stage: str) -> None:
    files = sorted((home / "run" / folder).glob("*.npz"))
    shutil.copy(files[0], files[1])  # another image's
    with pytest.raises(UserError, match=rf"changed since {stage} made them: {folder}/.*--redo"):
        an.run(recipe(home))
    assert states(home)[stage].startswith("stale (changed since they were made")


def test_what_is_only_kept_may_be_deleted(home: Path) -> None:
    for folder in ("scores", "affinities"):
        shutil.rmtree(home / "run" / folder)
    an.run(recipe(home))
