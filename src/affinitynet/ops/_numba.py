"""The one way kernels are compiled, with their types kept for the type checker."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile for one thread, without the GIL, and keep the machine code on disk."""
    return cast(F, numba.njit(nogil=True, cache=True)(function))


def compiled_fast(function: F) -> F:
    """Compile likewise, and let sums be reordered and fused; for code that meets no NaN."""
    fast = {"contract", "reassoc", "nsz", "arcp"}
    return cast(F, numba.njit(nogil=True, cache=True, fastmath=fast)(function))
