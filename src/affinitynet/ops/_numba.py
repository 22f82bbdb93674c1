"""The two ways kernels are compiled, with their types kept for the type checker."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile for one thread, without the GIL, and keep the machine code on disk."""
    return cast(F, numba.njit(nogil=True, cache=True)(function))


def fused(function: F) -> F:
    """Compile likewise, products and sums fused and reordered.

    That is what lets long sums run in vector registers; infinities and NaN keep their meaning.
    """
    fast = {"contract", "reassoc", "nsz"}
    return cast(F, numba.njit(nogil=True, cache=True, fastmath=fast)(function))
