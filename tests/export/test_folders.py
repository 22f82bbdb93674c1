"""Exports hold what the run holds, whole or not at all, and touch nothing else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from affinitynet.data import (
    Manifest,
    Sample,
    load_image,
    read_dataset,
    read_labels,
    voc_palette,
    write_labels,
)
from affinitynet.errors import UserError
from affinitynet.export import export_run

UPRIGHT, GREY, TURNED, PNG = "a_upright", "b_grey", "c_turned", "deep/d_png"
IDS = (UPRIGHT, GREY, TURNED, PNG)
CLASSES = ("kitten", "puppy")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run over images of four kinds; the val image has no mask."""
    data, run = tmp_path / "data", tmp_path / "run"
    (data / "deep").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    photo, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    photo.save(data / f"{UPRIGHT}.jpg")
    photo.convert("L").save(data / f"{GREY}.jpeg")
    photo.save(data / f"{TURNED}.jpg", exif=exif)
    photo.save(data / f"{PNG}.png")
    photo.save(data / "v.png")
    images = (f"{UPRIGHT}.jpg", f"{GREY}.jpeg", f"{TURNED}.jpg", f"{PNG}.png")
    train = tuple(Sample(i, data / name, (0,)) for i, name in zip(IDS, images, strict=True))
    splits = {"train": train, "part": train[:2], "val": (Sample("v", data / "v.png", ()),)}
    manifest = Manifest(data, CLASSES, splits)
    for folder in ("pseudo", "confident"):
        for number, sample in enumerate(train):
            labels = np.zeros(load_image(sample.image).shape[:2], dtype=np.uint8)
            labels[1, : number + 1], labels[2] = 1 + number % 2, 255
            write_labels(run / folder / f"{sample.id}.png", labels, voc_palette())
        (run / folder / "stage.json").write_text("{}", encoding="utf-8")
    manifest.write(run)
    (run / "recipe.yaml").write_text("{}", encoding="utf-8")
    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_voc_layout(run, tmp_path):
    out = export_run(run, tmp_path / "new" / "devkit")
    assert out == tmp_path / "new" / "devkit"
    assert set(contents(out)) == {
        *(f"JPEGImages/{i}.jpg" for i in IDS),
        *(f"SegmentationClass/{i}.png" for i in IDS),
        "ImageSets/Segmentation/train.txt",
        "ImageSets/Segmentation/part.txt",
        "classes.txt",
        "labelmap.txt",
    }
    lists = out / "ImageSets" / "Segmentation"
    assert (lists / "train.txt").read_text(encoding="utf-8").splitlines() == list(IDS)
    assert (lists / "part.txt").read_text(encoding="utf-8").splitlines() == list(IDS[:2])
    names = (out / "classes.txt").read_text(encoding="utf-8").splitlines()
    assert names == ["background", "kitten", "puppy"]
    assert [p.name for p in out.parent.iterdir()] == ["devkit"]


def test_masks_are_the_runs_own_palette_files(run, tmp_path):
    out = export_run(run, tmp_path / "out")
    for name in IDS:
        mask = out / "SegmentationClass" / f"{name}.png"
        assert mask.read_bytes() == (run / "pseudo" / f"{name}.png").read_bytes()
        with Image.open(mask) as image:
            assert image.mode == "P"
            assert image.getpalette("RGB") == voc_palette()
        # Whoever ignores EXIF still gets an image of the mask's size.
        with Image.open(out / "JPEGImages" / f"{name}.jpg") as image:
            assert image.format == "JPEG"
            assert image.size == read_labels(mask).shape[::-1]


def test_upright_jpegs_are_copied_others_written_upright(run, tmp_path):
    out = export_run(run, tmp_path / "out") / "JPEGImages"
    data = tmp_path / "data"
    assert (out / f"{UPRIGHT}.jpg").read_bytes() == (data / f"{UPRIGHT}.jpg").read_bytes()
    assert (out / f"{GREY}.jpg").read_bytes() == (data / f"{GREY}.jpeg").read_bytes()
    assert not (out / f"{UPRIGHT}.jpg").samefile(data / f"{UPRIGHT}.jpg")
    with Image.open(out / f"{TURNED}.jpg") as image:
        assert 0x0112 not in image.getexif()
    shown = load_image(data / f"{TURNED}.jpg").astype(int)
    assert np.abs(load_image(out / f"{TURNED}.jpg") - shown).mean() < 6


def test_our_own_reader_takes_it_back(run, tmp_path):
    out = export_run(run, tmp_path / "out")
    manifest = read_dataset(out, format="voc", classes=CLASSES, tags="masks")
    assert {s.id: s.tags for s in manifest.split("part")} == {UPRIGHT: (0,), GREY: (1,)}


