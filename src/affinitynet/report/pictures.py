"""Draw labels and activation maps over an image, in colors that can be told apart."""

import colorsys

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

# VOC's own colors start with six dark ones that vanish on a dimmed photograph. These differ in
# hue and in lightness, so that neighbors in the list also differ to color-blind readers.
_FIRST_COLORS = (
    (230, 104, 58),
    (62, 157, 224),
    (242, 190, 66),
    (78, 178, 106),
    (178, 112, 226),
    (244, 138, 184),
    (32, 186, 176),
    (200, 66, 96),
    (164, 200, 76),
    (104, 124, 236),
    (176, 134, 96),
    (120, 212, 246),
)
_GOLDEN_ANGLE = 0.381966  # of a turn: hues of consecutive labels stay far apart
_DIM = 0.5  # brightness of the photograph under labels and maps
_FILL = 0.62  # share of a class's color where it is laid on
_STRIPE = 8  # period of the neutral hatching, pixels


def class_color(label: int) -> tuple[int, int, int]:
    """Color of a class's label (1 is the first class), the same in every report."""
    if label <= len(_FIRST_COLORS):
        return _FIRST_COLORS[label - 1]
    turn = (label * _GOLDEN_ANGLE) % 1.0
    # Three levels of lightness, so that hues that come close again are still told apart.
    red, green, blue = colorsys.hls_to_rgb(turn, (0.45, 0.6, 0.75)[label % 3], 0.65)
    return round(red * 255), round(green * 255), round(blue * 255)


def fit(height: int, width: int, side: int) -> tuple[int, int]:
    """Size (height, width) whose long side is `side`, or less: small images grow 3 times at most.

    Aspect ratio is kept to the pixel; no side falls below 1.
    """
    # Beyond three times a small image shows its pixels and nothing more.
    factor = min(side / max(height, width), 3.0)
    return max(1, round(height * factor)), max(1, round(width * factor))


def resize_image(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize (H, W, 3) to `size` (height, width)."""
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(resized)


def resize_labels(labels: npt.NDArray[np.integer], size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Resize (H, W) labels to `size` (height, width) by nearest neighbor, centers aligned."""
    # By the middle of each new pixel: without the half the labels would shift against the image.
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.int64)
        for new, old in zip(size, labels.shape, strict=True)
    )
    resized: npt.NDArray[np.int64] = labels.astype(np.int64)[rows[:, None], columns[None, :]]
    return resized


def resize_maps(maps: npt.NDArray[np.floating], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Resize (K, H, W) maps to `size` (height, width), bilinear, averaging where they shrink."""
    resized = np.zeros((len(maps), *size), dtype=np.float32)
    for number, values in enumerate(maps.astype(np.float32)):
        picture = Image.fromarray(values)
        resized[number] = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return resized


def draw_labels(image: Pixels, labels: npt.NDArray[np.integer], ignore_index: int) -> Pixels:
    """Lay (H, W) labels over the dimmed (H, W, 3) image.

    Background shows the dimmed image; classes are filled, with a light line around; neutral and
    void pixels (`ignore_index`) are hatched gray.
    """
    canvas = _dimmed(image)
    for label in np.unique(labels):
        if label not in (0, ignore_index):
            mask = labels == label
            color = np.array(class_color(int(label)), dtype=np.float32)
            canvas[mask] = (1 - _FILL) * canvas[mask] + _FILL * color
    foreground = np.where(labels == ignore_index, 0, labels)
    # Towards white, not white: the line must not read as one more class.
    edge = _edges(foreground)
    canvas[edge] = 0.35 * canvas[edge] + 0.65 * 255
    rows, columns = np.indices(labels.shape)
    stripe = (rows + columns) % _STRIPE < _STRIPE // 2
    neutral = labels == ignore_index
    canvas[neutral & stripe] = 150
    canvas[neutral & ~stripe] = 112
    return _to_bytes(canvas)


def draw_maps(
    image: Pixels, classes: npt.NDArray[np.integer], maps: npt.NDArray[np.floating]
) -> Pixels:
    """Draw activation maps over the dimmed (H, W, 3) image.

    classes: (K,) 0-based; maps: (K, H, W) in 0..1. Each pixel takes the color of its strongest
    class, mixed in by that class's value.
    """
    canvas = _dimmed(image)
    if len(classes):
        # Maps of other programs may pass one; a picture has no room for it.
        strength = np.clip(np.nan_to_num(maps.astype(np.float32)), 0, 1)
        colors = np.array([class_color(int(c) + 1) for c in classes], dtype=np.float32)
        weight = 0.9 * strength.max(axis=0)[..., None]
        canvas = (1 - weight) * canvas + weight * colors[strength.argmax(axis=0)]
    return _to_bytes(canvas)


def _dimmed(image: Pixels) -> npt.NDArray[np.float32]:
    """Gray and darker, so that only what is laid over it has color."""
    # The weights of luma (BT.601), with which Pillow converts to gray as well.
    gray = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.repeat((_DIM * gray + 18)[..., None], 3, axis=2)


def _edges(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Pixels with another label to the right or below."""
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1, :] |= labels[:-1, :] != labels[1:, :]
    return edge


def _to_bytes(canvas: npt.NDArray[np.float32]) -> Pixels:
    # + 0.5, since astype cuts the fraction off.
    pixels: Pixels = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return pixels
