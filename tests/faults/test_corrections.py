"""Corrections that would count for nothing, or say what nobody meant."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import affinitynet as an
from affinitynet.data import Manifest, Sample, voc_palette, write_labels
from affinitynet.data.corrections import check_corrections, read_correction, write_correction
from affinitynet.errors import UserError

BOX = np.zeros((30, 40), np.uint8)
BOX[5:9, 5:9] = 2


@pytest.fixture
def run(pictures, tmp_path):
    """A run folder of a/1 and 2, each with a sound correction."""
    pictures("data/a/1.png", "data/2.png")
    data, folder = tmp_path / "data", tmp_path / "run"
    samples = (Sample("a/1", data / "a/1.png", (0,)), Sample("2", data / "2.png", (1,)))
    folder.mkdir()
    manifest = Manifest(data, ("cat", "dog"), {"train": samples})
    manifest.write(folder)
    for sample in samples:
        write_correction(folder, manifest, sample, BOX)
    check_corrections(folder, manifest)
    return folder


def check(run: Path) -> None:
    check_corrections(run, Manifest.of_run(run))


@pytest.mark.parametrize("name", ["1.png", "a/1.PNG", "2.jpg", "2.tif", "a/2.png", "3.png"])
def test_a_correction_of_no_image_is_named(run, name):
    file = run / "corrections" / name
    Image.fromarray(BOX).save(file)
    with pytest.raises(UserError, match=f"{name}: is the correction of no image; name it"):
        check(run)


def test_what_is_no_picture_is_passed_over(run):
    (run / "corrections" / "notes.txt").write_text("see 2")
    (run / "corrections" / ".2.png").write_text("half written")
    check(run)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (BOX.T, "is 30 x 40, its image 40 x 30"),
        (BOX[:-1], "is 40 x 29, its image 40 x 30"),
        (BOX * 2, "holds the label 4"),
        (BOX // 2 * 255, "is black and white"),
        (BOX * 0 + 255, "is black and white"),
    ],
)
def test_a_correction_that_does_not_fit_is_named_before_the_run(run, labels, said):
    Image.fromarray(np.ascontiguousarray(labels)).save(run / "corrections" / "2.png")
    with pytest.raises(UserError, match=rf"2\.png: {said}"):
        check(run)


def test_a_turned_one_is_refused(run):
    exif = Image.Exif()
    exif[274] = 3
    Image.fromarray(BOX).save(run / "corrections" / "2.png", exif=exif)
    with pytest.raises(UserError, match="EXIF orientation turns it"):
        check(run)
    with pytest.raises(UserError, match="EXIF orientation turns it"):
        an.import_corrections(run, run / "corrections" / "2.png", replace=True)


def test_a_broken_one_is_named_before_the_run(run):
    file = run / "corrections" / "2.png"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(UserError, match=r"2\.png"):
        check(run)


def test_strokes_of_background_are_a_correction(run):
    """0 and 255 mean something where a palette shows that the values are labels."""
    write_labels(run / "corrections" / "2.png", BOX // 2 * 255, voc_palette())
    check(run)
    assert np.array_equal(read_correction(run, "2", 2), BOX // 2 * 255)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_black_and_white_masks_are_not_brought_in(run, tmp_path, mode):
    file = tmp_path / "drawn" / "2.png"
    file.parent.mkdir()
    Image.fromarray(BOX // 2 * 255).convert(mode).save(file)
    before = (run / "corrections" / "2.png").read_bytes()
    with pytest.raises(UserError, match=r"2\.png: is (black and white|a color image)"):
        an.import_corrections(run, tmp_path / "drawn", replace=True)
    assert (run / "corrections" / "2.png").read_bytes() == before


@pytest.mark.parametrize("linked", ["corrections", "corrections/a"])
def test_no_correction_is_written_through_a_link(run, tmp_path, linked):
    elsewhere = tmp_path / "elsewhere"
    (run / linked).rename(elsewhere)
    (run / linked).symlink_to(elsewhere)
    manifest = Manifest.of_run(run)
    kept = {file: file.read_bytes() for file in elsewhere.rglob("*.png")}
    with pytest.raises(UserError, match="through a symbolic link"):
        write_correction(run, manifest, manifest.samples[0], BOX // 2)
    assert {file: file.read_bytes() for file in elsewhere.rglob("*.png")} == kept
