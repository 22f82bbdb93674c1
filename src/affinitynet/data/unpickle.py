"""The dictionaries that psa and IRN save with `numpy.save`, read without running their pickles.

`np.save(path, {...})` writes an array of one Python object, so a pickle. Of it we build arrays of
numbers, numbers, strings, lists, tuples and dictionaries, and torch tensors as arrays, and refuse
everything else.
"""

import io
import re
import struct
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from affinitynet.data.npy import as_array, read_header
from affinitynet.data.pickle_machine import Buildable, Builder, Global, RefusedError, read_pickle
from affinitynet.data.torch_storage import TORCH_GLOBALS
from affinitynet.errors import UserError

_ADVICE = "write the maps again as .npz, by np.savez(path, keys=..., cams=...)"
# What a damaged pickle makes its reader raise, wherever the damage lies.
_DAMAGE = (
    *(ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError, struct.error),
    OSError,
)
# Numbers of whole bytes, and objects (O), which only the outermost array may hold.
_CODE = re.compile(r"([<>|=]?)(b1|\?|[iu][1248]|f[248]|O[48]?)")


def load_dictionary(path: Path) -> dict[Any, Any]:
    """Read the dictionary of `np.save(path, dictionary)`; torch is not needed for its tensors.

    Keys are numbers and strings; values are read-only arrays, numbers, strings, lists, tuples and
    dictionaries.

    Raises:
        UserError: the file is damaged, is no such dictionary, or asks for anything but these;
            nothing of it was run.
    """
    try:
        stream = io.BytesIO(path.read_bytes())
        header = read_header(stream)
        if not header.dtype.hasobject:
            raise ValueError(f"an array of shape {header.shape}, not a dictionary of maps")
        value = read_pickle(stream, _GLOBALS)
    except RefusedError as refusal:
        raise UserError(
            f"{path}: its pickle asks for {refusal}, which no file of maps needs: "
            f"nothing of it was run; {_ADVICE}"
        ) from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: can't be read ({reason}); {_ADVICE}") from error
    if not isinstance(value, _Object) or type(value.content) is not dict:
        raise UserError(f"{path}: holds no dictionary of maps; {_ADVICE}")
    return value.content


class _Object:
    """The one object in the outermost array."""

    def __init__(self, content: Any) -> None:
        self.content = content


class _Dtype(Buildable):
    """numpy.dtype('f4', ...), whose byte order comes later."""

    def __init__(self, code: Any, *_: Any) -> None:
        found = _CODE.fullmatch(code) if isinstance(code, str) else None
        if found is None:
            raise RefusedError("an array of what are no numbers")
        self.code, self.order = found[2], found[1] or "="

    def build(self, state: Any, outermost: bool) -> "_Dtype":
        # (version, byte order, subarray, names and fields of a structure, ...), as numpy saves it.
        _, self.order, subdtype, names, fields = state[:5]
        plain = subdtype is None and names is None and fields is None
        if type(self.order) is not str or self.order not in "<>|=" or not plain:
            raise RefusedError("an array of structures")
        return self

    @property
    def is_object(self) -> bool:
        return self.code.startswith("O")

    def plain(self) -> np.dtype[Any]:
        if self.is_object:
            raise RefusedError("an array of objects inside the dictionary")
        return np.dtype(self.order + self.code)


class _Array(Buildable):
    """numpy's _reconstruct(ndarray, (0,), b'b'), whose content comes later."""

    def __init__(self, kind: Any, *_: Any) -> None:
        # A subclass, as np.matrix, would be read as a plain array without a word.
        if kind != Global("numpy", "ndarray"):
            raise RefusedError("an array of a class of its own")

    def build(self, state: Any, outermost: bool) -> Any:
        _, shape, dtype, fortran, data = state
        # Only the outermost array may hold an object: the dictionary.
        if outermost and isinstance(dtype, _Dtype) and dtype.is_object and shape == ():
            (content,) = data
            return _Object(content)
        return _array(data, dtype, shape, bool(fortran))


def _array(data: Any, dtype: Any, shape: Any, fortran: bool) -> np.ndarray[Any, Any]:
    if not isinstance(dtype, _Dtype) or type(shape) is not tuple:
        raise ValueError("an array without dtype or shape")
    lengths = tuple(_length(n) for n in shape)
    plain = dtype.plain()
    if isinstance(data, str):
        data = data.encode("latin-1")  # Python 2's bytes are strings to us
    if not isinstance(data, bytes):
        raise ValueError("an array without bytes")
    return as_array(data, plain, lengths, fortran)


def _length(value: Any) -> int:
    # type, not isinstance: True is an int too.
    if type(value) is not int or value < 0:
        raise ValueError("an array whose shape is not made of lengths")
    return value


def _scalar(dtype: Any, data: Any = None) -> Any:
    return _array(data, dtype, (), False)[()]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Any:
    return _array(data, dtype, shape, order == "F")


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocol 2 spells bytes."""
    if type(text) is not str or type(encoding) is not str or encoding != "latin1":
        raise RefusedError("_codecs.encode to another encoding than latin1")
    return text.encode("latin-1")


def _not_called(*_: Any) -> NoReturn:
    raise RefusedError("a call of numpy.ndarray")


def _empty(*arguments: Any) -> dict[Any, Any]:
    if arguments:
        raise RefusedError("a filled collections.OrderedDict")
    return {}


# numpy 1 and numpy 2 name their modules differently.
_GLOBALS: dict[Global, Builder] = {
    **{
        Global(f"numpy.{core}.{module}", name): builder
        for core in ("core", "_core")
        for module, name, builder in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
    Global("numpy", "ndarray"): _not_called,
    Global("numpy", "dtype"): _Dtype,
    Global("_codecs", "encode"): _encode,
    Global("collections", "OrderedDict"): _empty,
    **TORCH_GLOBALS,
}
