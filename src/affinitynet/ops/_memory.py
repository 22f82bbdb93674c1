"""Memory that a thread keeps from one call of a kernel to the next."""

import math
import threading
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

New = Callable[[tuple[int, ...], Any], NDArray[Any]]  # makes an array of a shape and a type
LINE = 64  # bytes that a cache takes in at once
MOST = 1 << 27  # bytes that a thread keeps; what goes beyond is allocated each time


def fresh(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Make an array, not filled, that begins where a cache line does.

    numpy's begin 16 bytes later where they are large, and half of all vectors would lie across
    two lines.
    """
    buffer = np.empty(_bytes(shape, dtype) + LINE, np.uint8)
    # -address % LINE is the distance to the next line's beginning.
    return _array(buffer, -buffer.ctypes.data % LINE, shape, dtype)


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * int(np.dtype(dtype).itemsize)


def _array(
    buffer: NDArray[np.uint8], begin: int, shape: tuple[int, ...], dtype: Any
) -> NDArray[Any]:
    part = buffer[begin : begin + _bytes(shape, dtype)]
    return cast(NDArray[Any], part.view(dtype).reshape(shape))


class Memory(threading.local):
    """Arrays for one call, in memory that stays for the thread's next call.

    New memory comes from the system in pages of 4 kB, and touching each for the
    first time costs about as much as the arithmetic on it.
    """

    def __init__(self) -> None:
        self._buffer = fresh((0,), np.uint8)
        self._taken = 0

    def clear(self) -> None:
        """Begin a call: what was handed out before may be overwritten from now on."""
        # As much as the call before took, since what this one needs is known only at its end.
        wanted = min(self._taken, MOST)
        if wanted > len(self._buffer):
            self._buffer = fresh((wanted,), np.uint8)
        self._taken = 0

    def new(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Make an array as `fresh` does, in this memory if there is room."""
        # Whole lines, so that the next array begins at one too. What finds no room counts as well:
        # `clear` makes that room for the next call.
        begin = self._taken
        self._taken += -(-_bytes(shape, dtype) // LINE) * LINE
        if self._taken > len(self._buffer):
            return fresh(shape, dtype)
        return _array(self._buffer, begin, shape, dtype)
