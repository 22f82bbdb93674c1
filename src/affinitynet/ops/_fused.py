"""How the kernels of long sums are compiled."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def fused(function: F) -> F:
    """Compile for one thread, without the GIL, keeping the machine code on disk.

    Products and sums may be fused and reordered, which is what lets them run in vector
    registers; infinities and NaN keep their meaning.
    """
    fast = {"contract", "reassoc", "nsz"}
    return cast(F, numba.njit(nogil=True, cache=True, fastmath=fast)(function))
