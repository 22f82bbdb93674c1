"""Read images of any kind as bytes: as 8-bit RGB, or in the channels that a data set has."""

import errno
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from affinitynet.channels import three_channels
from affinitynet.errors import UserError
from affinitynet.run_folder.settings_base import InputSettings
from affinitynet.run_folder.store import source

R = TypeVar("R")
Reading = InputSettings | Literal["any"] | None

# Pillow opens some forty formats, whatever a file's name says; one of them starts Ghostscript.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
_READ = ".jpg .jpeg .jpe .jfif .png .tif .tiff .webp .bmp .gif .pnm .pbm .pgm .ppm"
IMAGE_SUFFIXES = frozenset(_READ.split())
_UNREAD = (
    ".avif .heic .heif .jp2 .j2k .jpx .jxl .psd .dng .cr2 .cr3 .nef .arw .tga .dds .exr .hdr .ico "
    ".eps .svg .pdf .dcm .nii .npy .mp4 .mov"
)
UNREAD_SUFFIXES = frozenset(_UNREAD.split())
MAX_PIXELS = "AFFINITYNET_MAX_PIXELS"  # in the environment, so that loading processes know it too

# `_read` refuses such images in words.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Such tags matter to nobody here, or the image is refused in words.
warnings.filterwarnings("ignore", message="Corrupt EXIF data")

_WHITE = (255, 255, 255, 255)
_BITS_PER_SAMPLE = 258  # TIFF's tag
_ORIENTATION = 274  # EXIF's and TIFF's tag
_SUBFILE = 254  # TIFF's tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GRAY16 = ("I;16", "I;16B", "I;16L", "I")  # Pillow's modes
_MOST_AGAIN = 10_000  # folders that one walk reaches again by links
_HIDDEN = ("__macosx", "#recycle", "$recycle.bin", "lost+found", "system volume information")


def is_image_name(path: Path) -> bool:
    """Whether a file's name says that it is an image; hidden files (``._x.jpg``) are none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def is_hidden(folder: str) -> bool:
    """Whether a folder's name says that systems and tools keep thumbnails and copies there."""
    return folder.startswith((".", "@")) or folder.casefold() in _HIDDEN


def walk_files(
    folder: Path, stop: frozenset[str] = frozenset(), *, links: bool = True
) -> Iterator[Path]:
    """Yield the files below a folder, in the order of their names; hidden folders are passed over.

    stop: folders that hold all files of these names are passed over too. links: follow links to
    folders, unless they lead back to a folder on their own path.

    Raises:
        UserError: links lead to the same folders over and over.
    """
    # Of folders still to walk: the real paths of those that lead there, and its own as the last.
    chains: dict[str, tuple[str, ...]] = {os.fspath(folder): (os.path.realpath(folder),)}
    seen: set[str] = set()
    again = 0
    for base, folders, files in os.walk(folder, followlinks=links):
        chain = chains.pop(base)
        again += chain[-1] in seen
        seen.add(chain[-1])
        if again > _MOST_AGAIN:
            raise UserError(f"{base}: links lead here in too many ways; take some of them out")
        if stop and stop <= set(files):
            folders.clear()
            continue
        inner = {
            name: _real(os.path.join(base, name), chain[-1])  # noqa: PTH118
            for name in sorted(folders)
            if not is_hidden(name)
        }
        # In place: os.walk then goes into these, in this order.
        folders[:] = [name for name, real in inner.items() if real not in chain]
        for name in folders:
            chains[os.path.join(base, name)] = (*chain, inner[name])  # noqa: PTH118
        yield from (Path(base, name) for name in sorted(files))


def _real(path: str, above: str) -> str:
    """Return a folder's real path; that of the folder above is known, which spares most look-ups.

    Windows has other links as well, which only their real paths tell.
    """
    known = os.name != "nt" and not os.path.islink(path)  # noqa: PTH114
    return os.path.join(above, os.path.basename(path)) if known else os.path.realpath(path)  # noqa: PTH118, PTH119


def load_image(
    path: Path | str, reading: Reading = "any", *, page: int | None = None
) -> npt.NDArray[np.uint8]:
    """Decode an image file to (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Gray, palette and CMYK images are converted; transparent pixels are laid on white (what a web
    page shows); 16-bit gray is scaled to 8 bits by 255 / 65535, a TIFF's 12-bit gray by 255 / 4095;
    of several frames the first counts, but of a TIFF's pages one must be chosen.

    reading: how a data set's images are read (`Sample.reading`): to (H, W, channels) bytes; None:
        all are 8-bit gray or RGB, and 16-bit gray, which would be nearly black, is refused.

    Raises:
        UserError: the file is missing, damaged, none of `FORMATS`, of a kind that has no agreed
            conversion (floating point, LAB), or has more pixels than allowed.
    """
    path = Path(path)
    if isinstance(reading, InputSettings):
        # Here, as most data sets never need it.
        from affinitynet.data.readings import load_read

        return load_read(path, reading)
    with _read(path, lambda image: _decode(_at_page(image, path, page))) as image:
        if reading is None and _is_deep(image):
            raise deep_error(path)
        try:
            return np.array(_to_rgb(image, path))
        except ValueError as error:
            raise UserError(
                f"{path}: colors of the kind {image.mode} can't be converted; save it as RGB"
            ) from error