def test_png_holds_masks_alone(run, tmp_path):
    out = export_run(run, tmp_path / "out", format="png", stage="confident")
    expected = {f"{i}.png": (run / "confident" / f"{i}.png").read_bytes() for i in IDS}
    found = contents(out)
    assert found.pop("classes.txt") == b"background\nkitten\npuppy\n"
    assert found == expected


def test_run_and_data_stay_as_they_were(run, tmp_path):
    before = contents(run), contents(tmp_path / "data")
    export_run(run, tmp_path / "out")
    assert (contents(run), contents(tmp_path / "data")) == before


def test_full_folder_is_refused_and_empty_one_taken(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="holds files already"):
        export_run(run, out)
    assert contents(out) == {"precious": b"mine"}
    with pytest.raises(UserError, match="holds files already"):
        export_run(run, out / "precious")
    (out / "precious").unlink()
    export_run(run, out, format="png")
    assert "classes.txt" in contents(out)


def test_failure_leaves_nothing(run, tmp_path):
    (tmp_path / "data" / f"{PNG}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="d_png"):
        export_run(run, tmp_path / "here" / "out")
    assert not (tmp_path / "here").exists()


def test_missing_and_broken_masks_are_refused_or_named(run, tmp_path, capsys):
    (run / "pseudo" / f"{GREY}.png").unlink()
    (run / "pseudo" / f"{TURNED}.png").write_bytes(b"no mask")
    strange = run / "pseudo" / f"{UPRIGHT}.png"
    write_labels(strange, np.full((6, 9), 3, np.uint8), voc_palette())
    for format in ("voc", "coco", "png"):
        with pytest.raises(UserError, match=r"3 of 4 pseudo masks can't be exported: .*--partial"):
            export_run(run, tmp_path / "here" / "out", format=format)
    assert not (tmp_path / "here").exists()
    out = export_run(run, tmp_path / "out", format="png", partial=True)
    assert set(contents(out)) == {f"{PNG}.png", "classes.txt"}
    said = capsys.readouterr().err
    assert "left out 3 of 4 pseudo masks: a_upright (" in said
    assert "b_grey (its mask is missing)" in said
    assert "has the label 3, which is no class" in said


@pytest.mark.parametrize("format", ["voc", "png"])
def test_a_mask_of_another_size_than_its_image_is_refused(run, tmp_path, format):
    write_labels(run / "pseudo" / f"{GREY}.png", np.zeros((5, 9), np.uint8), voc_palette())
    with pytest.raises(UserError, match=r"b_grey \(the mask is 5 x 9, but .* is 6 x 9\)"):
        export_run(run, tmp_path / "out", format=format)


def test_partial_takes_what_an_unfinished_stage_has_made(run, tmp_path):
    (run / "pseudo" / "stage.json").unlink()
    out = export_run(run, tmp_path / "out", format="png", partial=True)
    assert len(list(out.rglob("*.png"))) == 4


def test_void_is_kept_made_background_or_refused(run, tmp_path):
    def values(void: str) -> list[int]:
        out = export_run(run, tmp_path / void, format="png", void=void)
        return np.unique(read_labels(out / f"{UPRIGHT}.png")).tolist()

    assert values("auto") == values("ignore") == [0, 1, 255]
    assert values("background") == [0, 1]
    with pytest.raises(UserError, match=r"4 of 4 masks have void pixels, the first is that of a_"):
        values("error")
    with pytest.raises(UserError, match="yolo-seg has no place for void"):
        export_run(run, tmp_path / "yolo", format="yolo-seg", void="ignore")


def test_links_do_not_lead_out_of_the_run(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    mask = run / "pseudo" / f"{PNG}.png"
    mask.rename(tmp_path / "elsewhere" / mask.name)
    mask.parent.rmdir()
    mask.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="symbolic link"):
        export_run(run, tmp_path / "out")


def test_unfinished_stages_are_refused(run, tmp_path):
    (run / "pseudo" / "stage.json").unlink()
    with pytest.raises(UserError, match=r"pseudo masks are not finished \(4 are there\)"):
        export_run(run, tmp_path / "out")
    with pytest.raises(UserError, match=r"predictions masks are not finished \(0 are there\)"):
        export_run(run, tmp_path / "out", stage="predictions")
    with pytest.raises(UserError, match="no run folder"):
        export_run(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_choices_name_the_nearest(run, tmp_path):
    with pytest.raises(UserError, match=r"stage = 'psuedo'.*did you mean pseudo\?"):
        export_run(run, tmp_path / "out", stage="psuedo")
    with pytest.raises(UserError, match=r"format = 'zip'.*choose from voc, png"):
        export_run(run, tmp_path / "out", format="zip")
    with pytest.raises(UserError, match="only coco and labelme have it"):
        export_run(run, tmp_path / "out", format="cvat", polygons=True)
