"""The augmentations of the three trainings, each a function of an image and a generator.

All randomness comes from the generator given, so that what a sample becomes depends on the seed,
the epoch and the sample's index alone (`sample_generator`), and not on how many workers load.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from affinitynet.ops.normalization import Normalization

Pixels = npt.NDArray[np.uint8]
LabelMap = npt.NDArray[np.integer]
_Change = Callable[[Tensor, float], Tensor]

AIMED = 0.75  # chance of a crop around a pixel of a class: the rest is for what is far from all


@dataclass(frozen=True)
class Jitter:
    """Strengths of the color jitter: factors are uniform in 1 -+ strength, hue in -+ hue turns."""

    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.1


PAPER_JITTER = Jitter()
NO_JITTER = Jitter(0.0, 0.0, 0.0, 0.0)


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample in one epoch of a run."""
    return np.random.default_rng([seed, epoch, index])


def classifier_augment(
    image: Pixels,
    generator: np.random.Generator,
    *,
    normalization: Normalization,
    size: int,
    long_side: tuple[int, int] = (256, 512),
    jitter: Jitter = PAPER_JITTER,
) -> Tensor:
    """Image (H, W, 3) uint8 to a normalized (3, size, size) float32 crop for the classifier.

    In the order of the original code: resize so that the long side is a uniform integer in
    ``long_side`` (both ends included), flip with probability 1/2, jitter, normalize, random crop.
    Along an axis where the image is shorter than ``size`` it lies at a random offset among zeros,
    which after the normalization are the mean color.
    """
    # NumPy leaves the upper end out.
    length = int(generator.integers(long_side[0], long_side[1] + 1))
    scaled = resize_image(image, *_scaled(image, length / max(image.shape[:2])))
    flipped = _flip(generator, scaled)[0]
    pixels = normalization.apply(_jittered(flipped, jitter, generator))
    # Cut after normalizing: only then is 0 the mean color.
    return _Crop.random(pixels, size, generator).cut(pixels, 0)


def affinity_augment(
    image: Pixels,
    labels: LabelMap,
    generator: np.random.Generator,
    *,
    normalization: Normalization,
    size: int,
    stride: int,
    padding: Literal["mean", "black"] = "black",
    jitter: Jitter = PAPER_JITTER,
    ignore_index: int = 255,
) -> tuple[Tensor, Tensor]:
    """Image and confident labels (H, W) to a (3, size, size) crop and labels on the network's grid.

    Jitter, joint random crop at the image's own size, joint flip; then `reduce_labels` brings the
    labels to (ceil(size / stride), ceil(size / stride)), int64. Around the image the labels are
    neutral and the pixels black (the original code) or the mean color.
    """
    raw = torch.from_numpy(image).permute(2, 0, 1)
    targets = torch.from_numpy(labels.astype(np.int64))[None]
    changes = _draw_changes(jitter, len(raw), generator)
    crop = _Crop.random(raw, size, generator)
    # Contrast looks at the whole image. What comes after it needs no more than what is kept.
    done = next((i for i, (change, _) in enumerate(changes, 1) if change in _OF_THE_WHOLE), 0)
    inside = crop.inside(_changed(_in_unit(raw), changes[:done]))
    inside = _changed(inside, changes[done:]) * 255.0
    # Normalized after it is laid, zeros are black; before that, they are the mean color.
    if padding == "black":
        pixels = normalization.apply(crop.lay(inside, 0))
    else:
        pixels = crop.lay(normalization.apply(inside), 0)
    pixels, targets = _flip(generator, pixels, crop.cut(targets, ignore_index))
    reduced = reduce_labels(targets[0].numpy(), stride, ignore_index)
    return pixels, torch.from_numpy(reduced)


def segmentation_augment(
    image: Pixels,
    labels: LabelMap,
    generator: np.random.Generator,
    *,
    normalization: Normalization,
    size: int,
    scale: tuple[float, float] = (0.5, 2.0),
    crops: Literal["random", "objects"] = "random",
    jitter: Jitter = PAPER_JITTER,
    ignore_index: int = 255,
) -> tuple[Tensor, Tensor]:
    """Image and labels (H, W) to a (3, size, size) float32 crop and its (size, size) int64 labels.

    Resize by a uniform factor in ``scale`` (labels: nearest), joint flip and random crop, jitter
    of the crop, normalize. Outside the image are the mean color and ``ignore_index``. With
    ``objects`` three crops of four hold a pixel of a class of the labels but background, if there
    is any: the class is drawn evenly, then one of its pixels, then one of the crops that hold it.
    """
    height, width = _scaled(labels, generator.uniform(*scale))
    pixels, targets = _flip(
        generator, resize_image(image, height, width), _resize_labels(labels, height, width)
    )
    aim = _object_pixel(targets[0], generator, ignore_index) if crops == "objects" else None
    crop = (
        _Crop.around(pixels, aim, size, generator) if aim else _Crop.random(pixels, size, generator)
    )
    # Jitter costs more than the crop, so only what is kept of the image gets it; the canvas comes
    # last, as jitter would change its fill.
    inside = _jittered(crop.inside(pixels), jitter, generator)
    canvas = crop.lay(normalization.apply(inside), 0)
    return canvas, crop.cut(targets, ignore_index)[0].to(torch.int64)


