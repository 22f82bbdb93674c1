"""Label files: one integer per pixel, as PNG that any viewer shows in color."""

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from affinitynet.data.images import open_image
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import atomic_write
from affinitynet.run_folder.store import open_file

Labels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_STRIP = 1 << 20  # pixels whose colors are looked up at once
_LOSSLESS = ("PNG", "TIFF", "BMP", "GIF", "PPM")  # a lossless WebP can't be told from others
_BITS, _COMPRESSION, _PHOTOMETRIC = 258, 259, 262  # TIFF's tags
_WHITE_IS_ZERO = 0
_LOSSY = (6, 7, 33003, 33005, 34712, 34892, 50001, 50002)  # JPEG, JPEG 2000, WebP, JPEG XL


def ignore_index(classes: int) -> int:
    """Label of neutral and void pixels for a number of classes (background not counted)."""
    return 255 if classes < 255 else 65535


def to_labels(
    local: npt.NDArray[np.integer], classes: npt.NDArray[np.int64], ignore_index: int
) -> npt.NDArray[np.integer]:
    """Turn an image's own numbering (0, 1..K, 255) into the data set's labels.

    local: (H, W), classes: (K,) 0-based, sorted; returns (H, W) uint8, or uint16 with 255 or more.
    """
    table: npt.NDArray[np.integer]
    # What is neither background nor one of the K classes stays neutral.
    table = np.full(256, ignore_index, np.uint16 if ignore_index > 255 else np.uint8)
    table[0] = 0
    table[1 : len(classes) + 1] = classes + 1
    labels: npt.NDArray[np.integer] = table[local]
    return labels


def voc_palette() -> list[int]:
    """PASCAL VOC's color map: 768 integers; 0 is black, 255 the light color of borders.

    Bit j of the label's three lowest bits goes to bit 7 of R, G and B, the next three to bit 6,
    and so on (VOC development kit, VOClabelcolormap).
    """
    return list(_palette())


@cache
def _palette() -> tuple[int, ...]:
    labels = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.int64)
    for level in range(8):
        for channel in range(3):
            colors[:, channel] |= ((labels >> (3 * level + channel)) & 1) << (7 - level)
    return tuple(int(value) for value in colors.ravel())


def read_labels(path: Path | str) -> Labels:
    """Read a label map to (H, W): uint8 of a palette or 8-bit gray file, uint16 of a 16-bit one.

    A file in VOC's colors (RGB) is read by them.

    Raises:
        UserError: other colors, lossy compression, gray that says white by 0, and what
            `load_image` refuses; the file is named.
    """
    path = Path(path)
    with open_image(path) as image:
        _check_lossless(path, image)
        if image.mode in ("RGB", "RGBA"):
            return _from_colors(path, np.array(image))
        if image.mode not in ("P", "L", "1", "I;16", "I;16B", "I;16L", "I"):
            raise UserError(
                f"{path}: has colors of the kind {image.mode}, but a mask holds one label a pixel; "
                "save it as palette or gray PNG whose values are the labels"
            )
        values = np.array(image)
    if image.mode == "I":
        if values.min() < 0 or values.max() > 65535:
            raise UserError(f"{path}: holds labels beyond 65535; save it with 8 or 16 bits")
        return values.astype(np.uint16)
    if image.mode.startswith("I;16"):
        return values.astype(np.uint16)
    # Pillow stretches 2 and 4 bit gray to 0..255, which would change the labels.
    return (values // _gray_step(path, image)).astype(np.uint8)


def has_palette(path: Path) -> bool:
    """Tell whether a label map shows its labels by a palette, as those that are written here."""
    with open_image(path) as image:
        return image.mode == "P"


def read_made(file: Path, maker: str) -> Labels:
    """Read labels (H, W) that the stage `maker` of a run made.

    Raises:
        UserError: as `read_labels`; says how to make them again.
    """
    try:
        return read_labels(file)
    except UserError as error:
        raise UserError(f"{error}; make it again with --redo {maker}") from error


def _check_lossless(path: Path, image: Image.Image) -> None:
    kind = image.format or ""
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_COMPRESSION) in _LOSSY:
        kind = f"{kind} with lossy compression"
    if kind not in _LOSSLESS:
        raise UserError(f"{path}: is a {kind}, which blurs labels; save masks as PNG")


def _from_colors(path: Path, pixels: npt.NDArray[np.uint8]) -> Labels:
    """Look (H, W, 3 or 4) colors up in VOC's map: labels (H, W)."""
    labels_of = _labels_of_colors()
    labels = np.empty(pixels.shape[:2], np.uint8)
    # In strips: the numbers of colors take four times the memory of the labels.
    rows = max(1, _STRIP // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        strip = pixels[top : top + rows]
        colors = _numbers(strip)
        found = labels_of[colors]
        strange = colors[found < 0]
        if strange.size or (strip.shape[2] == 4 and strip[..., 3].min() < 255):
            said = f"the color #{strange[0]:06x}" if strange.size else "transparent pixels"
            raise UserError(
                f"{path}: is a color image with {said}, which is no label in VOC's colors; save it "
                "as palette or gray PNG whose values are the labels"
            )
        labels[top : top + rows] = found
    return labels


@cache
def _labels_of_colors() -> npt.NDArray[np.int16]:
    """Return the label of each of the 2^24 colors, -1 where VOC has none: one look a pixel."""
    labels_of = np.full(1 << 24, -1, np.int16)
    labels_of[_numbers(np.array(_palette(), np.uint8).reshape(-1, 3))] = range(256)
    return labels_of


def _numbers(colors: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Return 0xRRGGBB of colors (..., 3 or 4)."""
    red, green, blue = (colors[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _gray_step(path: Path, image: Image.Image) -> int:
    if image.mode != "L":
        return 1
    if isinstance(image, TiffImageFile):
        depth = image.tag_v2.get(_BITS, (8,))[0]
        if image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            raise UserError(f"{path}: is a TIFF where 0 is white; save it as PNG, 0 the background")
    elif image.format == "PNG":
        with open_file(path) as file:
            # The bit depth, in the header that every PNG begins with.
            depth = file.read(25)[24]
    else:
        return 1
    # What the values were multiplied by: 255 / 3 and 255 / 15.
    return {2: 85, 4: 17}.get(depth, 1)


def write_labels(path: Path | str, labels: npt.NDArray[np.integer], palette: list[int]) -> None:
    """Write (H, W) labels: palette PNG while all are at most 255, else 16-bit gray PNG.

    The same labels always give the same bytes (for one version of Pillow), and the file appears
    under its name only when it is complete.

    Raises:
        UserError: labels outside 0..65535.
    """
    if labels.ndim != 2 or labels.size == 0 or labels.min() < 0 or labels.max() > 65535:
        raise UserError(f"{path}: labels must be (H, W) integers in 0..65535")
    if labels.max() <= 255:
        image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8))
        image.putpalette(palette)
    else:
        image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint16))
    with atomic_write(Path(path)) as temporary:
        image.save(temporary, format="PNG")
