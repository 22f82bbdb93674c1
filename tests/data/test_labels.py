import numpy as np
import pytest
from PIL import Image

from affinitynet.data import (
    Manifest,
    Sample,
    load_truth,
    read_labels,
    voc_palette,
    write_labels,
)
from affinitynet.errors import UserError


def test_palette_is_vocs():
    # From the VOC2012 development kit's table of colors: label -> R, G, B.
    published = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        7: (128, 128, 128),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    palette = voc_palette()
    assert len(palette) == 768
    for label, color in published.items():
        assert tuple(palette[3 * label : 3 * label + 3]) == color


@pytest.mark.parametrize("highest", [1, 3, 255, 256, 65535])
def test_written_labels_are_read_again(tmp_path, highest):
    labels = np.random.default_rng(0).integers(0, highest + 1, (9, 13))
    labels[0, 0] = highest
    write_labels(tmp_path / "deep" / "x.png", labels, voc_palette())
    read = read_labels(tmp_path / "deep" / "x.png")
    np.testing.assert_array_equal(read, labels)
    assert read.dtype == (np.uint8 if highest <= 255 else np.uint16)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.png"]


def test_same_labels_same_bytes_whatever_their_type(tmp_path):
    labels = np.random.default_rng(0).integers(0, 21, (50, 60))
    for name, dtype in (("a", np.int64), ("b", np.uint8)):
        write_labels(tmp_path / name, np.asfortranarray(labels.astype(dtype)), voc_palette())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_viewers_show_the_palette(tmp_path):
    write_labels(tmp_path / "x.png", np.array([[0, 15, 255]]), voc_palette())
    shown = np.asarray(Image.open(tmp_path / "x.png").convert("RGB"))
    assert shown[0].tolist() == [[0, 0, 0], [192, 128, 128], [224, 224, 192]]


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2, 2), int), np.full((2, 2), -1), np.full((2, 2), 65536), np.zeros((0, 2))]
)
def test_what_is_no_label_map_is_not_written(tmp_path, bad):
    with pytest.raises(UserError, match="must be"):
        write_labels(tmp_path / "x.png", bad.astype(int), voc_palette())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_small_palettes_and_grays_keep_their_values(tmp_path, bits):
    values = np.arange(2**bits, dtype=np.uint8)[None]
    image = Image.fromarray(values)
    image.putpalette(voc_palette()[: 3 * 2**bits])
    image.save(tmp_path / "palette.png", bits=bits)
    np.testing.assert_array_equal(read_labels(tmp_path / "palette.png"), values)
    (tmp_path / "gray.png").write_bytes(gray_png(values, bits))
    np.testing.assert_array_equal(read_labels(tmp_path / "gray.png"), values)


def gray_png(values: np.ndarray, bits: int) -> bytes:
    """A one-row grayscale PNG of a bit depth that Pillow does not write (PNG specification)."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    row = np.packbits(np.unpackbits(values.reshape(-1, 1), axis=1)[:, 8 - bits :].ravel())
    header = struct.pack(">IIBBBBB", values.shape[1], 1, bits, 0, 0, 0, 0)
    data = zlib.compress(b"\0" + row.tobytes())
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_color_and_lossy_masks_are_refused(tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"x\.png is a color image \(RGB\).*palette or grayscale"):
        read_labels(tmp_path / "x.png")
    Image.new("L", (3, 3)).save(tmp_path / "x.jpg")
    with pytest.raises(UserError, match=r"x\.jpg is a JPEG"):
        read_labels(tmp_path / "x.jpg")


def truth_manifest(tmp_path, mask, classes=2, values=None) -> tuple[Manifest, Sample]:
    Image.fromarray(mask).save(tmp_path / "m.png")
    sample = Sample("x", tmp_path / "x.jpg", (), tmp_path / "m.png")
    names = tuple(f"c{i}" for i in range(classes))
    return Manifest(tmp_path, names, {"train": (sample,)}, values), sample


def test_truth_is_taken_as_it_is_without_a_table(tmp_path):
    mask = np.array([[0, 1, 2, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(load_truth(*truth_manifest(tmp_path, mask)), mask)
    with pytest.raises(UserError, match=r"m\.png: holds the value 3.*0-2, 255"):
        load_truth(*truth_manifest(tmp_path, mask + np.uint8(1)))


def test_truth_values_are_mapped(tmp_path):
    values = {0: 0, 8: 1, 12: 2, 255: 255}
    mask = np.array([[0, 12, 8, 255]], dtype=np.uint8)
    truth = load_truth(*truth_manifest(tmp_path, mask, values=values))
    assert truth.tolist() == [[0, 2, 1, 255]]
    assert truth.dtype == np.uint8
    mask[0, 0] = 10
    with pytest.raises(UserError, match=r"m\.png: holds the value 10.*0, 8, 12, 255"):
        load_truth(*truth_manifest(tmp_path, mask, values=values))


def test_truth_of_many_classes(tmp_path):
    mask = np.array([[0, 255, 300, 65535]], dtype=np.uint16)
    truth = load_truth(*truth_manifest(tmp_path, mask, classes=300))
    assert truth.tolist() == [[0, 255, 300, 65535]]
    # An 8-bit file can hold the first labels of a large data set; 255 is a class there.
    small = load_truth(*truth_manifest(tmp_path, np.array([[0, 255]], np.uint8), classes=300))
    assert small.tolist() == [[0, 255]]
    assert small.dtype == np.uint16


def test_a_sample_without_truth_says_so(tmp_path):
    sample = Sample("x", tmp_path / "x.jpg", ())
    with pytest.raises(UserError, match="'x' has no ground truth"):
        load_truth(Manifest(tmp_path, ("a",), {"train": (sample,)}), sample)
