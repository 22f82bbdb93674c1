"""Archives of arrays (`.npz`): one reader that turns all damage into one line, and one writer."""

import contextlib
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from affinitynet.data.npy import Header, read_header, read_values
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import atomic_write
from affinitynet.run_folder.store import source

# What zipfile and zlib raise on damaged archives; NotImplementedError is a RuntimeError.
_DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error),
    *(struct.error, OverflowError, MemoryError),
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy writes
_SUFFIX = ".npy"


class Npz:
    """An open archive; from `open_npz`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, advice: str) -> None:
        """Wrap an open zip file; `advice` ends every message."""
        self.path = path
        self.advice = advice
        self._archive = archive
        self.names = tuple(
            name.removesuffix(_SUFFIX) for name in archive.namelist() if name.endswith(_SUFFIX)
        )

    def error(self, entry: str, what: str) -> UserError:
        """Say what is wrong with an entry of this file, and what to do."""
        return UserError(f"{self.path}: entry {entry!r} {what}; {self.advice}")

    def header(self, name: str) -> Header:
        """Read an array's dtype and shape alone: check them before its memory is taken."""
        with self._reading(name) as stream:
            return read_header(stream)

    def array(
        self,
        name: str,
        dtype: npt.DTypeLike | None = None,
        shape: tuple[int | None, ...] | None = None,
    ) -> npt.NDArray[Any]:
        """Read one array, read-only; a length None in `shape` may be any.

        Raises:
            UserError: it is not there, damaged, or of another dtype or shape.
        """
        with self._reading(name) as stream:
            # All checks before the values are read: until then they take no memory.
            header = read_header(stream)
            if dtype is not None and header.dtype != np.dtype(dtype):
                raise self.error(name, f"is {header.dtype}, not {np.dtype(dtype)}")
            if shape is not None and not _fits(header.shape, shape):
                expected = ", ".join("any" if n is None else str(n) for n in shape)
                raise self.error(name, f"has shape {header.shape}, not ({expected})")
            return read_values(stream, header)

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[Any]:
        if name not in self.names:
            raise self.error(name, "is missing")
        try:
            if self._archive.getinfo(name + _SUFFIX).compress_type not in _METHODS:
                raise ValueError("compressed in a way that numpy does not write")
            with self._archive.open(name + _SUFFIX) as stream:
                yield stream
        except _DAMAGE as error:
            raise self.error(name, f"can't be read ({_reason(error)})") from error


@contextlib.contextmanager
def open_npz(path: Path, advice: str) -> Iterator[Npz]:
    """Open an archive of arrays; pickled arrays in it are refused, and the file is closed again.

    advice: what to do where the file is bad, e.g. "make all CAMs again with --redo compute_cams".

    Raises:
        UserError: the file is not there, or no archive.
    """
    try:
        archive = zipfile.ZipFile(source(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {advice}") from None
    except _DAMAGE as error:
        raise UserError(f"{path}: can't be read ({_reason(error)}); {advice}") from error
    with archive:
        yield Npz(path, archive, advice)


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]], level: int) -> None:
    """Write arrays by name, atomically, so that `numpy.load` reads them.

    level: zlib's, 1 (fast) to 9 (small); 0 stores the bytes as they are. The same arrays give the
    same bytes with one version of zlib: the entries carry no time.
    """
    kind = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    with (
        atomic_write(path) as temporary,
        zipfile.ZipFile(temporary, "w", kind, compresslevel=level) as archive,
    ):
        for name, array in arrays.items():
            # Not np.savez_compressed, whose level is fixed.
            with archive.open(name + _SUFFIX, "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        want in (None, have) for have, want in zip(shape, expected, strict=True)
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__
