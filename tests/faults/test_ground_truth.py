"""Ground truth that is none is found by `check`, and by a run before its first stage."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from affinitynet.data import (
    Manifest,
    Sample,
    check_dataset,
    load_truth,
    read_dataset,
    read_labels,
    voc_palette,
    write_labels,
)
from affinitynet.data import check as checks
from affinitynet.errors import UserError
from affinitynet.preflight import TRUTH, check_classes, check_truth
from affinitynet.run_folder.recipe import Recipe

TODO = {"train_classifier", "evaluate"}


def masked(table, masks: dict[str, np.ndarray | None]) -> Path:
    rows = "".join(f"{name}.png,{'a' if n else ''}\n" for n, name in enumerate(masks))
    root = table(f"image,labels\n{rows}", *(f"{name}.png" for name in masks))
    (root / "masks").mkdir()
    for name, mask in masks.items():
        if mask is not None:
            Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / f"{name}.png")
    return root


def square(value: int) -> np.ndarray:
    mask = np.zeros((30, 40))
    mask[5:20, 5:20] = value
    return mask


def preflight(root: Path) -> None:
    recipe = Recipe(data=root, out=root / "run")
    check_truth(recipe, read_dataset(root), TODO)


def test_masks_of_0_and_255_are_refused(table):
    root = masked(table, {"1": square(0), "2": square(255), "3": square(255)})
    (problem,) = check_dataset(read_dataset(root)).problems
    assert "hold 0 and 255 only" in problem.message
    with pytest.raises(UserError, match=r"0 and 255 only .*write the class's number"):
        preflight(root)


def test_one_mask_with_its_class_is_enough_to_believe_in_void(table):
    root = masked(table, {"1": square(0), "2": square(1), "3": square(255)})
    assert not check_dataset(read_dataset(root)).problems
    preflight(root)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:60]),
        lambda path: Image.fromarray(square(7).astype(np.uint8)).save(path),
        lambda path: Image.new("L", (30, 40)).save(path),
        lambda path: path.write_bytes(b""),
        lambda path: Image.new("RGB", (40, 30), "white").save(path),
    ],
    ids=["cut off", "no such class", "another size", "empty", "colors"],
)
def test_a_bad_mask_is_found_before_the_first_stage(table, spoil):
    root = masked(table, {"1": square(0), "2": square(1), "3": square(1)})
    spoil(root / "masks" / "3.png")
    with pytest.raises(UserError, match=r"image 3: .*masks/3\.png: .* or take the mask away"):
        preflight(root)
    (root / "masks" / "3.png").unlink()
    preflight(root)


def test_truth_is_read_once_for_each_state_of_it(table, monkeypatch):
    root = masked(table, {"1": square(0), "2": square(1), "3": square(1)})
    read = []
    real = checks.inspect_truth
    monkeypatch.setattr(checks, "inspect_truth", lambda *a: read.append(a[1].id) or real(*a))
    preflight(root)
    preflight(root)
    assert sorted(read) == ["1", "2", "3"]
    Image.fromarray(square(0).astype(np.uint8)).save(root / "masks" / "2.png")
    preflight(root)
    assert len(read) == 6
    (root / "run" / TRUTH).write_text("{}")
    preflight(root)
    assert len(read) == 9


def test_images_without_a_mask_are_said(table, capsys):
    root = masked(table, {"1": square(0), "2": square(1), "3": None})
    sentence = "1 of the 3 images of train have no mask and are left out of its figures, 3 first"
    assert sentence in check_dataset(read_dataset(root)).warnings
    preflight(root)
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("stages", [{"train_classifier"}, {"train_classifier", "evaluate"}])
def test_one_class_in_every_image_is_refused_before_it_is_trained(table, stages):
    manifest = read_dataset(table("image,labels\n1.png,a\n2.png,a\n3.png,a\n"))
    with pytest.raises(UserError, match="only class is 'a'"):
        check_classes(manifest, stages)
    check_classes(manifest, {"evaluate"})  # CAMs came from elsewhere


def turned(path: Path, size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("L", size, 1).save(path, exif=exif)


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_masks_turned_by_exif_need_images_that_are(tmp_path, orientation):
    turned(tmp_path / "mask.png", (40, 30), orientation)
    Image.new("RGB", (40, 30)).save(tmp_path / "plain.png")
    turned(tmp_path / "turned.png", (40, 30), orientation)
    manifest = Manifest(tmp_path, ("a",), {"train": (Sample("1", tmp_path / "turned.png", (0,)),)})
    with pytest.raises(UserError, match=r"its EXIF orientation turns it, but its image plain\.png"):
        load_truth(manifest, Sample("x", tmp_path / "plain.png", (0,), tmp_path / "mask.png"))
    truth = load_truth(manifest, Sample("x", tmp_path / "turned.png", (0,), tmp_path / "mask.png"))
    assert truth.shape == ((40, 30) if orientation > 4 else (30, 40))


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_turned_images_with_masks_that_are_not_are_warned_of(tmp_path, orientation):
    turned(tmp_path / "1.png", (40, 30), orientation)
    Image.new("L", (40, 30), 1).save(tmp_path / "m.png")
    sample = Sample("1", tmp_path / "1.png", (0,), tmp_path / "m.png")
    report = check_dataset(Manifest(tmp_path, ("a", "b"), {"train": (sample,)}))
    assert any("turned by EXIF and their masks are not" in w for w in report.warnings)


@pytest.mark.parametrize(("kind", "options"), [("AVIF", {}), ("JPEG2000", {}), ("ICO", {})])
def test_other_formats_in_disguise_are_no_masks(tmp_path, kind, options):
    try:
        Image.new("L", (32, 32), 1).save(tmp_path / "m.png", format=kind, **options)
    except (OSError, KeyError):
        pytest.skip(f"Pillow was built without {kind}")
    with pytest.raises(UserError, match=r"m\.png: this image can't be decoded"):
        read_labels(tmp_path / "m.png")


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("WEBP", {}), ("TIFF", {"compression": "jpeg"}), ("MPO", {})],
)
def test_lossy_formats_in_disguise_are_no_masks(tmp_path, kind, options):
    Image.new("L" if kind != "MPO" else "RGB", (32, 32), 1).save(
        tmp_path / "m.png", format=kind, **options
    )
    with pytest.raises(UserError, match=r"m\.png: is a .*, which blurs labels"):
        read_labels(tmp_path / "m.png")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_lossless_tiffs_are_masks(tmp_path, compression):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(values).save(tmp_path / "m.tif", compression=compression)
    np.testing.assert_array_equal(read_labels(tmp_path / "m.tif"), values)


def small_tiff(path: Path, values: list[int], bits: int, photometric: int) -> None:
    """Write a row of gray values with 1, 2 or 4 bits as TIFF, which Pillow does not (TIFF 6)."""
    row = np.array(values, np.uint8).reshape(-1, 1)
    data = np.packbits(np.unpackbits(row, axis=1)[:, 8 - bits :].ravel()).tobytes()
    tags = [(256, len(values)), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 122)]
    tags += [(277, 1), (278, 1), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_tiffs_of_few_bits_keep_their_values(tmp_path, bits):
    values = list(range(2**bits))
    small_tiff(tmp_path / "m.tif", values, bits, 1)
    assert read_labels(tmp_path / "m.tif").tolist() == [values]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_tiffs_where_0_is_white_are_refused(tmp_path, bits):
    small_tiff(tmp_path / "m.tif", [0, 1, 2, 3], bits, 0)
    with pytest.raises(UserError, match="is a TIFF where 0 is white"):
        read_labels(tmp_path / "m.tif")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("highest", [3, 21, 256])
def test_masks_in_vocs_colors_are_read(tmp_path, mode, highest):
    labels = np.random.default_rng(0).integers(0, highest, (9, 11))
    labels[0, 0] = 255
    write_labels(tmp_path / "m.png", labels, voc_palette())
    Image.open(tmp_path / "m.png").convert(mode).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "rgb.png"), labels)


@pytest.mark.parametrize("color", [(255, 255, 255), (128, 0, 1), (0, 0, 1), (200, 0, 0)])
def test_other_colors_are_named(tmp_path, color):
    Image.new("RGB", (3, 3), color).save(tmp_path / "m.png")
    with pytest.raises(UserError, match="the color #{:02x}{:02x}{:02x}".format(*color)):
        read_labels(tmp_path / "m.png")


def test_long_masks_in_vocs_colors_are_read_strip_by_strip(tmp_path):
    """A mask of 75 million pixels in a few kilobytes took over 3 GB at once."""
    pixels = np.zeros((1_200_000, 1, 3), np.uint8)
    pixels[-1] = (128, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    labels = read_labels(tmp_path / "m.png")
    assert labels.shape == (1_200_000, 1)
    assert (labels[:-1].max(), labels[-1]) == (0, 1)
    pixels[-1] = (0, 0, 1)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    with pytest.raises(UserError, match="the color #000001"):
        read_labels(tmp_path / "m.png")


def test_problems_of_the_whole_set_name_no_image(table, capsys):
    from affinitynet.cli import main

    root = masked(table, {"1": square(0), "2": square(255)})
    with pytest.raises(SystemExit) as ended:
        main(["check", str(root)])
    assert ended.value.code == 2
    assert "1. the masks hold 0 and 255 only" in capsys.readouterr().out.replace("\n", " ")
    with pytest.raises(SystemExit):
        main(["check", str(root), "--json"])
    assert json.loads(capsys.readouterr().out)["problems"][0]["id"] == ""
