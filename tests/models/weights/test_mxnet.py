"""MXNet files are written here from the format's description, with struct alone."""

import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from affinitynet.errors import UserError
from affinitynet.models.resnet38 import ResNet38
from affinitynet.models.weights import convert_weights, load_backbone, load_weights
from affinitynet.models.weights.mxnet import read_mxnet

LEGACY, V1, V2 = "legacy", "v1", "v2"
TYPES = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}
BN = {
    "weight": "arg:{}_gamma",
    "bias": "arg:{}_beta",
    "running_mean": "aux:{}_moving_mean",
    "running_var": "aux:{}_moving_var",
}


def array_bytes(array: np.ndarray, version: str) -> bytes:
    rank = array.ndim
    head = {
        LEGACY: struct.pack(f"<I{rank}I", rank, *array.shape),
        V1: struct.pack(f"<II{rank}q", 0xF993FAC8, rank, *array.shape),
        V2: struct.pack(f"<IiI{rank}q", 0xF993FAC9, 0, rank, *array.shape),
    }[version]
    device = struct.pack("<ii", 1, 0)
    kind = struct.pack("<i", TYPES[array.dtype.name])
    return head + device + kind + array.astype(array.dtype.newbyteorder("<")).tobytes()


def file_bytes(arrays: dict[str, np.ndarray], version: str = V2) -> bytes:
    parts = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    parts += [array_bytes(array, version) for array in arrays.values()]
    parts.append(struct.pack("<Q", len(arrays)))
    parts += [struct.pack("<Q", len(name.encode())) + name.encode() for name in arrays]
    return b"".join(parts)


def mxnet_name(name: str) -> str | None:
    """`b3_2.conv_branch2a.weight` -> `arg:res3b2_branch2a_weight`, as the symbols name them."""
    if name == "conv1a.weight":
        return "arg:conv1a_weight"
    *layer, value = name.split(".")
    if value == "num_batches_tracked":
        return None
    if layer == ["bn7"]:
        return BN[value].format("bn7")
    unit, inner = layer
    level, _, index = unit.removeprefix("b").partition("_")
    kind, branch = inner.split("_")
    place = f"{level}{f'b{index}' if index else 'a'}_{branch}"
    return f"arg:res{place}_weight" if kind == "conv" else BN[value].format(f"bn{place}")


def resnet38_arrays(paper: SimpleNamespace) -> dict[str, np.ndarray]:
    arrays = {
        translated: tensor.numpy()
        for name, tensor in paper.resnet38_state().items()
        if (translated := mxnet_name(name)) is not None
    }
    arrays["arg:linear1000_weight"] = np.zeros((1000, 256), np.float32)
    arrays["arg:linear1000_bias"] = np.zeros(1000, np.float32)
    return arrays


def test_the_names_are_those_of_the_released_file(paper: SimpleNamespace) -> None:
    arrays = resnet38_arrays(paper)
    some = ["conv1a_weight", "res2a_branch1_weight", "res4b5_branch2b1_weight"]
    some += ["res6a_branch2b2_weight", "bn5a_branch2a_gamma", "bn7a_branch2b2_beta", "bn7_gamma"]
    assert {f"arg:{name}" for name in some} <= arrays.keys()
    assert {"aux:bn3b1_branch2b1_moving_var", "aux:bn7_moving_mean"} <= arrays.keys()


