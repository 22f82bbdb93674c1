"""MXNet's NDArray list files (``.params``), read without MXNet.

The format, little-endian throughout: uint64 0x112, uint64 reserved, uint64 count, the arrays,
uint64 count, and for each array a uint64 length and that many bytes of its name. An array is a
uint32 magic and, according to it,

- 0xF993FAC9 (version 2): int32 storage type (0 is dense), uint32 rank, rank int64 sizes;
- 0xF993FAC8 (version 1): uint32 rank, rank int64 sizes;
- anything else: the magic itself is the rank, followed by rank uint32 sizes (files of 2016);

then int32 device type, int32 device number, int32 element type, and the elements.

Source: ``src/ndarray/ndarray.cc`` of Apache MXNet (``NDArray::Save`` and ``LegacyLoad``).
"""

import math
import re
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from affinitynet.errors import UserError

_LIST_MAGIC = 0x112
_V1_MAGIC = 0xF993FAC8
_V2_MAGIC = 0xF993FAC9
_DENSE = 0
_MOST_DIMENSIONS = 32
_ELEMENTS = {0: "<f4", 1: "<f8", 2: "<f2", 3: "|u1", 4: "<i4", 5: "|i1", 6: "<i8"}

_UNIT = re.compile(
    r"(?P<kind>res|bn)(?P<level>\d)(?:a|b(?P<index>\d+))_(?P<branch>branch\w+?)"
    r"_(?P<value>weight|gamma|beta|moving_mean|moving_var)"
)
_BN_VALUES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_var": "running_var",
}


class _Reader:
    """A file that is never read past its end, and never asked for more than it holds."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path
        self.left = path.stat().st_size

    def take(self, size: int) -> bytes:
        # Checked before reading: a hostile length must not become an allocation.
        if size > self.left:
            raise self.error(f"it ends early ({size} bytes wanted, {self.left} left)")
        self.left -= size
        return self.file.read(size)

    def integers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def error(self, what: str) -> UserError:
        return UserError(f"{self.path}: not a readable MXNet .params file: {what}; get it again")


def read_mxnet(path: Path) -> dict[str, Tensor]:
    """Read every array of an MXNet ``.params`` file by its name (``arg:conv1a_weight``).

    Raises:
        UserError: the file is cut short, damaged, or holds sparse arrays.
    """
    with path.open("rb") as file:
        reader = _Reader(file, path)
        if reader.integers("QQ")[0] != _LIST_MAGIC:
            raise reader.error("its first bytes are another format's")
        (count,) = reader.integers("Q")
        arrays = [_read_array(reader) for _ in range(count)]
        (name_count,) = reader.integers("Q")
        if name_count != count:
            raise reader.error(f"it has {count} arrays and {name_count} names")
        return dict(zip((_read_name(reader) for _ in range(count)), arrays, strict=True))


def _read_name(reader: _Reader) -> str:
    (length,) = reader.integers("Q")
    try:
        return reader.take(length).decode("utf-8")
    except UnicodeDecodeError as error:
        raise reader.error("an array's name is not text") from error


def _read_array(reader: _Reader) -> Tensor:
    shape = _read_shape(reader)
    _, _, element = reader.integers("iii")
    if element not in _ELEMENTS:
        raise reader.error(f"an array has the unknown element type {element}")
    dtype = np.dtype(_ELEMENTS[element])
    data = reader.take(math.prod(shape) * dtype.itemsize)
    # The copy is writable, and in the machine's own byte order.
    return torch.from_numpy(np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))).view(shape)


def _read_shape(reader: _Reader) -> tuple[int, ...]:
    (magic,) = reader.integers("I")
    if magic == _V2_MAGIC:
        (storage,) = reader.integers("i")
        if storage != _DENSE:
            raise reader.error("it holds sparse arrays, which no weights file we know has")
    if magic in (_V1_MAGIC, _V2_MAGIC):
        (rank,) = reader.integers("I")
        size = "q"
    else:
        rank, size = magic, "I"
    # Rank 0 is MXNet's "no array": nothing follows it, and no network has one.
    if not 1 <= rank <= _MOST_DIMENSIONS:
        raise reader.error(f"an array has {rank} dimensions")
    shape = reader.integers(f"{rank}{size}")
    if min(shape) < 1:
        raise reader.error(f"an array has the shape {shape}")
    return shape


def resnet38_name(name: str) -> str | None:
    """Turn a name of the MXNet ResNet-38 into ours, or None where we have no such tensor.

    ``arg:res3b2_branch2a_weight`` is ``b3_2.conv_branch2a.weight``,
    ``aux:bn3a_branch2b1_moving_var`` is ``b3.bn_branch2b1.running_var``; the classifier's
    ``linear1000_*`` is nothing.

    Source: the symbols of github.com/itijyou/ademxapp, ``util/symbol/resnet_v2.py``.
    """
    bare = name.removeprefix("arg:").removeprefix("aux:")
    if bare == "conv1a_weight":
        return "conv1a.weight"
    if bare.startswith("bn7_"):
        value = _BN_VALUES.get(bare.removeprefix("bn7_"))
        return None if value is None else f"bn7.{value}"
    match = _UNIT.fullmatch(bare)
    # Convolutions have a weight and nothing else, BatchNorm all but a weight.
    if match is None or (match["kind"] == "res") != (match["value"] == "weight"):
        return None
    unit = f"b{match['level']}" + (f"_{match['index']}" if match["index"] else "")
    if match["kind"] == "res":
        return f"{unit}.conv_{match['branch']}.weight"
    return f"{unit}.bn_{match['branch']}.{_BN_VALUES[match['value']]}"
