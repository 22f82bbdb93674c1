"""TIFFs of any kind: their heads, and by tifffile pixels beyond 8-bit RGB.

tifffile and imagecodecs come with the extra `tiff`, and are imported where such a file is read.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from affinitynet.errors import UserError
from affinitynet.run_folder.store import open_file, source

Values = npt.NDArray[Any]
Tags = dict[int, tuple[Any, ...]]

MOST_PAGES = 100_000  # that are counted
MOST_CHANNELS = 256
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF's
_KIND, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _DESCRIPTION = 254, 256, 257, 258, 262, 270
_ORIENTATION, _SAMPLES, _EXTRA, _FORMAT = 274, 277, 338, 339
_NODATA = 42113  # GDAL's, as text: the value of pixels that hold nothing
_MIN_IS_WHITE, _RGB, _PALETTE = 0, 2, 3
_KNOWN = {254, 256, 257, 258, 262, 270, 274, 277, 338, 339, _NODATA}
_TEXTS = (_DESCRIPTION, _NODATA)
_FORMS = {1: "B", 2: "s", 3: "H", 4: "L", 16: "Q"}  # of tags' values, for `struct`
_MOST_TAGS, _LONGEST = 4096, 1_000_000
_ALPHA = (1, 2)  # of what ExtraSamples says
# What Pillow brings to 8-bit gray or RGB: gray both ways, RGB, palette, CMYK, YCbCr, LAB.
_COLORS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
_IMAGEJ = re.compile(r"^images=(\d+)", re.MULTILINE)
_INSTALL = "pip install 'affinitynet[tiff]'"


class Head(NamedTuple):
    """What a TIFF says of itself: size (H, W) as stored, how it is turned, what its values are.

    channels: of a page, alpha counted out. kind: u, i or f, as numpy's. pages: without reduced
    copies. stacked: another program says how pages make up one image (ImageJ, OME). nodata: the
    value of pixels that hold nothing (GDAL), or None.
    """

    size: tuple[int, int]
    orientation: int
    channels: int
    bits: int
    kind: str
    photometric: int
    pages: int
    stacked: bool
    nodata: float | None = None

    @property
    def plain(self) -> bool:
        """Whether Pillow reads a page of it as 8-bit gray or RGB."""
        colors = _COLORS.get(self.photometric)
        few = self.bits in (1, 2, 4, 8) or (self.bits == 12 and self.channels == 1)
        return few and self.kind == "u" and self.channels == colors and not self.stacked

    @property
    def gray16(self) -> bool:
        """Whether Pillow reads it as it is: 16-bit gray."""
        gray = self.bits == 16 and self.kind == "u" and self.channels == 1
        alone = self.photometric == 1 and self.pages == 1 and not self.stacked
        return gray and alone and self.nodata is None

    @property
    def upright(self) -> tuple[int, int]:
        """Its size (H, W) once it is turned."""
        return self.size[::-1] if self.orientation > 4 else self.size


def is_tiff(path: Path) -> bool:
    """Tell by its first bytes whether a file is a TIFF."""
    try:
        with open_file(path) as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


def read_head(path: Path, page: int = 0) -> Head:
    """Read what a TIFF says of one of its pages, and count them.

    Raises:
        UserError: a damaged file.
    """
    with _blaming(path), open_file(path) as file:
        tags, pages = _directories(file, page)
        return _head(tags, pages)


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes others raise into one line that names it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: this image can't be decoded ({reason})") from error


def _directories(file: IO[bytes], page: int) -> tuple[Tags, int]:
    """Return the tags of a page, or of the last, and how many pages there are."""
    start = file.read(8)
    order = "<" if start[:2] == b"II" else ">"
    big = struct.unpack(f"{order}H", start[2:4])[0] == 43
    place = struct.unpack(f"{order}{'Q' if big else 'L'}", file.read(8) if big else start[4:])[0]
    seen: set[int] = set()
    first: Tags = {}
    wanted, pages = None, 0
    while place and place not in seen and len(seen) < MOST_PAGES:
        seen.add(place)
        file.seek(place)
        tags, place = _read_tags(file, order, big)
        first = first or tags
        # A smaller copy of the page before, as scanners and cameras write, is none of its own.
        if not tags.get(_KIND, (0,))[0] & 1:
            wanted = tags if pages <= page else wanted
            pages += 1
    if not first:
        raise ValueError("it has no page")
    # What programs say of all pages stands with the first.
    said = {_DESCRIPTION: first[_DESCRIPTION]} if _DESCRIPTION in first else {}
    return {**(wanted or first), **said}, max(pages, 1)


def _read_tags(file: IO[bytes], order: str, big: bool) -> tuple[Tags, int]:
    """Read a directory's tags that matter here, and where the next one lies."""

    def unpack(form: str) -> tuple[Any, ...]:
        form = order + form
        return struct.unpack(form, file.read(struct.calcsize(form)))

    tags: Tags = {}
    (count,) = unpack("Q" if big else "H")
    for _ in range(min(count, _MOST_TAGS)):
        tag, kind, number = unpack("HHQ" if big else "HHL")
        inline, after = 8 if big else 4, file.tell() + (8 if big else 4)
        form = _FORMS.get(kind, "")
        # No other tag is text, whatever a damaged file says of numbers.
        if tag in _KNOWN and form and number <= _LONGEST and (form == "s") == (tag in _TEXTS):
            form = order + (f"{number}s" if form == "s" else form * number)
            if struct.calcsize(form) > inline:
                file.seek(unpack("Q" if big else "L")[0])
            tags[tag] = struct.unpack(form, file.read(struct.calcsize(form)))
        file.seek(after)
    return tags, unpack("Q" if big else "L")[0] if count <= _MOST_TAGS else 0