def resize_image(image: Pixels, height: int, width: int) -> Tensor:
    """Image (H, W, 3) uint8 to a (3, height, width) uint8 tensor, bicubic with antialiasing."""
    bicubic = InterpolationMode.BICUBIC
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    resized: Tensor = tv.resize(pixels, [height, width], interpolation=bicubic, antialias=True)
    return resized


def resize_long_side(image: Tensor, long_side: int | None) -> Tensor:
    """Bring the long side of an image (3, H, W) to `long_side` pixels, None leaves it; bilinear."""
    if long_side is None or max(image.shape[-2:]) == long_side:
        return image
    scale = long_side / max(image.shape[-2:])
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    resized: Tensor = tv.resize(image, size, antialias=True)
    return resized


def reduce_labels(labels: LabelMap, stride: int, ignore_index: int = 255) -> npt.NDArray[np.int64]:
    """Labels (H, W) to the grid (ceil(H / stride), ceil(W / stride)) of a network's stride.

    A cell has the label that more than half of its stride x stride pixels share, else
    ``ignore_index``: a cell on a boundary teaches no affinity. Pixels beyond the right and the
    lower edge count as ``ignore_index``.
    """
    height, width = labels.shape
    rows, columns = -(-height // stride), -(-width // stride)
    padded = np.full((rows * stride, columns * stride), ignore_index, dtype=np.int64)
    padded[:height, :width] = labels
    cells = padded.reshape(rows, stride, columns, stride)
    reduced = np.full((rows, columns), ignore_index, dtype=np.int64)
    # At most one label has more than half of a cell, so the order of the labels does not matter.
    for label in np.flatnonzero(np.bincount(padded.ravel())):
        share = np.count_nonzero(cells == label, axis=(1, 3))
        reduced[2 * share > stride * stride] = label
    return reduced


@dataclass(frozen=True)
class _Crop:
    """A square window over an image: where it cuts, and where what it cut lies in the canvas."""

    size: int
    rows: tuple[int, int, int]
    columns: tuple[int, int, int]

    @classmethod
    def random(cls, image: Tensor, size: int, generator: np.random.Generator) -> "_Crop":
        """Per axis (start in the image, start in the canvas, length), uniform over all places."""
        axes = []
        for length in image.shape[-2:]:
            # One draw serves both cases: the image slides behind the window, or in it.
            offset = int(generator.integers(abs(length - size) + 1))
            axes.append((offset, 0, size) if length > size else (0, offset, length))
        return cls(size, *axes)

    @classmethod
    def around(
        cls, image: Tensor, pixel: tuple[int, int], size: int, generator: np.random.Generator
    ) -> "_Crop":
        """As `random`, over the places that hold a pixel (y, x)."""
        axes = []
        for length, at in zip(image.shape[-2:], pixel, strict=True):
            if length > size:
                # The window has to hold the pixel and stay within the image.
                first, last = max(at - size + 1, 0), min(at, length - size)
                axes.append((int(generator.integers(first, last + 1)), 0, size))
            else:
                axes.append((0, int(generator.integers(size - length + 1)), length))
        return cls(size, *axes)

    def inside(self, image: Tensor) -> Tensor:
        """The part of the image (C, H, W) that the window covers."""
        (y, _, height), (x, _, width) = self.rows, self.columns
        return image[:, y : y + height, x : x + width]

    def lay(self, part: Tensor, fill: int) -> Tensor:
        """What `inside` gave, in its place on a canvas (C, size, size) of ``fill``."""
        (_, y, height), (_, x, width) = self.rows, self.columns
        canvas = part.new_full((part.shape[0], self.size, self.size), fill)
        canvas[:, y : y + height, x : x + width] = part
        return canvas

    def cut(self, image: Tensor, fill: int) -> Tensor:
        """The window's content (C, size, size); ``fill`` outside the image."""
        return self.lay(self.inside(image), fill)


def _scaled(image: Pixels | LabelMap, factor: float) -> tuple[int, int]:
    height, width = image.shape[:2]
    return max(round(height * factor), 1), max(round(width * factor), 1)


def _resize_labels(labels: LabelMap, height: int, width: int) -> Tensor:
    nearest = InterpolationMode.NEAREST_EXACT
    # float32 holds every 16-bit label exactly, and is what the nearest resize works in.
    maps = torch.from_numpy(labels.astype(np.float32))[None]
    resized: Tensor = tv.resize(maps, [height, width], interpolation=nearest)
    return resized


def _object_pixel(
    labels: Tensor, generator: np.random.Generator, ignore_index: int
) -> tuple[int, int] | None:
    """Draw a pixel (y, x) of a class of labels (H, W), or by chance or for lack of classes none."""
    if generator.random() >= AIMED:
        return None
    flat = labels.flatten().to(torch.int64)
    present = [
        c for c in flat.bincount().nonzero().flatten().tolist() if c not in (0, ignore_index)
    ]
    if not present:
        return None
    pixels = (flat == present[generator.integers(len(present))]).nonzero().flatten()
    y, x = divmod(int(pixels[generator.integers(len(pixels))]), labels.shape[1])
    return y, x


def _flip(generator: np.random.Generator, *images: Tensor) -> tuple[Tensor, ...]:
    if generator.random() < 0.5:
        return tuple(image.flip(-1) for image in images)
    return images


def _jittered(pixels: Tensor, jitter: Jitter, generator: np.random.Generator) -> Tensor:
    """Color jitter of a (C, H, W) uint8 tensor to float32 0..255: four changes, random order."""
    changes = _draw_changes(jitter, len(pixels), generator)
    return _changed(_in_unit(pixels), changes) * 255.0


def _draw_changes(
    jitter: Jitter, channels: int, generator: np.random.Generator
) -> list[tuple[_Change, float]]:
    """Draw the changes of an image's colors, in their order, and how much each one changes.

    Other than three channels are no colors: only their brightness and contrast change.
    """
    known = _COLOR_CHANGES if channels == 3 else _OTHER_CHANGES
    strengths = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    order = generator.permutation(len(known))
    # Drawn for all four, also those of strength 0: what follows in the generator does not depend on
    # the strengths.
    amounts = generator.uniform(-1.0, 1.0, len(known))
    changes = []
    for index in order:
        change, neutral = known[index]
        if change is not None and strengths[index] > 0:
            changes.append((change, neutral + strengths[index] * float(amounts[index])))
    return changes


def _in_unit(pixels: Tensor) -> Tensor:
    # torchvision's changes take floats in 0..1, and uint8 would be rounded after each of them.
    return pixels.to(torch.float32) / 255.0


def _changed(image: Tensor, changes: Sequence[tuple[_Change, float]]) -> Tensor:
    for change, amount in changes:
        image = change(image, amount)
    return image


def _adjust_brightness(image: Tensor, factor: float) -> Tensor:
    return (image * factor).clamp(0, 1)


def _adjust_contrast(image: Tensor, factor: float) -> Tensor:
    # Each channel around its own mean: channels may be of other units.
    mean = image.mean((-2, -1), keepdim=True)
    return (image * factor + mean * (1 - factor)).clamp(0, 1)


def shift_hue(image: Tensor, turns: float) -> Tensor:
    """RGB image (3, H, W) float with its hue turned; 1 is the full circle, value and chroma stay.

    The same as torchvision's `adjust_hue`, at a third of its time: with V the largest channel, C
    the chroma and H the hue in sixths of a turn, a channel is V - C clip(min(k, 4 - k), 0, 1),
    where k = (n + H) mod 6 and n = 5, 3, 1 for R, G, B.
    """
    red, green, blue = image.unbind(0)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # Gray has no hue; any finite one does, as it is multiplied by a chroma of 0.
    scale = 1.0 / torch.where(chroma == 0, 1.0, chroma)
    hue = torch.where(value == green, (blue - red) * scale + 2.0, (red - green) * scale + 4.0)
    hue = torch.where(value == red, (green - blue) * scale, hue) + 6.0 * turns
    turned = torch.empty_like(image)
    for channel, n in enumerate((5.0, 3.0, 1.0)):
        k = hue + n
        k -= torch.floor(k / 6.0) * 6.0
        share = torch.minimum(k, 4.0 - k).clamp_(0.0, 1.0)
        torch.addcmul(value, chroma, share, value=-1.0, out=turned[channel])
    return turned


# What changes, and the value that changes nothing.
_COLOR_CHANGES = (
    (tv.adjust_brightness, 1.0),
    (tv.adjust_contrast, 1.0),
    (tv.adjust_saturation, 1.0),
    (shift_hue, 0.0),
)
_OTHER_CHANGES = ((_adjust_brightness, 1.0), (_adjust_contrast, 1.0), (None, 1.0), (None, 0.0))
_OF_THE_WHOLE = (tv.adjust_contrast, _adjust_contrast)  # all others change each pixel by itself
