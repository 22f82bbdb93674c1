"""Named image formats only, whatever a decoder raises, and EXIF of which the orientation counts."""

import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image

from affinitynet.data import load_image
from affinitynet.data.images import MAX_PIXELS, allow_pixels, read_size
from affinitynet.data.images import load_image as load
from affinitynet.errors import UserError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.eps", "photo.tif"])
def test_postscript_starts_no_other_program(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(EPS)

    def refuse(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(UserError, match=r"this image can't be decoded .*none of JPEG, PNG"):
        load_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "DDS", "SGI", "PDF", "ICNS"])
def test_formats_that_are_not_named_are_not_read(tmp_path, kind):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "x.jpg", format=kind)
    with pytest.raises(UserError, match="this image can't be decoded"):
        load_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "MPO"])
def test_the_named_ones_are_read_whatever_the_suffix(tmp_path, kind):
    Image.new("RGB", (16, 12), (250, 0, 0)).save(tmp_path / "x.jpg", format=kind)
    pixels = load_image(tmp_path / "x.jpg")
    assert pixels.shape == (12, 16, 3)
    assert abs(pixels[5, 5].astype(int) - (250, 0, 0)).max() < 8


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(b"\0\1\2\0\3\4"))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + rows + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [
        png(chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 26)))),
        png(chunk(b"iCCP", b"")),
        png(chunk(b"IHDR", b"")),
        png(chunk(b"PLTE", b"\1"), chunk(b"tRNS", b"")),
        b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\x0c",
        b"P6 1 1 999999 \0\0\0",
        b"P5 -1 1 255 \0",
        b"II*\0\x08\0\0\0\xff\xff",
        b"BM" + bytes(60),
    ],
)
def test_whatever_a_decoder_raises_is_said_in_one_way(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.png: this image can't be decoded"):
        load_image(tmp_path / "x.png")


@pytest.mark.parametrize(
    "error", [KeyError("x"), IndexError(), MemoryError(), RuntimeError("x\ny")]
)
def test_errors_of_any_class_are_the_users(tmp_path, monkeypatch, error):
    Image.new("L", (2, 2)).save(tmp_path / "x.png")

    def fail(*_):
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", fail)
    with pytest.raises(UserError, match=r"x\.png: this image can't be decoded"):
        load_image(tmp_path / "x.png")


@pytest.mark.parametrize("mode", ["LAB", "CMYK", "YCbCr"])
def test_colors_are_converted_or_refused_in_words(tmp_path, monkeypatch, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "x.tif")
    try:
        with Image.open(tmp_path / "x.tif") as image:
            image.load()
    except OSError as error:  # YCbCr, before Pillow 13
        pytest.skip(f"Pillow doesn't read what it writes: {error}")
    assert load_image(tmp_path / "x.tif").shape == (4, 4, 3)

    def fail(*_):
        raise ValueError("no such conversion")

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(UserError, match=rf"x\.tif: colors of the kind {mode} can't be converted"):
        load_image(tmp_path / "x.tif")


def exif(kind: int, *entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF of orientation 6, and entries in IFD0 (0), the GPS (0x8825) or the EXIF one (0x8769)."""
    first = [(0x112, 3, 1, struct.pack("<HH", 6, 0)), *(entries if not kind else ())]
    count = len(first) + bool(kind)
    inner = 8 + 2 + 12 * count + 4
    first += [(kind, 4, 1, struct.pack("<I", inner))] if kind else []
    extra, body = b"", b""
    ifds = [sorted(first), *([entries] if kind else [])]
    place = 8 + sum(2 + 12 * len(ifd) + 4 for ifd in ifds)
    for ifd in ifds:
        body += struct.pack("<H", len(ifd))
        for tag, form, number, value in ifd:
            if len(value) > 4:
                extra, value = extra + value, struct.pack("<I", place + len(extra))
            body += struct.pack("<HHI", tag, form, number) + value.ljust(4, b"\0")
        body += bytes(4)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + body + extra


RATIO = struct.pack("<II", 22, 10)


@pytest.mark.parametrize(
    "metadata",
    [
        exif(0),
        exif(0x8825, (5, 5, 1, RATIO)),
        exif(0x8825, (2, 2, 8, b"52 30 0\0")),
        exif(0x8769, (0x9203, 10, 1, struct.pack("<iI", -1, 0))),
        exif(0x8769, (0x829A, 2, 6, b"1/100\0")),
        exif(0, (0x132, 7, 19, b"2020:01:01 00:00:00")),
        exif(0, (0x10F, 3, 1, b"\1\0\0\0")),
        exif(0, (0x100, 9, 1, struct.pack("<i", -5))),
    ],
)
def test_odd_metadata_does_not_matter_and_the_image_is_turned(tmp_path, metadata):
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[:12] = 200
    Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=metadata)
    assert read_size(tmp_path / "x.jpg") == (32, 24)
    upright = load_image(tmp_path / "x.jpg")
    assert upright.shape == (32, 24, 3)
    assert upright[:, 20].min() > 150 > 50 > upright[:, 4].max()


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_head_tells_the_size_that_is_decoded(tmp_path, kind, orientation):
    metadata = Image.Exif()
    metadata[274] = orientation
    Image.new("RGB", (20, 10)).save(tmp_path / f"x.{kind}", exif=metadata)
    assert read_size(tmp_path / f"x.{kind}") == load_image(tmp_path / f"x.{kind}").shape[:2]


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientations_that_are_none_turn_nothing(tmp_path, value):
    metadata = Image.Exif()
    metadata[274] = value
    Image.new("RGB", (20, 10)).save(tmp_path / "x.png", exif=metadata)
    assert load(tmp_path / "x.png").shape == (10, 20, 3)


@pytest.mark.parametrize("allowed", [1200, 10**9])
def test_larger_images_can_be_allowed(tmp_path, monkeypatch, allowed):
    Image.new("L", (40, 30)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    monkeypatch.setenv(MAX_PIXELS, "")
    with pytest.raises(UserError, match=r"has more than 500 pixels; .*--max-pixels"):
        load_image(tmp_path / "x.png")
    allow_pixels(allowed)
    assert load_image(tmp_path / "x.png").shape == (30, 40, 3)
    allow_pixels(1199)
    with pytest.raises(UserError, match="has more than 1199 pixels"):
        load_image(tmp_path / "x.png")
    with pytest.raises(UserError, match="must be at least 1"):
        allow_pixels(0)


def test_the_command_line_allows_larger_images(tmp_path, monkeypatch, capsys):
    from affinitynet.cli import main

    for name in ("cat/1.png", "dog/2.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("L", (40, 30), len(name)).save(tmp_path / name)
    Image.new("L", (40, 30), 9).save(tmp_path / "dog/2.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    monkeypatch.setenv(MAX_PIXELS, "")
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path)])
    assert "problem" in capsys.readouterr().out
    main(["check", str(tmp_path), "--max-pixels", "1200"])
    assert "problem" not in capsys.readouterr().out