def _head(tags: Tags, pages: int) -> Head:
    samples = tags.get(_SAMPLES, (1,))[0]
    alpha = sum(value in _ALPHA for value in tags.get(_EXTRA, ()))
    turned = tags.get(_ORIENTATION, (1,))[0]
    text = b"".join(tags.get(_DESCRIPTION, ())).decode("latin-1")
    images = _IMAGEJ.search(text) if text.startswith("ImageJ=") else None
    stacked = pages > 1 and ("<OME" in text or text.startswith("ImageJ="))
    return Head(
        (tags[_HEIGHT][0], tags[_WIDTH][0]),
        turned if turned in range(1, 9) else 1,
        samples - alpha if alpha < samples else samples,
        max(tags.get(_BITS, (1,))),
        {2: "i", 3: "f"}.get(tags.get(_FORMAT, (1,))[0], "u"),
        tags.get(_PHOTOMETRIC, (1,))[0],
        pages,
        # A large hyperstack of ImageJ has one directory for all of its images.
        stacked or (images is not None and int(images[1]) > 1),
        _number(b"".join(tags.get(_NODATA, ()))),
    )


def _number(text: bytes) -> float | None:
    try:
        return float(text.rstrip(b"\0 ").replace(b",", b"."))
    except ValueError:
        return None


def pages_error(path: Path, pages: int) -> UserError:
    """Return the refusal of a TIFF of several pages of which none is chosen."""
    return UserError(
        f"{path}: has {pages} pages, and one is needed; choose it by dataset.page, 0 to {pages - 1}"
    )


def channels_of(path: Path, page: int | None) -> tuple[int, bool]:
    """Count a TIFF's channels, and tell whether they are gray or RGB.

    Raises:
        UserError: as `read_tiff`; pixels are not read.
    """
    head = _checked_head(path, page)
    if not head.stacked:
        _check_page(path, page, head.pages)
        colors = head.channels == 1 or (head.channels == 3 and head.photometric == _RGB)
        return head.channels, colors
    with _blaming(path), _opened(path) as file:
        plane = _choose(path, file, page)
        return plane.channels, plane.channels == 1


def read_tiff(path: Path, page: int | None, limit: int | None) -> Values:
    """Read a TIFF's values as they are: (H, W, channels) of any type, upright, alpha left out.

    page: which, from 0, of several; limit: the most pixels.

    Raises:
        UserError: a damaged file, several pages and none chosen, no such page, too many channels or
            pixels, or the extra `tiff` is not installed.
    """
    head = _checked_head(path, page)
    with _blaming(path), _opened(path) as file:
        plane = _choose(path, file, page)
        if plane.channels > MOST_CHANNELS:
            raise UserError(f"{path}: has {plane.channels} channels; leave {MOST_CHANNELS}")
        if limit is not None and plane.height * plane.width > limit:
            raise UserError(
                f"{path}: has more than {limit} pixels; cut it into tiles, or allow more by "
                "--max-pixels if you trust the file"
            )
        values = plane.read()
    if values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "uif" or not values.size:
        raise UserError(f"{path}: has no numbers that are brightness ({values.dtype})")
    empty = None if head.nodata is None else values == head.nodata
    if head.photometric == _MIN_IS_WHITE and values.dtype.kind == "u":
        values = np.iinfo(values.dtype).max - values
    # Bytes stay bytes: there the value that says nothing is 0 or 255, black or white.
    if empty is not None and values.dtype != np.uint8 and empty.any():
        values = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
        values[empty] = np.nan
    return _turn(values[..., : head.channels] if not head.stacked else values, head.orientation)


