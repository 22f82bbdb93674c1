"""How images beyond 8-bit gray and RGB become bytes: found once in a data set, then the same.

Channels, range, mean and deviation are those of the training images. They stand in the run
folder's recipe (`backbone.input`), in its manifest and in each network's `model.json`.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from affinitynet.data.images import deep_error, load_image, pixel_limit, read_gray16
from affinitynet.data.manifest import Manifest
from affinitynet.data.roles import samples_of
from affinitynet.data.sample import Sample
from affinitynet.data.tiff import channels_of, is_tiff, pages_error, read_head, read_tiff
from affinitynet.errors import UserError
from affinitynet.progress import say, task
from affinitynet.run_folder.folder import RECIPE
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.settings_base import InputSettings
from affinitynet.run_folder.store import is_there, open_file
from affinitynet.run_folder.urls import url_of

LOOKED_AT = 200  # training images, evenly over the list, whose values are measured
_PIXELS = 10_000  # of each, evenly over it
_LARGEST = 1e30
_OTHERS = ("val", "figures")  # roles of images that are not measured
_THREADS = 8  # that read heads: a disk elsewhere takes its time for each
_AHEAD = 1024  # samples that wait for a thread
_TAIL = 1e-4  # share of the values beyond either end of the range: a hot pixel is no range


class Kind(NamedTuple):
    """What a file's head says: channels, whether they are gray or RGB, and bytes or more."""

    channels: int
    colors: bool
    deep: bool


def kind_of(path: Path, page: int | None = None) -> Kind:
    """Tell what an image holds, by its head alone.

    Raises:
        UserError: a damaged TIFF, or one of several pages where none is chosen.
    """
    if not is_tiff(path):
        return Kind(1, True, True) if _is_gray16_png(path) else Kind(3, True, False)
    head = read_head(path, page or 0)
    if head.plain:
        if page is None and head.pages > 1:
            raise pages_error(path, head.pages)
        return Kind(3, True, False)
    channels, colors = channels_of(path, page)
    return Kind(channels, colors, head.bits > 8 or head.kind != "u")


