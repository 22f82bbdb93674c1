"""torch tensors inside a pickle, read as numpy arrays without torch.

IRN saves `torch.Tensor`s in the dictionary that it gives to `numpy.save`. Such a pickle holds

    torch._utils._rebuild_tensor_v2(
        torch.storage._load_from_bytes(BYTES), offset, size, stride, requires_grad, hooks)

and BYTES is a file of its own, the one that torch wrote before its zip archives:

    pickle: magic number | pickle: 1001 | pickle: {little_endian ...} |
    pickle: persistent id (storage, torch.FloatStorage, key, device, numel, None) |
    pickle: [key] | int64: numel | numel raw values

Source: `torch.serialization._legacy_save` describes the form; the reader is our own.
"""

import io
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from affinitynet.data.pickle_machine import Builder, Global, RefusedError, read_pickle

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "<b1",
}


class _Reference(NamedTuple):
    dtype: np.dtype[Any]
    key: str
    numel: int


def _named_storage(*_: Any) -> Any:
    raise RefusedError("a call of a storage")


_STORAGES: dict[Global, Builder] = {Global("torch", name): _named_storage for name in _DTYPES}


def _reference(value: Any) -> _Reference:
    kind, storage, key, _, numel = value[:5]
    if kind != "storage" or type(storage) is not Global or type(key) is not str:
        raise ValueError("not a storage of torch")
    if type(numel) is not int:
        raise ValueError("a torch storage without a length")
    if len(value) > 5 and value[5] is not None:
        raise RefusedError("a view of a torch storage")
    return _Reference(np.dtype(_DTYPES[storage.name]), key, numel)


def _load_from_bytes(data: Any) -> npt.NDArray[Any]:
    """Stand in for torch.storage._load_from_bytes: the storage's values, (numel,)."""
    if not isinstance(data, bytes):
        raise ValueError("a torch storage without bytes")
    stream = io.BytesIO(data)
    magic, protocol, machine = (read_pickle(stream, {}) for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL or not machine["little_endian"]:
        raise ValueError("not a tensor as torch saves it in a pickle")
    reference = read_pickle(stream, _STORAGES, _reference)
    # Which storages follow: the one that was referred to, and no other.
    keys = read_pickle(stream, {})
    numel = int.from_bytes(stream.read(8), "little")
    if not isinstance(reference, _Reference) or keys != [reference.key]:
        raise ValueError("not one torch storage")
    values = stream.read()
    if numel != reference.numel or len(values) != numel * reference.dtype.itemsize:
        raise ValueError(f"a torch storage of {reference.numel} values is cut short")
    return np.frombuffer(values, reference.dtype)


def _rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *_: Any
) -> npt.NDArray[np.generic]:
    """Stand in for torch._utils._rebuild_tensor_v2: a copy of the part that the tensor shows."""
    numbers = (offset, *size, *stride)
    if any(type(n) is not int or n < 0 for n in numbers) or len(size) != len(stride):
        raise ValueError("a torch tensor with a wrong shape")
    elements = 1
    for length in size:
        elements *= length
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # An expanded tensor (stride 0) shows one value many times: it could fill the memory.
    if not isinstance(storage, np.ndarray) or elements > len(storage):
        raise ValueError("a torch tensor larger than its storage")
    if elements == 0:
        return np.zeros(size, storage.dtype)
    if last >= len(storage):
        raise ValueError("a torch tensor that leaves its storage")
    # torch counts strides in elements, numpy in bytes.
    steps = [step * storage.itemsize for step in stride]
    view: npt.NDArray[np.generic] = np.ndarray(
        size, storage.dtype, storage, offset * storage.itemsize, steps
    )
    return view.copy()


TORCH_GLOBALS: dict[Global, Builder] = {
    Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    Global("torch.storage", "_load_from_bytes"): _load_from_bytes,
}
