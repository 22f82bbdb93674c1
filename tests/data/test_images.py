import struct

import numpy as np
import pytest
from PIL import Image

from affinitynet.data import load_image
from affinitynet.errors import UserError


def test_rgb_comes_back_as_it_was_and_can_be_written_to(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    loaded = load_image(tmp_path / "x.png")
    np.testing.assert_array_equal(loaded, pixels)
    assert loaded.dtype == np.uint8
    loaded[0, 0] = 0


def test_gray_and_bilevel_fill_three_channels(tmp_path):
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    Image.fromarray(gray).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(load_image(tmp_path / "gray.png"), np.stack([gray] * 3, -1))
    Image.fromarray(gray > 100).save(tmp_path / "one.png")
    assert set(np.unique(load_image(tmp_path / "one.png"))) == {0, 255}


def test_16_bit_gray_is_scaled(tmp_path):
    gray = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    for name in ("gray.png", "gray.tif"):
        Image.fromarray(gray).save(tmp_path / name)
        np.testing.assert_array_equal(load_image(tmp_path / name)[0, :, 0], [0, 1, 128, 255])


def test_12_bit_gray_is_scaled(tmp_path):
    # Little-endian TIFF, one strip of two pixels in three bytes: 0x000 and 0xfff.
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1)]
    tags.append((279, 3))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    header = b"II*\0" + struct.pack("<IH", 8, len(tags))
    (tmp_path / "x.tif").write_bytes(header + entries + b"\0\0\0\0" + b"\x00\x0f\xff")
    assert load_image(tmp_path / "x.tif")[0, :, 0].tolist() == [0, 255]


def test_transparency_shows_white(tmp_path):
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    expected = [[[10, 20, 30], [255, 255, 255], [127, 127, 127]]]
    np.testing.assert_array_equal(load_image(tmp_path / "x.png"), expected)
    gray = Image.fromarray(pixels[..., [0, 3]])
    assert gray.mode == "LA"
    gray.save(tmp_path / "la.png")
    assert load_image(tmp_path / "la.png")[0, 1].tolist() == [255, 255, 255]


def test_palettes_are_looked_up(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    image.putpalette([1, 2, 3, 40, 50, 60, 7, 8, 9])
    image.save(tmp_path / "x.png")
    assert load_image(tmp_path / "x.png")[0].tolist() == [[1, 2, 3], [40, 50, 60], [7, 8, 9]]
    image.save(tmp_path / "t.png", transparency=1)
    assert load_image(tmp_path / "t.png")[0].tolist() == [[1, 2, 3], [255, 255, 255], [7, 8, 9]]


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=100)
    red = load_image(tmp_path / "x.jpg")[4, 4].astype(int)
    assert red[0] > 200
    assert red[1:].max() < 60


# Where the stored first row and column are in the upright picture (EXIF 2.3, tag 274).
TURN = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: x.transpose(1, 0, 2)[:, ::-1],
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: x.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", TURN)
def test_exif_orientation_is_applied(tmp_path, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "x.png"), TURN[orientation](pixels))


def test_damaged_and_missing_files_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in ("jpg", "png", "tif", "bmp", "webp"):
        whole = tmp_path / f"whole.{suffix}"
        Image.fromarray(noise).save(whole)
        content = whole.read_bytes()
        for name, damaged in (("half", content[: len(content) // 2]), ("empty", b"")):
            path = tmp_path / f"{name}.{suffix}"
            path.write_bytes(damaged)
            with pytest.raises(UserError, match=rf"{name}\.{suffix} can't be decoded"):
                load_image(path)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(UserError, match=r"text\.jpg: this image can't be decoded"):
        load_image(tmp_path / "text.jpg")
    with pytest.raises(UserError, match=r"none\.jpg: there is no such image"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(UserError, match="can't be decoded"):
        load_image(tmp_path)


def test_a_flipped_byte_in_a_png_is_noticed(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.png: this image can't be decoded"):
        load_image(path)


def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    Image.new("L", (40, 30)).save(tmp_path / "x.png")
    for limit in (1199, 500):  # Pillow warns above its limit and raises above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UserError, match=rf"x\.png: has more than {limit} pixels"):
            load_image(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1200)
    assert load_image(tmp_path / "x.png").shape == (30, 40, 3)


def test_values_without_an_agreed_conversion_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match="floating point"):
        load_image(tmp_path / "x.tif")
    Image.fromarray(np.full((2, 2), 70000, dtype=np.int32)).save(tmp_path / "y.tif")
    with pytest.raises(UserError, match="beyond 16 bits"):
        load_image(tmp_path / "y.tif")
