"""Which of an image's channels people, and what works on colors, are shown."""

from typing import Any, TypeVar

AnyImage = TypeVar("AnyImage", bound=Any)


def three_channels(image: AnyImage) -> AnyImage:
    """Return three channels (..., 3) of an image (..., N), an array or a tensor.

    The first three; of an image with fewer they are repeated in turn: one channel becomes gray, two
    become (first, second, first). Reports, pages, exports, the dense CRF and the boundary contrast
    see these; networks see all N.
    """
    count = int(image.shape[-1])
    if count == 3:
        return image
    shown: AnyImage = image[..., [number % count for number in range(3)]]
    return shown
