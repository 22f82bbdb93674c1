"""Caffe's networks (``.caffemodel``), read without Caffe.

The file is one protobuf message. Only the fields that hold weights are declared here, by hand and
at run time, so no generated code is kept; every other field is skipped by the protobuf library.

Source: ``src/caffe/proto/caffe.proto`` of BVLC Caffe (NetParameter, LayerParameter,
V1LayerParameter, BlobProto, BlobShape).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affinitynet.errors import UserError

# message -> (field, number, repeated, type): one of protobuf's scalars or a message's name
_MESSAGES: dict[str, tuple[tuple[str, int, bool, str], ...]] = {
    "BlobShape": (("dim", 1, True, "int64"),),
    "BlobProto": (
        ("num", 1, False, "int32"),
        ("channels", 2, False, "int32"),
        ("height", 3, False, "int32"),
        ("width", 4, False, "int32"),
        ("data", 5, True, "float"),
        ("shape", 7, False, "BlobShape"),
        ("double_data", 8, True, "double"),
    ),
    # "layers" is how files were written until 2014, "layer" how they are since.
    "V1LayerParameter": (
        ("name", 4, False, "bytes"),
        ("blobs", 6, True, "BlobProto"),
    ),
    "LayerParameter": (
        ("name", 1, False, "bytes"),
        ("blobs", 7, True, "BlobProto"),
    ),
    "NetParameter": (
        ("layers", 2, True, "V1LayerParameter"),
        ("layer", 100, True, "LayerParameter"),
    ),
}
_BLOB_NAMES = ("weight", "bias")


def _net_parameter() -> Any:
    """Build the class of the message NetParameter from the table above."""
    # Here, since protobuf is an extra: the other formats are read without it.
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="affinitynet_caffe.proto", package="caffe", syntax="proto2"
    )
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, number, repeated, kind in fields:
            field = message.field.add(name=name, number=number)
            field.label = types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL
            if kind in _MESSAGES:
                field.type, field.type_name = types.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = types.Type.Value(f"TYPE_{kind.upper()}")
                # Parsers take packed and unpacked alike; this is what Caffe writes.
                field.options.packed = repeated
    # A pool of its own keeps these messages apart from an installed Caffe's.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


def read_caffe(path: Path) -> dict[str, Tensor]:
    """Read a ``.caffemodel``: ``<layer>.weight`` and ``<layer>.bias`` of each layer with blobs.

    A bias is flattened (old files keep it as 1 x 1 x 1 x N).

    Raises:
        UserError: the file is damaged, or is none, or protobuf is not installed.
    """
    try:
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise UserError(
            f"{path}: a .caffemodel is read with protobuf, which is not installed; "
            'pip install "affinitynet[caffe]"'
        ) from error
    net = _net_parameter()()
    try:
        net.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise UserError(f"{path}: not a readable .caffemodel ({error}); get it again") from error
    tensors = {}
    for layer in (*net.layers, *net.layer):
        name = layer.name.decode("utf-8", errors="replace")
        for blob_name, blob in zip(_BLOB_NAMES, layer.blobs, strict=False):
            tensor = _read_blob(blob, f"{path}: layer {name}")
            tensors[f"{name}.{blob_name}"] = tensor.flatten() if blob_name == "bias" else tensor
    if not tensors:
        raise UserError(f"{path}: no layer with weights in it; is it a .caffemodel?")
    return tensors


def _read_blob(blob: Any, where: str) -> Tensor:
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:
        shape = (blob.num, blob.channels, blob.height, blob.width)
    # Files of networks trained in double precision have the numbers there.
    values = blob.data or blob.double_data
    if min(shape, default=0) < 1 or math.prod(shape) != len(values):
        raise UserError(
            f"{where} says its shape is {shape} and has {len(values)} numbers; get the file again"
        )
    return torch.from_numpy(np.array(values, dtype=np.float32)).view(shape)