def load_picture(path: Path | str, reading: Reading = "any") -> npt.NDArray[np.uint8]:
    """Load an image as people, exports and the dense CRF see it: (H, W, 3), by `three_channels`."""
    return three_channels(load_image(path, reading))


def deep_error(path: Path) -> UserError:
    """Make the error for an image of more bits than those that a data set's reading was found in.

    Stretched like nothing that was trained on, it would be nearly black.
    """
    return UserError(
        f"{path}: has more than 8 bits a channel, and the training images have 8; save it with 8 "
        "bits, or train with dataset.range set"
    )


def read_gray16(path: Path) -> npt.NDArray[np.integer[Any]]:
    """Read 16-bit gray as it is: (H, W, 1); errors as for `load_image`."""
    with open_image(path) as image:
        return np.array(image)[..., None]


def open_image(path: Path) -> Image.Image:
    """Open and fully decode an image, turned upright; errors as for `load_image`."""
    return _read(path, _decode)


def read_size(path: Path, reading: InputSettings | None = None) -> tuple[int, int]:
    """Return (H, W) of an upright image by its header alone; errors as for `load_image`."""
    if reading is not None and (known := _tiff_size(path, reading.page)):
        return known

    def size(image: Image.Image) -> tuple[int, int]:
        # 5 to 8 exchange height and width. Of a TIFF Pillow gives the upright size already.
        turned = not isinstance(image, TiffImageFile) and orientation(image) > 4
        return (image.width, image.height) if turned else (image.height, image.width)

    try:
        return _read(path, size, close=True)
    except UserError:
        if found := _tiff_size(path, None):  # of a kind that Pillow can't read
            return found
        raise


def read_orientation(path: Path) -> int:
    """Return how an image is to be turned, EXIF's 1 (upright) to 8; errors as for `load_image`."""
    from affinitynet.data.tiff import is_tiff, read_head

    # Pillow can't open all that has the tag.
    return read_head(path).orientation if is_tiff(path) else _read(path, orientation, close=True)


def fits_unturned(path: Path, size: tuple[int, int]) -> bool:
    """Tell whether an image is turned and of the same size (H, W) as if it were not.

    2 to 4 mirror or turn by half and keep the size; 5 to 8 swap the sides, which checks of sizes
    find unless the image is square.
    """
    turn = read_orientation(path)
    return turn in (2, 3, 4) or (turn > 4 and size[0] == size[1])


def orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1 where nothing that can be read says one."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return int(value) if value in _TURNS else 1
    except Exception:  # whatever a damaged entry raises: the pixels are sound
        return 1


def allow_pixels(most: int) -> None:
    """Allow images of up to `most` pixels, in this process and in those that it starts.

    Raises:
        UserError: a number below 1.
    """
    if most < 1:
        raise UserError(f"--max-pixels {most}: must be at least 1")
    os.environ[MAX_PIXELS] = str(most)


def pixel_limit() -> int | None:
    """Return the most pixels that an image may have, None for any number."""
    return _limit()


def _tiff_size(path: Path, page: int | None) -> tuple[int, int] | None:
    from affinitynet.data.tiff import is_tiff, read_head

    return read_head(path, page or 0).upright if is_tiff(path) else None


def _at_page(image: Image.Image, path: Path, page: int | None) -> Image.Image:
    """Go to a TIFF's page; smaller copies among them are none.

    Raises:
        UserError: it has several, and none is chosen, or no such page.
    """
    if not isinstance(image, TiffImageFile) or getattr(image, "n_frames", 1) == 1:
        return image
    frames = [frame for frame in range(image.n_frames) if not _is_reduced(image, frame)]
    if page is None and len(frames) > 1:
        from affinitynet.data.tiff import pages_error

        raise pages_error(path, len(frames))
    if page is not None and page >= len(frames):
        raise UserError(f"{path}: dataset.page is {page}, but it has {len(frames)} pages, from 0")
    image.seek(frames[page or 0] if frames else 0)
    return image


def _is_reduced(image: TiffImageFile, frame: int) -> bool:
    image.seek(frame)
    return bool(int(image.tag_v2.get(_SUBFILE, 0)) & 1)


