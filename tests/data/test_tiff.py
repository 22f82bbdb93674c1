"""TIFFs beyond 8-bit RGB: channels, pages, depth; and how a data set's values become bytes."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from affinitynet.channels import three_channels
from affinitynet.data import Manifest, Sample, check_dataset, load_image, load_picture
from affinitynet.data.images import allow_pixels, read_orientation, read_size
from affinitynet.data.readings import describe, find_reading, kind_of, load_read, to_bytes
from affinitynet.data.tiff import read_head, read_tiff
from affinitynet.errors import UserError
from affinitynet.run_folder.settings_base import InputSettings

needs_tifffile = pytest.mark.skipif(
    importlib.util.find_spec("tifffile") is None, reason="the extra tiff is not installed"
)
GENERATOR = np.random.default_rng(0)


def values(*shape: int, most: int = 65535) -> np.ndarray[Any, Any]:
    return GENERATOR.integers(0, most, shape, dtype=np.uint16, endpoint=True)


def write(file: Path, array: np.ndarray[Any, Any], **options: Any) -> Path:
    import tifffile

    tifffile.imwrite(file, array, **options)
    return file


def samples(*files: Path) -> list[Sample]:
    return [Sample(file.stem, file, ()) for file in files]


def manifest(root: Path, *files: Path) -> Manifest:
    return Manifest(root, ("cat",), {"train": tuple(samples(*files))})


FIVE = {"photometric": "minisblack", "planarconfig": "contig"}


@needs_tifffile
@pytest.mark.parametrize(
    ("shape", "options", "order"),
    [
        ((20, 30), {}, (0, 1, None)),
        ((20, 30, 5), FIVE, (0, 1, 2)),
        ((5, 20, 30), {"photometric": "minisblack", "planarconfig": "separate"}, (1, 2, 0)),
        ((20, 30, 3), {"photometric": "rgb", "compression": "zlib"}, (0, 1, 2)),
        ((20, 30, 5), {**FIVE, "compression": "lzw", "predictor": True}, (0, 1, 2)),
        ((20, 30, 5), {**FIVE, "compression": "zstd", "tile": (16, 16)}, (0, 1, 2)),
        ((20, 30), {"bigtiff": True, "byteorder": ">"}, (0, 1, None)),
        ((3, 20, 30), {"imagej": True, "metadata": {"axes": "CYX"}}, (1, 2, 0)),
        ((3, 20, 30), {"ome": True, "metadata": {"axes": "CYX"}}, (1, 2, 0)),
    ],
)
def test_values_are_read_as_they_were_written(tmp_path, shape, options, order):
    array = values(*shape)
    file = write(tmp_path / "x.tif", array, **options)
    expected = array[..., None] if order[2] is None else array.transpose(order)
    np.testing.assert_array_equal(read_tiff(file, None, None), expected)
    assert kind_of(file)[0] == expected.shape[2]
    assert read_size(file) == (20, 30)


@needs_tifffile
@pytest.mark.parametrize("truncate", [False, True])
def test_of_a_stack_with_channels_a_page_has_its_channels(tmp_path, truncate):
    array = values(4, 2, 20, 30)  # ImageJ's z, channel, y, x
    options: dict[str, Any] = {"imagej": True, "metadata": {"axes": "ZCYX"}, "truncate": truncate}
    file = write(tmp_path / "x.tif", array, **options)
    with pytest.raises(UserError, match=r"x\.tif: has 4 pages, .*dataset\.page, 0 to 3"):
        kind_of(file)
    assert kind_of(file, 2) == (2, False, True)
    np.testing.assert_array_equal(read_tiff(file, 2, None), array[2].transpose(1, 2, 0))
    with pytest.raises(UserError, match=r"dataset\.page is 4, but it has 4 pages"):
        read_tiff(file, 4, None)


def test_pages_of_plain_tiffs_are_chosen_without_the_extra(tmp_path):
    pages = [Image.new("RGB", (6, 4), color) for color in ("red", "lime", "blue")]
    file = tmp_path / "x.tif"
    pages[0].save(file, save_all=True, append_images=pages[1:])
    for refused in (load_image, kind_of):
        with pytest.raises(UserError, match=r"has 3 pages, and one is needed; .* 0 to 2"):
            refused(file)
    reading = find_reading(samples(file), page=1)
    assert reading == InputSettings(page=1)
    assert load_image(file, reading)[0, 0].tolist() == [0, 255, 0]
    with pytest.raises(UserError, match=r"dataset\.page is 3, but it has 3 pages"):
        load_image(file, InputSettings(page=3))


@needs_tifffile
def test_smaller_copies_are_no_pages(tmp_path):
    import tifffile

    file = tmp_path / "x.tif"
    with tifffile.TiffWriter(file) as writer:
        writer.write(np.full((8, 10, 3), 9, np.uint8), photometric="rgb")
        writer.write(np.full((4, 5, 3), 200, np.uint8), photometric="rgb", subfiletype=1)
    assert load_image(file).tolist() == np.full((8, 10, 3), 9).tolist()
    with tifffile.TiffWriter(file) as writer:
        writer.write(values(8, 10))
        writer.write(values(4, 5), subfiletype=1)
    assert read_head(file).pages == 1
    assert read_tiff(file, None, None).shape == (8, 10, 1)


@needs_tifffile
@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_tiffs_are_turned_as_pillow_turns(tmp_path, orientation):
    plain = np.arange(12, dtype=np.uint8).reshape(3, 4)
    tag = (274, 3, 1, orientation, False)
    write(tmp_path / "x.tif", plain.astype(np.uint16) * 1000, extratags=[tag])
    write(tmp_path / "y.tif", plain, extratags=[tag])
    found = read_tiff(tmp_path / "x.tif", None, None)[..., 0] // 1000
    np.testing.assert_array_equal(found, load_image(tmp_path / "y.tif")[..., 0])
    assert read_size(tmp_path / "x.tif", InputSettings()) == found.shape
    assert read_orientation(tmp_path / "x.tif") == orientation


@needs_tifffile
def test_12_bits_in_16_are_stretched_by_the_data_set(tmp_path):
    dark, bright = values(64, 64, most=1000), values(64, 64, most=4095)
    bright[0, 0] = 65535  # a hot pixel is no range
    files = [write(tmp_path / "a.tif", dark), write(tmp_path / "b.tif", bright)]
    Image.fromarray(dark).save(tmp_path / "c.png")
    reading = find_reading(samples(*files, tmp_path / "c.png"))
    assert reading is not None
    assert reading.low == pytest.approx((0,), abs=10)
    assert reading.high == pytest.approx((4095,), abs=60)
    assert load_image(files[1], reading).max() == 255
    # One range for all: the dark image stays dark; and its copy as PNG is the same.
    assert 55 < load_image(files[0], reading).max() < 70
    np.testing.assert_array_equal(
        load_image(files[0], reading), load_image(tmp_path / "c.png", reading)
    )
    assert "values 0 to" in describe(reading)
    assert reading.mean is not None
    assert load_image(files[0], reading).shape == (64, 64, 3)
    assert find_reading(samples(*files), given=(0, 1000)).high == (1000,)  # type: ignore[union-attr]


@needs_tifffile
def test_each_channel_has_a_range_mean_and_deviation_of_its_own(tmp_path):
    one, other = values(40, 50, most=300), values(40, 50, most=60000)
    file = write(tmp_path / "x.tif", np.stack([one, other], 2), **FIVE)
    reading = find_reading(samples(file))
    assert reading is not None
    assert reading.channels == 2
    assert reading.high == pytest.approx((300, 60000), rel=0.02)
    pixels = load_image(file, reading).astype(float)
    assert pixels.mean((0, 1)) == pytest.approx(reading.mean, abs=0.1)
    assert pixels.std((0, 1)) == pytest.approx(reading.std, abs=0.1)
    picture = load_picture(file, reading)
    np.testing.assert_array_equal(picture, pixels[..., [0, 1, 0]])


@needs_tifffile
def test_floats_and_what_is_not_a_number(tmp_path):
    array = GENERATOR.normal(size=(30, 30)).astype(np.float32)
    array[0, 0], array[0, 1] = np.nan, np.inf
    file = write(tmp_path / "x.tif", array)
    reading = find_reading(samples(file))
    assert reading is not None
    assert reading.low is not None
    assert reading.low[0] == pytest.approx(array[1:].min(), abs=0.2)
    assert load_image(file, reading)[0, :2, 0].tolist() == [0, 255]


@needs_tifffile
def test_alpha_is_left_out_and_other_extra_channels_are_not(tmp_path):
    array = values(8, 9, 4)
    file = write(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_tiff(file, None, None), array[..., :3])
    bands = (array // 256).astype(np.uint8)
    file = write(tmp_path / "b.tif", bands, photometric="rgb", extrasamples=["unspecified"])
    reading = find_reading(samples(file))
    assert reading is not None
    assert reading.low is None
    np.testing.assert_array_equal(load_image(file, reading), bands)


@needs_tifffile
def test_images_of_other_channels_are_refused_by_name(tmp_path):
    five = write(tmp_path / "five.tif", values(8, 8, 5), **FIVE)
    Image.new("RGB", (8, 8)).save(tmp_path / "rgb.png")
    with pytest.raises(UserError, match=r"rgb\.png: has 3 channels, and .*five\.tif 5"):
        find_reading(samples(five, tmp_path / "rgb.png"))
    reading = find_reading(samples(five))
    with pytest.raises(UserError, match=r"rgb\.png: has 3 channels, and the data set's images 5"):
        load_image(tmp_path / "rgb.png", reading)
    with pytest.raises(UserError, match=r"five\.tif: has 5 channels of 16-bit values, where 8-bit"):
        load_image(five)


@needs_tifffile
def test_check_says_the_reading_or_what_to_choose(tmp_path):
    good = [write(tmp_path / f"{i}.tif", values(8, 8, 5, most=4095), **FIVE) for i in range(3)]
    report = check_dataset(manifest(tmp_path, *good))
    assert any("5 channels" in line and "become 0 to 255" in line for line in report.warnings)
    assert not [problem for problem in report.problems if problem.id]
    stack = write(tmp_path / "s.tif", values(7, 8, 8))
    problems = {p.id: p.message for p in check_dataset(manifest(tmp_path, stack)).problems}
    assert "has 7 pages" in problems["s"]
    assert not check_dataset(manifest(tmp_path, stack), page=6).to_fix[1:]


def test_what_needs_the_extra_says_so(tmp_path, monkeypatch):
    file = tmp_path / "x.tif"
    # Two bands of 16 bits, by hand: 1 x 1 pixels.
    tags = [(256, 1), (257, 1), (258, 16), (259, 1), (262, 1), (273, 134), (277, 2), (278, 1)]
    tags += [(279, 4), (338, 0)]
    entries = b"".join(
        t.to_bytes(2, "little") + b"\4\0\1\0\0\0" + v.to_bytes(4, "little") for t, v in tags
    )
    head = b"II*\0\x08\0\0\0" + len(tags).to_bytes(2, "little")
    file.write_bytes(head + entries + bytes(4) + b"\1\2\3\4")
    assert kind_of(file) == (2, False, True)
    Image.fromarray(values(5, 6)).save(tmp_path / "gray.tif")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(UserError, match=r"x\.tif: .*pip install 'affinitynet\[tiff\]'$"):
        find_reading(samples(file))
    # Pillow reads 16-bit gray by itself.
    reading = find_reading(samples(tmp_path / "gray.tif"))
    assert reading is not None
    assert load_read(tmp_path / "gray.tif", reading).shape == (5, 6, 3)


@needs_tifffile
def test_the_limit_of_pixels_holds_and_can_be_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    monkeypatch.setenv("AFFINITYNET_MAX_PIXELS", "")
    file = write(tmp_path / "x.tif", values(20, 30, 5), **FIVE)
    with pytest.raises(UserError, match=r"has more than 500 pixels; .*--max-pixels"):
        find_reading(samples(file))
    allow_pixels(600)
    assert find_reading(samples(file)) is not None


@needs_tifffile
def test_a_damaged_file_is_one_line(tmp_path):
    file = write(tmp_path / "x.tif", values(20, 30, 5), **FIVE, compression="zlib")
    content = bytearray(file.read_bytes())
    reading = find_reading(samples(file))
    for length in (3, 9, 40, len(content) // 2, len(content) - 9):
        file.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"x\.tif: ") as caught:
            load_image(file, reading)
        assert "\n" not in str(caught.value)


def test_8_bit_images_need_no_reading(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("L", (4, 4)).save(tmp_path / "b.tif")
    Image.new("RGBA", (4, 4)).save(tmp_path / "c.tif")
    Image.new("CMYK", (4, 4)).save(tmp_path / "d.tif")
    files = sorted(tmp_path.iterdir())
    assert find_reading(samples(*files)) is None


def test_the_manifest_keeps_the_reading(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    plain = manifest(tmp_path, tmp_path / "a.png")
    reading = InputSettings(channels=2, mean=(1, 2), std=(3, 4))
    kept = Manifest.from_lines(plain.with_reading(reading).to_lines())
    assert kept.reading == reading
    assert kept.samples[0].reading == reading
    assert kept.fingerprint() == plain.fingerprint()
    assert not any("reading" in line for line in plain.to_lines())


def test_three_channels_of_any_number():
    for count, expected in ((1, [0, 0, 0]), (2, [0, 1, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])):
        image = np.broadcast_to(np.arange(count, dtype=np.uint8), (2, 4, count))
        assert three_channels(image)[0, 0].tolist() == expected
        assert three_channels(torch.from_numpy(image.copy()))[1, 3].tolist() == expected


def test_bytes_are_not_stretched():
    reading = InputSettings(low=(10,), high=(20,))
    assert to_bytes(np.array([[10, 255]], np.uint8), reading).tolist() == [[10, 255]]
    assert to_bytes(np.array([[9, 10, 15, 30]], np.int16), reading).tolist() == [[0, 0, 128, 255]]


@needs_tifffile
@pytest.mark.parametrize(
    ("kind", "nodata"), [("float32", "-9999"), ("uint16", "65535"), ("int32", "-9999"), ("u2", "7")]
)
def test_pixels_that_hold_nothing_do_not_set_the_range(
    tmp_path: Path, kind: str, nodata: str
) -> None:
    """GDAL writes the value of such pixels as text beside the image."""
    array = values(40, 50, most=1000).astype(kind) + np.dtype(kind).type(1000)
    array[:10] = float(nodata)
    file = write(
        tmp_path / "a.tif", array, extratags=[(42113, "s", 0, nodata, True)], photometric=1
    )
    assert read_head(file).nodata == float(nodata)
    reading = find_reading(samples(file))
    assert reading is not None
    assert reading.low is not None
    assert reading.high is not None
    assert 1000 <= reading.low[0] < reading.high[0] <= 2000
    found = load_read(file, reading)
    assert not found[:10].any()
    assert found[10:].mean() > 100


@needs_tifffile
def test_bytes_keep_the_value_that_says_nothing(tmp_path: Path) -> None:
    array = values(40, 50, 4, most=255).astype(np.uint8)
    tag = [(42113, "s", 0, "0", True)]
    file = write(tmp_path / "a.tif", array, extratags=tag, **FIVE)
    np.testing.assert_array_equal(read_tiff(file, None, None), array)


@needs_tifffile
@pytest.mark.parametrize("said", [b"", b"none", b"1e", b"\xff"])
def test_what_is_no_value_says_nothing(tmp_path: Path, said: bytes) -> None:
    tag = [(42113, "s", 0, said, True)]
    assert read_head(write(tmp_path / "a.tif", values(4, 5), extratags=tag)).nodata is None


@needs_tifffile
def test_a_palette_of_16_bits_is_no_brightness(tmp_path: Path) -> None:
    colors = np.zeros((3, 65536), np.uint16)
    file = write(tmp_path / "a.tif", values(4, 5), photometric="palette", colormap=colors)
    for read in (lambda: kind_of(file), lambda: read_tiff(file, None, None)):
        with pytest.raises(UserError, match=r"a\.tif: has a palette of 16 bits.*save it as RGB"):
            read()
