"""Read images of any kind as 8-bit RGB."""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from affinitynet.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
_WHITE = (255, 255, 255, 255)
_BITS_PER_SAMPLE = 258  # TIFF's tag


def is_image_name(path: Path) -> bool:
    """Whether a file's name says that it is an image; macOS's companions (``._x.jpg``) are none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("._")


def load_image(path: Path | str) -> npt.NDArray[np.uint8]:
    """Decode an image file to (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Greyscale, palette and CMYK images are converted; transparent pixels are laid on white (what
    a web page shows); 16-bit grey is scaled to 8 bits by 255 / 65535, a TIFF's 12-bit grey by
    255 / 4095; of several frames the first counts. Raises UserError, naming the file, where it is
    missing, damaged, of a kind that has no agreed conversion (floating point), or above Pillow's
    `Image.MAX_IMAGE_PIXELS`.
    """
    with open_image(Path(path)) as image:
        return np.array(_to_rgb(image, Path(path)))


def open_image(path: Path) -> Image.Image:
    """Open and fully decode an image, EXIF orientation applied; errors as for `load_image`."""
    try:
        image = Image.open(path)
        try:
            _check_size(image, path)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
        except BaseException:
            image.close()
            raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path) from None
    except FileNotFoundError:
        raise UserError(f"There is no image {path}.") from None
    # What Pillow's decoders raise on damaged files; a broken PNG chunk is a SyntaxError.
    except (OSError, SyntaxError, ValueError, struct.error, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"The image {path} can't be decoded ({reason}).") from error
    return image


def _check_size(image: Image.Image, path: Path) -> None:
    # Pillow only warns between its limit and twice that.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise _too_large(path)


def _too_large(path: Path) -> UserError:
    return UserError(
        f"{path} has more than {Image.MAX_IMAGE_PIXELS} pixels: cut it into tiles, or raise "
        "PIL.Image.MAX_IMAGE_PIXELS if you trust the file."
    )


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise UserError(f"{path} has grey values beyond 16 bits: convert it to 8 or 16 bits.")
        most = _largest_grey(image)
        return Image.fromarray(((grey * 255 + most // 2) // most).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UserError(f"{path} has floating point values: convert it to 8 or 16 bits.")
    if image.has_transparency_data:
        upright = image.convert("RGBA")
        white = Image.new("RGBA", upright.size, _WHITE)
        return Image.alpha_composite(white, upright).convert("RGB")
    return image.convert("RGB")


def _largest_grey(image: Image.Image) -> int:
    """The largest grey value: Pillow leaves 12-bit TIFFs (microscopes, X-ray) at 0..4095."""
    bits = image.tag_v2.get(_BITS_PER_SAMPLE, (16,)) if isinstance(image, TiffImageFile) else (16,)
    return 4095 if bits[0] == 12 else 65535
