"""numpy's array files, read without trusting what their headers claim.

`numpy.load` evaluates the header as Python text and takes the memory it asks for before it reads a
byte. Files from elsewhere get neither: the header is matched, and a claim that the file cannot
keep is refused.
"""

import re
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

MAGIC = b"\x93NUMPY"
_HEADER_LIMIT = 10_000  # numpy's own limit
_DESCR = re.compile(rb"['\"]descr['\"]\s*:\s*['\"]([<>|=]?(?:[biuf]\d{1,2}|\?|O\d?))['\"]")
_ORDER = re.compile(rb"['\"]fortran_order['\"]\s*:\s*(True|False)")
_SHAPE = re.compile(rb"['\"]shape['\"]\s*:\s*\(([\dL,\s]*)\)")


class Header(NamedTuple):
    """What an array file says about its array."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool

    @property
    def bytes(self) -> int:
        """How many bytes follow the header."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size


def read_header(stream: IO[bytes]) -> Header:
    """Read the header of an `.npy` stream; the stream is then at the array's first byte.

    Raises:
        ValueError: it is no such header, or one of a structured, text or date dtype.
    """
    start = stream.read(8)
    if len(start) < 8 or start[:6] != MAGIC or start[6] not in (1, 2, 3):
        raise ValueError("not an array of numpy")
    # Version 1 has two bytes for the length, later ones four.
    length_bytes = stream.read(2 if start[6] == 1 else 4)
    length = int.from_bytes(length_bytes, "little")
    if length > _HEADER_LIMIT:
        raise ValueError("its header is too long")
    text = stream.read(length)
    descr, order, shape = (pattern.search(text) for pattern in (_DESCR, _ORDER, _SHAPE))
    if len(text) < length or descr is None or order is None or shape is None:
        raise ValueError("its header is not one of a plain array of numbers")
    lengths = [part.strip(b" L\n") for part in shape[1].split(b",")]  # Python 2 wrote 375L
    return Header(
        _dtype(descr[1].decode("ascii")),
        tuple(int(part) for part in lengths if part),
        order[1] == b"True",
    )


def _dtype(descr: str) -> np.dtype[Any]:
    try:
        return np.dtype(descr)
    except TypeError as error:
        raise ValueError(f"its numbers are of the unknown kind {descr}") from error


def read_values(stream: IO[bytes], header: Header) -> npt.NDArray[Any]:
    """Read the array that follows `header`, read-only and in native byte order.

    Raises:
        ValueError: an array of Python objects, or fewer or more bytes than the header claims.
    """
    if header.dtype.hasobject:
        raise ValueError("holds Python objects, not numbers")
    # One byte too many, to notice a file that goes on.
    data = stream.read(header.bytes + 1)
    return as_array(data, header.dtype, header.shape, header.fortran)


def as_array(
    data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool
) -> npt.NDArray[Any]:
    """Lay `data` out as an array; ValueError where its length is not the one the shape needs."""
    expected = Header(dtype, shape, fortran).bytes
    if len(data) != expected:
        # A stream is read one byte too far at most, so more is all that is known.
        found = f"{len(data)}" if len(data) < expected else "more"
        raise ValueError(f"shape {shape} of {dtype} needs {expected} bytes, found {found}")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)