def _read(path: Path, work: Callable[[Image.Image], R], close: bool = False) -> R:
    try:
        limit = _limit()
        image = Image.open(source(path), formats=FORMATS)
        try:
            # By the header alone, before any pixel takes memory.
            if limit is not None and image.width * image.height > limit:
                raise _too_large(path)
            result = work(image)
        except BaseException:
            image.close()
            raise
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path) from None
    except UnidentifiedImageError as error:
        if said := _say_tiff(path):
            raise UserError(said) from error
        raise UserError(
            f"{path}: this image can't be decoded (it is damaged, or none of {', '.join(FORMATS)})"
        ) from error
    except Exception as error:  # decoders raise what they like, SyntaxError among it
        if isinstance(error, FileNotFoundError) or getattr(error, "errno", 0) == errno.ELOOP:
            raise UserError(f"{path}: {_say_gone(path)}") from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: this image can't be decoded ({reason})") from error
    if close:
        image.close()
    return result


def _say_gone(path: Path) -> str:
    gone = "is a link that leads to no file; mend it, or take it out"
    return gone if path.is_symlink() else "there is no such image"


def _say_tiff(path: Path) -> str:
    """Say what a sound TIFF is that Pillow can't read; "" of another file."""
    from affinitynet.data.tiff import is_tiff, read_head

    try:
        head = read_head(path) if is_tiff(path) else None
    except UserError:
        head = None
    if head is None or head.plain:
        return ""
    name = {"i": "integer ", "f": "floating point "}.get(head.kind, "")
    return (
        f"{path}: has {head.channels} channels of {head.bits}-bit {name}values, "
        "where 8-bit gray or RGB is read; images of a data set need to be of one kind"
    )


def _decode(image: Image.Image) -> Image.Image:
    stream: IO[bytes] | None = getattr(image, "fp", None)
    if image.format == "PNG" and stream is not None:
        _check_sums(stream)
    # Pillow turns a TIFF itself. Its exif_transpose also writes the metadata again, which fails for
    # entries of an odd type; only the orientation matters here. Asked before the pixels are read,
    # as by `read_size`: behind them a PNG may say another.
    turn = None if isinstance(image, TiffImageFile) else _TURNS.get(orientation(image))
    if isinstance(image, TiffImageFile):
        # Pillow maps the file of a bare name into memory, by the size of the turned image.
        image.filename = ""
    image.load()
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.format = image.format
    image.close()
    return turned


def _check_sums(stream: IO[bytes]) -> None:
    """Refuse a PNG with a flipped bit among its pixels: Pillow does not look at their checksums.

    Raises:
        ValueError: a checksum differs.
    """
    place = stream.tell()
    stream.seek(8)
    while len(head := stream.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IDAT":
            found = zlib.crc32(stream.read(length), zlib.crc32(kind))
            if stream.read(4) != found.to_bytes(4, "big"):
                raise ValueError("broken PNG: the checksum of its pixels differs")
        else:
            stream.seek(length + 4, os.SEEK_CUR)
    stream.seek(place)


def _limit() -> int | None:
    given = os.environ.get(MAX_PIXELS, "")
    if given.isdecimal():
        Image.MAX_IMAGE_PIXELS = int(given)
    return Image.MAX_IMAGE_PIXELS


def _too_large(path: Path) -> UserError:
    return UserError(
        f"{path}: has more than {Image.MAX_IMAGE_PIXELS} pixels; cut it into tiles, or allow more "
        "by --max-pixels if you trust the file"
    )


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _GRAY16:
        gray = np.asarray(image).astype(np.int64)
        if gray.min() < 0 or gray.max() > 65535:
            raise UserError(f"{path}: has gray values beyond 16 bits; convert it to 8 or 16 bits")
        most = _largest_gray(image)
        return Image.fromarray(((gray * 255 + most // 2) // most).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UserError(f"{path}: has floating point values; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        upright = image.convert("RGBA")
        white = Image.new("RGBA", upright.size, _WHITE)
        return Image.alpha_composite(white, upright).convert("RGB")
    return image.convert("RGB")


def _is_deep(image: Image.Image) -> bool:
    """Whether an image has gray values beyond bytes, of which nobody says what is white.

    PNM says it, and of 12 bits it is known.
    """
    return image.mode in _GRAY16 and image.format != "PPM" and _largest_gray(image) > 4095


def _largest_gray(image: Image.Image) -> int:
    """The largest gray value: Pillow leaves 12-bit TIFFs (microscopes, X-ray) at 0..4095."""
    bits = image.tag_v2.get(_BITS_PER_SAMPLE, (16,)) if isinstance(image, TiffImageFile) else (16,)
    return 4095 if bits[0] == 12 else 65535