@pytest.mark.parametrize("version", [LEGACY, V1, V2])
def test_an_mxnet_resnet38_computes_what_the_paper_says(
    tmp_path: Path, paper: SimpleNamespace, images: Tensor, version: str
) -> None:
    path = tmp_path / "ilsvrc-cls_rna-a1_cls1000_ep-0001.params"
    path.write_bytes(file_bytes(resnet38_arrays(paper), version))
    network = ResNet38(paper.width).eval()
    report = load_backbone(network, path)
    assert report.kind == "MXNet ResNet38"
    assert report.dropped == ("arg:linear1000_weight", "arg:linear1000_bias")
    assert report.missing == ()
    assert len(report.recognised) == len(resnet38_arrays(paper)) - 2
    expected = paper.resnet38(images, paper.resnet38_state())
    for ours, theirs in zip(network(images), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_a_converted_mxnet_file_loads_the_same(tmp_path: Path, paper: SimpleNamespace) -> None:
    path, converted = tmp_path / "a1.params", tmp_path / "a1.safetensors"
    path.write_bytes(file_bytes(resnet38_arrays(paper)))
    report = convert_weights(path, converted)
    assert report.kind == "MXNet ResNet38"
    assert report.dropped == ("arg:linear1000_weight", "arg:linear1000_bias")
    assert report.missing == ()
    network = ResNet38(paper.width)
    again = load_backbone(network, converted)
    assert {f"backbone.{name}" for name in again.recognised} == set(report.recognised)
    for name, tensor in paper.resnet38_state().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_what_an_incomplete_file_lacks_is_said(tmp_path: Path, paper: SimpleNamespace) -> None:
    arrays = resnet38_arrays(paper)
    del arrays["arg:res6a_branch1_weight"], arrays["aux:bn7_moving_var"]
    path = tmp_path / "a1.params"
    path.write_bytes(file_bytes(arrays))
    report = convert_weights(path, tmp_path / "a1.safetensors")
    assert report.missing == ("backbone.b6.conv_branch1.weight", "backbone.bn7.running_var")
    assert load_backbone(ResNet38(paper.width), path).missing == (
        "b6.conv_branch1.weight",
        "bn7.running_var",
    )


def test_a_file_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "one.params"
    path.write_bytes(
        bytes.fromhex("120100000000000000000000000000000100000000000000")
        + bytes.fromhex("c9fa93f9000000000200000001000000000000000200000000000000")
        + bytes.fromhex("0100000000000000000000000000803f000000c0")
        + bytes.fromhex("01000000000000000500000000000000")
        + b"arg:a"
    )
    assert {name: array.tolist() for name, array in read_mxnet(path).items()} == {
        "arg:a": [[1.0, -2.0]]
    }


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("version", [LEGACY, V1, V2])
def test_every_element_type_and_version(tmp_path: Path, dtype: str, version: str) -> None:
    array = np.arange(-3, 21).reshape(2, 3, 4).astype(dtype)
    path = tmp_path / "x.params"
    path.write_bytes(file_bytes({"arg:x": array, "aux:y": array[0, 0]}, version))
    read = read_mxnet(path)
    assert read["arg:x"].numpy().dtype == dtype
    assert np.array_equal(read["arg:x"].numpy(), array)
    assert np.array_equal(read["aux:y"].numpy(), array[0, 0])


def test_half_precision_weights_become_float32(tmp_path: Path, paper: SimpleNamespace) -> None:
    path = tmp_path / "half.params"
    arrays = {name: array.astype(np.float16) for name, array in resnet38_arrays(paper).items()}
    path.write_bytes(file_bytes(arrays))
    tensors = load_weights(path).tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


@pytest.mark.parametrize("version", [LEGACY, V1, V2])
def test_a_file_cut_anywhere_is_refused_in_words(tmp_path: Path, version: str) -> None:
    whole = file_bytes({"arg:x": np.ones((2, 2), np.float32)}, version)
    path = tmp_path / "cut.params"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.params: not a readable MXNet"):
            load_weights(path)


HUGE = 2**62
HEADER = struct.pack("<QQQ", 0x112, 0, 1)
DEVICE = struct.pack("<iii", 1, 0, 0)
HOSTILE = {
    "count": struct.pack("<QQQ", 0x112, 0, HUGE),
    "magic": struct.pack("<QQQ", 0x113, 0, 0),
    "legacy rank": HEADER + struct.pack("<I", 0xFFFFFFFF),
    "rank": HEADER + struct.pack("<IiI", 0xF993FAC9, 0, 0xFFFFFFFF),
    "no rank": HEADER + struct.pack("<IiI", 0xF993FAC9, 0, 0) + bytes(64),
    "size": HEADER + struct.pack("<IiI2q", 0xF993FAC9, 0, 2, HUGE, HUGE) + DEVICE + bytes(64),
    "negative size": HEADER + struct.pack("<IiIq", 0xF993FAC9, 0, 1, -1) + DEVICE + bytes(64),
    "sparse": HEADER + struct.pack("<IiIq", 0xF993FAC9, 1, 1, 1) + DEVICE + bytes(64),
    "element type": HEADER
    + struct.pack("<IiIq", 0xF993FAC9, 0, 1, 1)
    + struct.pack("<iii", 1, 0, 99)
    + bytes(64),
    "name count": struct.pack("<QQQQ", 0x112, 0, 0, HUGE),
    "name length": HEADER + array_bytes(np.ones(1, np.float32), V2) + struct.pack("<QQ", 1, HUGE),
    "name text": HEADER
    + array_bytes(np.ones(1, np.float32), V2)
    + struct.pack("<QQ", 1, 2)
    + b"\xff\xfe",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_in_words(tmp_path: Path, what: str) -> None:
    path = tmp_path / "hostile.params"
    path.write_bytes(HOSTILE[what])
    with pytest.raises(UserError, match=r"hostile\.params: not a readable MXNet"):
        load_weights(path)