def find_reading(
    samples: Sequence[Sample],
    page: int | None = None,
    given: tuple[float, float] | None = None,
    others: Sequence[Sample] = (),
) -> InputSettings | None:
    """Find how a data set's images are to be read; None where they are 8-bit gray or RGB.

    given: the values that become 0 and 255; else all but a ten-thousandth of the values at
    either end lie between them.

    Raises:
        UserError: images of different numbers of channels, one that can't be read, or a page or
            range that can't be.
    """
    if page is not None and page < 0:
        raise UserError(f"dataset.page = {page}: must be at least 0")
    if given is not None and given[0] >= given[1]:
        raise UserError(f"dataset.range = {given}: its second value must be above its first")
    some = samples[:: -(-len(samples) // LOOKED_AT) or 1]
    kinds = {sample: kind_of(sample.image, page) for sample in some if is_there(sample.image)}
    deep = any(kind.deep for kind in kinds.values())
    deep = deep or (given is not None and first_deep((*samples, *others), page) is not None)
    if not deep and all(kind.colors for kind in kinds.values()):
        return None if page is None else InputSettings(page=page)
    channels = _same_channels(kinds)
    colors = all(kind.colors for kind in kinds.values())
    found = [_some_values(sample.image, page, channels) for sample in kinds]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    deeper = [v for v in found if v.dtype != np.uint8]
    if deep and given is not None:
        low, high = (given[0],), (given[1],)
    elif deeper:
        low, high = _range(np.concatenate(deeper), colors)
    reading = InputSettings(
        channels=channels, page=page, low=low, high=high, mean=(0,) * channels, std=(1,) * channels
    )
    pixels = np.concatenate([to_bytes(v, reading) for v in found])
    mean, std = pixels.mean(0, dtype=np.float64), pixels.std(0, dtype=np.float64)
    return reading.model_copy(
        update={
            "mean": tuple(mean.round(3).tolist()),
            # A channel that is the same everywhere has none, and nothing to say.
            "std": tuple(std.clip(min=1.0).round(3).tolist()),
        }
    )


def settle_reading(recipe: Recipe, manifest: Manifest) -> tuple[Recipe, Manifest]:
    """Give a recipe and its data set the reading that the run folder has, or that the data need.

    Raises:
        UserError: as `find_reading`; or the networks of another run take none but bytes.
    """
    reading = _reading_of(recipe, manifest)
    if recipe.networks.run and recipe.backbone.input is None and reading and reading.mean:
        raise UserError(
            f"{recipe.data}: {describe(reading)}, but the networks of {recipe.networks.run} "
            "learned from 8-bit gray or RGB; save these images so too"
        )
    settled = with_reading(recipe, reading)
    if reading is not None:
        say(describe(reading))
    return settled, manifest.with_reading(reading)


def _reading_of(recipe: Recipe, manifest: Manifest) -> InputSettings | None:
    dataset, file = recipe.dataset, recipe.out / RECIPE
    given = recipe.backbone.input
    asked = dataset.range is None or (given and given.low == dataset.range[:1])
    if given is not None and given.page == dataset.page and asked:
        return given
    if file.is_file():
        before = Recipe.load(file, out=recipe.out)
        if (before.dataset.page, before.dataset.range) == (dataset.page, dataset.range):
            return before.backbone.input
    train, others = (samples_of(recipe, manifest, *roles) for roles in (("train",), _OTHERS))
    return find_reading(train, dataset.page, dataset.range, others)


def check_depths(recipe: Recipe, manifest: Manifest) -> None:
    """Refuse images that are deeper than those whose values were measured.

    It looks at each image's head: one of several processes does so for all, where there is work.

    Raises:
        UserError: the first of them, and what to do.
    """
    reading = recipe.backbone.input
    if reading is None or reading.low is None:
        images = samples_of(recipe, manifest, "train", *_OTHERS)
        if odd := first_deep(images, recipe.dataset.page):
            raise deep_error(odd.image)


def first_deep(samples: Sequence[Sample], page: int | None = None) -> Sample | None:
    """Return the first image of more than bytes, by the heads alone.

    What can't be read is passed over, for whoever decodes it to say; so is what lies behind a URL,
    as its head can't be had without the whole. `load_image` refuses it.
    """

    def is_deep(sample: Sample) -> bool:
        try:
            return url_of(sample.image) is None and kind_of(sample.image, page).deep
        except UserError:
            return False

    name = "look at the kinds of images"
    with ThreadPoolExecutor(_THREADS) as pool, task(name, len(samples)) as progress:
        # Not all in one map: each that waits takes 2 kB.
        for start in range(0, len(samples), _AHEAD):
            some = samples[start : start + _AHEAD]
            for sample, deep in zip(some, pool.map(is_deep, some), strict=True):
                if deep:
                    return sample
                progress.advance()
    return None


def with_reading(recipe: Recipe, reading: InputSettings | None) -> Recipe:
    """Return a recipe all of whose networks take images that are read so."""
    if reading is None:
        return recipe
    own, segmenter = {"input": reading}, recipe.segmenter
    if segmenter.backbone is not None:
        backbone = segmenter.backbone.model_copy(update=own)
        segmenter = segmenter.model_copy(update={"backbone": backbone})
    backbone = recipe.backbone.model_copy(update=own)
    return recipe.model_copy(update={"backbone": backbone, "segmenter": segmenter})


def describe(reading: InputSettings) -> str:
    """Say in a sentence how images are read."""
    parts = [f"images: {reading.channels} channels" if reading.channels != 3 else "images:"]
    if reading.low is not None and reading.high is not None:
        ends = [f"{low:g} to {high:g}" for low, high in zip(reading.low, reading.high, strict=True)]
        parts.append(
            f"the training images' values {', '.join(ends)} become 0 to 255 (--dataset.range "
            "sets others)"
        )
    if reading.page is not None:
        parts.append(f"page {reading.page} of TIFFs of several")
    if reading.mean:
        parts.append("normalized by their own mean and deviation")
    first, *rest = parts
    return f"{first} {', '.join(rest)}" if first == "images:" else ", ".join(parts)


def load_read(path: Path, reading: InputSettings) -> npt.NDArray[np.uint8]:
    """Decode an image to (H, W, channels) bytes, as a data set's reading says.

    Raises:
        UserError: it can't be read, or has other channels than the data set.
    """
    values = _fitting(path, reading.page, reading.channels)
    try:
        return np.ascontiguousarray(to_bytes(values, reading))
    except ValueError as error:
        raise deep_error(path) from error


def to_bytes(values: npt.NDArray[Any], reading: InputSettings) -> npt.NDArray[np.uint8]:
    """Stretch values (..., C) to bytes: ``255 (v - low) / (high - low)``; bytes stay."""
    if values.dtype == np.uint8:
        return values
    if reading.low is None or reading.high is None:
        raise ValueError(f"{values.dtype} values, where the training images hold bytes")
    # float64 for integers that float32 can't tell apart.
    wide = values.dtype.itemsize > 2 and values.dtype.kind in "iu"
    kind: Any = np.float64 if wide else np.float32
    low, high = np.array(reading.low, kind), np.array(reading.high, kind)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (values.astype(kind) - low) * (255 / (high - low))
    # NaN, which float images have where there is nothing, becomes 0.
    found: npt.NDArray[np.uint8]
    found = np.rint(np.nan_to_num(scaled, nan=0.0).clip(0, 255)).astype(np.uint8)
    return found


def _fitting(path: Path, page: int | None, channels: int) -> npt.NDArray[Any]:
    values = _values(path, page)
    if channels == 3 and values.shape[2] == 1:
        return values.repeat(3, 2)
    if values.shape[2] != channels:
        raise UserError(
            f"{path}: has {values.shape[2]} channels, and the data set's images {channels}; all "
            "need the same"
        )
    return values


def _values(path: Path, page: int | None) -> npt.NDArray[Any]:
    """Return an image's values (H, W, C) as its file has them; 8-bit colors as RGB."""
    if not is_tiff(path):
        return read_gray16(path) if _is_gray16_png(path) else load_image(path)
    head = read_head(path, page or 0)
    if head.plain:
        return load_image(path, page=page)
    try:
        return read_tiff(path, page, pixel_limit())
    except UserError as error:
        # Pillow reads these as well, and needs no other package.
        if head.gray16 and not page and isinstance(error.__cause__, ImportError):
            return read_gray16(path)
        raise


def _is_gray16_png(path: Path) -> bool:
    """Tell by a PNG's head whether it holds 16-bit gray values: Pillow reads 16-bit RGB as 8."""
    try:
        with open_file(path) as file:
            head = file.read(26)
    except OSError:
        return False
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:26] == b"\x10\0"


def _same_channels(kinds: dict[Sample, Kind]) -> int:
    # Gray goes with RGB, as it always did.
    counts = {s: 3 if kind.channels == 1 else kind.channels for s, kind in kinds.items()}
    (first, count), *rest = counts.items()
    for sample, other in rest:
        if other != count:
            raise UserError(
                f"{sample.image}: has {other} channels, and {first.image} {count}; images of a "
                "data set need the same"
            )
    return count


def _some_values(path: Path, page: int | None, channels: int) -> npt.NDArray[Any]:
    """Return up to `_PIXELS` of an image's values (n, C), evenly over it."""
    flat = _fitting(path, page, channels).reshape(-1, channels)
    return flat[:: -(-len(flat) // _PIXELS) or 1]


def _range(values: npt.NDArray[Any], colors: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the ends of the range: one of all channels if they are colors, else one of each."""
    with np.errstate(invalid="ignore"):
        wide = values.astype(np.float64)
    columns = [wide.ravel()] if colors else list(wide.T)
    low, high = [], []
    for column in columns:
        # Of float32, in which values become bytes.
        finite = column[np.abs(column) < _LARGEST]  # neither infinite nor NaN
        ends = np.quantile(finite, (_TAIL, 1 - _TAIL)) if finite.size else (0.0, 1.0)
        low.append(float(f"{ends[0]:.6g}"))
        # One value everywhere: black, and nothing to stretch.
        high.append(max(float(f"{ends[1]:.6g}"), low[-1] + 1e-6 * max(1.0, abs(low[-1]))))
    return tuple(low), tuple(high)