def _checked_head(path: Path, page: int | None) -> Head:
    head = read_head(path, page or 0)
    if head.photometric == _PALETTE and not head.plain:
        raise UserError(
            f"{path}: has a palette of {head.bits} bits, whose numbers are no brightness; save it "
            "as RGB"
        )
    return head


def _check_page(path: Path, page: int | None, pages: int) -> None:
    if page is None and pages > 1:
        raise pages_error(path, pages)
    if page is not None and page >= pages:
        raise UserError(f"{path}: dataset.page is {page}, but it has {pages} pages, from 0")


def _opened(path: Path) -> Any:
    try:
        import imagecodecs  # noqa: F401
        import tifffile
    except ImportError as error:
        raise UserError(
            f"{path}: is no plain 8-bit TIFF, which takes other packages to read: {_INSTALL}"
        ) from error
    import logging

    # It says of odd tags what matters to nobody here.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    # One file alone: OME's may name others.
    return tifffile.TiffFile(source(path), _multifile=False)


class _Plane(NamedTuple):
    """One page of a series, by its place among the others."""

    series: Any
    number: int

    @property
    def channels(self) -> int:
        return int(np.prod([n for a, n in zip(*self._shape, strict=True) if a in "CS"], dtype=int))

    @property
    def height(self) -> int:
        return int(dict(zip(*self._shape, strict=True))["Y"])

    @property
    def width(self) -> int:
        return int(dict(zip(*self._shape, strict=True))["X"])

    @property
    def _shape(self) -> tuple[str, tuple[int, ...]]:
        return self.series.axes, self.series.shape

    def read(self) -> Values:
        """Return (H, W, channels)."""
        axes, shape = self._shape
        size = dict(zip(axes, shape, strict=True))
        pages, each = self.series.pages, self.series.keyframe.axes
        outer = axes.removesuffix(each)
        inner = [size[axis] for axis in outer]
        if len(outer) + len(each) == len(axes) and len(pages) == int(np.prod(inner, dtype=int)):
            # The pages of this image alone: a stack may not fit into memory.
            order = np.arange(len(pages)).reshape(inner)
            wanted = _split(order, outer, self.number)
            read = [pages[int(number)].asarray() for number in wanted.ravel()]
            values = np.stack(read).reshape(*wanted.shape, *read[0].shape)
            left = "".join(axis for axis in outer if axis == "C") + each
        else:
            values, left = _split(self.series.asarray(), axes, self.number), _own(axes)
        last = [left.index("Y"), left.index("X")]
        rest = [place for place in range(len(left)) if place not in last]
        return values.transpose(*last, *rest).reshape(size["Y"], size["X"], -1)


def _own(axes: str) -> str:
    return "".join(axis for axis in axes if axis in "CSYX")


def _split(values: Values, axes: str, number: int) -> Values:
    """Take the `number`th of what an array holds along the axes that are no image's own."""
    own = [place for place, axis in enumerate(axes) if axis in "CSYX"]
    others = [place for place in range(len(axes)) if place not in own]
    moved = values.transpose(*others, *own)
    page: Values = moved.reshape(-1, *moved.shape[len(others) :])[number]
    return page


def _choose(path: Path, file: Any, page: int | None) -> _Plane:
    """Find a page among those of all series that are images."""
    planes: list[_Plane] = []
    for series in file.series:
        if not {"X", "Y"} <= set(series.axes) or series.keyframe.is_reduced:
            continue
        sizes = zip(series.axes, series.shape, strict=True)
        count = int(np.prod([size for axis, size in sizes if axis not in "CSYX"], dtype=int))
        if len(planes) + count > MOST_PAGES:
            raise UserError(f"{path}: has more than {MOST_PAGES} pages; take it apart")
        planes += [_Plane(series, number) for number in range(count)]
    if not planes:
        raise UserError(f"{path}: holds no image")
    _check_page(path, page, len(planes))
    return planes[page or 0]


def _turn(values: Values, orientation: int) -> Values:
    """Turn an image (H, W, channels) upright by TIFF's orientation, 1 to 8."""
    turned = values.transpose(1, 0, 2) if orientation > 4 else values
    upside_down = orientation in (3, 4, 7, 8)
    mirrored = orientation in (2, 3, 6, 7)
    return turned[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
