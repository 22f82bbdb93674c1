"""Caffe files are written here from protobuf's wire format, without the protobuf library."""

import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from affinitynet.errors import UserError
from affinitynet.models.vgg16 import VGG16
from affinitynet.models.weights import convert_weights, load_backbone, load_weights
from affinitynet.models.weights.caffe import read_caffe

NEW, OLD = "layer", "layers"


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def integer(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def blob_bytes(array: np.ndarray, form: str) -> bytes:
    data = block(5, array.astype("<f4").tobytes())
    if form == NEW:
        return data + block(7, block(1, b"".join(varint(n) for n in array.shape)))
    shape = (1,) * (4 - array.ndim) + array.shape
    return b"".join(integer(field + 1, n) for field, n in enumerate(shape)) + data


def layer_bytes(name: str, blobs: list[np.ndarray], form: str) -> bytes:
    if form == NEW:
        content = block(1, name.encode()) + block(2, b"Convolution") + block(3, b"data")
        content += block(4, name.encode()) + block(6, struct.pack("<Bf", 0x1D, 1.0))
        content += b"".join(block(7, blob_bytes(blob, form)) for blob in blobs)
        return block(100, content)
    content = block(2, b"data") + block(3, name.encode()) + block(4, name.encode())
    content += integer(5, 4) + b"".join(block(6, blob_bytes(blob, form)) for blob in blobs)
    return block(2, content)


def vgg16_bytes(paper: SimpleNamespace, form: str) -> bytes:
    state = paper.vgg16_state()
    parts = [block(1, b"VGG_ILSVRC_16_layers"), layer_bytes("data", [], form)]
    for name in dict.fromkeys(key.rpartition(".")[0] for key in state):
        blobs = [state[f"{name}.weight"].numpy(), state[f"{name}.bias"].numpy()]
        parts += [layer_bytes(name, blobs, form), layer_bytes(f"relu_{name}", [], form)]
    for name, classes in (("fc8", 1000), ("fc8_voc12", 21)):
        parts.append(layer_bytes(name, [np.ones((classes, 64, 1, 1)), np.ones(classes)], form))
    return b"".join(parts)


@pytest.mark.parametrize("form", [NEW, OLD])
@pytest.mark.parametrize("fc6_dilation", [1, 4])
def test_a_caffe_vgg16_computes_what_the_paper_says(
    tmp_path: Path, paper: SimpleNamespace, images: Tensor, form: str, fc6_dilation: int
) -> None:
    path = tmp_path / "vgg16_20M.caffemodel"
    path.write_bytes(vgg16_bytes(paper, form))
    network = VGG16(fc6_dilation, width=paper.width).eval()
    report = load_backbone(network, path)
    assert report.kind == "Caffe VGG16"
    assert report.dropped == ("fc8.weight", "fc8.bias", "fc8_voc12.weight", "fc8_voc12.bias")
    assert report.missing == ()
    assert len(report.recognised) == 30
    expected = paper.vgg16(images, paper.vgg16_state(), fc6_dilation)
    for ours, theirs in zip(network(images), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


def test_a_converted_caffe_file_loads_the_same(tmp_path: Path, paper: SimpleNamespace) -> None:
    path, converted = tmp_path / "vgg.caffemodel", tmp_path / "vgg.safetensors"
    path.write_bytes(vgg16_bytes(paper, NEW))
    report = convert_weights(path, converted)
    assert (report.kind, report.missing) == ("Caffe VGG16", ())
    network = VGG16(width=paper.width)
    assert load_backbone(network, converted).missing == ()
    for name, tensor in paper.vgg16_state().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_what_an_incomplete_file_lacks_is_said(tmp_path: Path, paper: SimpleNamespace) -> None:
    weight = paper.vgg16_state()["conv1_1.weight"].numpy()
    path = tmp_path / "part.caffemodel"
    path.write_bytes(layer_bytes("conv1_1", [weight], NEW))
    report = load_backbone(VGG16(width=paper.width), path)
    assert report.recognised == ("conv1_1.weight",)
    assert len(report.missing) == 29
    assert report.missing[:2] == ("conv1_1.bias", "conv1_2.weight")


def test_the_full_imagenet_vgg16_is_refused_in_words(
    tmp_path: Path, paper: SimpleNamespace
) -> None:
    state = paper.vgg16_state()
    path = tmp_path / "VGG_ILSVRC_16_layers.caffemodel"
    path.write_bytes(
        layer_bytes("conv1_1", [state["conv1_1.weight"].numpy()], OLD)
        + layer_bytes("fc6", [np.ones((256, 1568), np.float32)], OLD)
    )
    with pytest.raises(UserError, match=r"fc6\.weight has the shape \(1, 1, 256, 1568\)"):
        load_backbone(VGG16(width=paper.width), path)


def test_unpacked_and_double_numbers_are_read_too(tmp_path: Path) -> None:
    shape = block(7, block(1, varint(2)))
    floats = b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in (1.5, -2.0))
    doubles = block(8, struct.pack("<2d", 0.25, 8.0))
    path = tmp_path / "numbers.caffemodel"
    path.write_bytes(
        block(100, block(1, b"a") + block(7, shape + floats) + block(7, shape + doubles))
    )
    assert {name: values.tolist() for name, values in read_caffe(path).items()} == {
        "a.weight": [1.5, -2.0],
        "a.bias": [0.25, 8.0],
    }


def test_a_file_cut_anywhere_never_ends_in_anything_but_words(tmp_path: Path) -> None:
    whole = layer_bytes("a", [np.ones((2, 2))], NEW) + layer_bytes("b", [np.ones((2, 2))], NEW)
    half = len(whole) // 2
    path = tmp_path / "cut.caffemodel"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if length == half:  # between the two layers: a whole file of one layer
            assert list(read_caffe(path)) == ["a.weight"]
            continue
        with pytest.raises(UserError, match=r"cut\.caffemodel"):
            load_weights(path)


HOSTILE = {
    "a huge shape": block(7, block(1, varint(2**62) + varint(2**62))),
    "a negative shape": block(7, block(1, varint(2**64 - 1) + varint(1))),
    "no numbers": block(7, block(1, varint(0) + varint(2**62))),
    "an old huge shape": b"".join(integer(field, 2**31 - 1) for field in (1, 2, 3, 4)),
    "nothing at all": b"",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_blob_is_refused_in_words(tmp_path: Path, what: str) -> None:
    path = tmp_path / "hostile.caffemodel"
    path.write_bytes(block(100, block(1, b"conv1_1") + block(7, HOSTILE[what])))
    with pytest.raises(UserError, match=r"hostile\.caffemodel: layer conv1_1 says its shape is"):
        load_weights(path)


def test_a_file_without_weights_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "empty.caffemodel"
    path.write_bytes(b"")
    with pytest.raises(UserError, match="no layer with weights"):
        load_weights(path)


def test_without_protobuf_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("google.protobuf")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    path = tmp_path / "vgg.caffemodel"
    path.write_bytes(b"")
    with pytest.raises(
        UserError, match=r'vgg\.caffemodel: .*; pip install "affinitynet\[caffe\]"$'
    ):
        load_weights(path)
