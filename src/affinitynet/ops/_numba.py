"""The two ways kernels are compiled, with their types kept for the type checker.

With AFFINITYNET_CHECK_BOUNDS=1 in the environment before the first import, every index of a kernel
and every load and store of `_vectors` is checked, and one outside its array raises IndexError.
Kernels then compile anew in each process and run several times slower: it is for finding a bug.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])
R = TypeVar("R")

CHECKED = os.environ.get("AFFINITYNET_CHECK_BOUNDS", "0") not in ("", "0")

# numba's key of machine code on disk holds neither its own option nor ours: code with checks is
# never read from there nor written there, so that neither mode meets the other's.
_OPTIONS: dict[str, Any] = {"nogil": True, "cache": not CHECKED}
if CHECKED:
    _OPTIONS["boundscheck"] = True


_kernels: list[Any] = []
_mended: set[Callable[[], None]] = set()


class CannotCompileError(Exception):
    """A kernel cannot be compiled here; its cause says why."""


def compiled(function: F) -> F:
    """Compile for one thread, without the GIL, and keep the machine code on disk."""
    return _compiled(function)


def fused(function: F) -> F:
    """Compile likewise, products and sums fused and reordered.

    That is what lets long sums run in vector registers; infinities and NaN keep their meaning.
    """
    return _compiled(function, fastmath={"contract", "reassoc", "nsz"})


def _compiled(function: F, **more: Any) -> F:
    options = _OPTIONS | more
    try:
        kernel = numba.njit(**options)(function)
    except RuntimeError:  # no folder for the machine code can be written: compile in each process
        kernel = numba.njit(**options | {"cache": False})(function)
    _kernels.append(kernel)
    return cast(F, kernel)


def call(kernel: Callable[..., R], *args: object) -> R:
    """Compile a kernel for these arguments, if that is still to do, and run it.

    Apart from one another, so that a failure to compile is never taken for an error in the run,
    whatever the class of its exception: numba, LLVM and the disk each raise their own. Machine code
    on disk that can't be read, as after a full disk, is made anew; where that can't be written, it
    is done without.

    Raises:
        CannotCompileError: it does not compile; then none of the arguments has been touched.
    """
    types = tuple(numba.typeof(arg) for arg in args)  # type: ignore[no-untyped-call]
    try:
        _compile(kernel, types)
    except MemoryError:  # says nothing about whether the kernel compiles
        raise
    except Exception as error:
        raise CannotCompileError from error
    return kernel(*args)


def _compile(kernel: Any, types: tuple[Any, ...]) -> None:
    for mend in (_forget_code, _keep_no_code):
        try:
            kernel.compile(types)
        except MemoryError:
            raise
        except Exception:
            if mend in _mended:  # once in a process: it was not that
                raise
            _mended.add(mend)
            mend()
        else:
            return
    kernel.compile(types)


def _forget_code() -> None:
    """Empty the index of all kernels' machine code: one may be inlined in another."""
    for kernel in _kernels:
        with suppress(OSError):
            kernel._cache.flush()


def _keep_no_code() -> None:
    for kernel in _kernels:
        kernel._cache.disable()
