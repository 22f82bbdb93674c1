"""The paper's two networks a second time: names and shapes from its tables, and a plain forward.

Nothing here touches affinitynet.models, so that the tests compare two independent things. Both
networks are a sixteenth as wide as the paper's.
"""

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH = 1 / 16
CLASSES = 3

State = dict[str, Tensor]

# name: (in, middle, out, stride, first dilation, second dilation), as the paper's table has them
BASIC = {
    "b2": (64, 128, 128, 2, 1, 1),
    **{f"b2_{i}": (128, 128, 128, 1, 1, 1) for i in (1, 2)},
    "b3": (128, 256, 256, 2, 1, 1),
    **{f"b3_{i}": (256, 256, 256, 1, 1, 1) for i in (1, 2)},
    "b4": (256, 512, 512, 2, 1, 1),
    **{f"b4_{i}": (512, 512, 512, 1, 1, 1) for i in (1, 2, 3, 4, 5)},
    "b5": (512, 512, 1024, 1, 1, 2),
    **{f"b5_{i}": (1024, 512, 1024, 1, 2, 2) for i in (1, 2)},
}
# name: (in, middle, second middle, out)
BOTTLENECK = {"b6": (1024, 512, 1024, 2048), "b7": (2048, 1024, 2048, 4096)}
VGG = {
    "conv1_1": (3, 64),
    "conv1_2": (64, 64),
    "conv2_1": (64, 128),
    "conv2_2": (128, 128),
    "conv3_1": (128, 256),
    "conv3_2": (256, 256),
    "conv3_3": (256, 256),
    "conv4_1": (256, 512),
    "conv4_2": (512, 512),
    "conv4_3": (512, 512),
    "conv5_1": (512, 512),
    "conv5_2": (512, 512),
    "conv5_3": (512, 512),
    "fc6": (512, 1024),
    "fc7": (1024, 1024),
}


class _Values:
    """Tensors of deterministic values under the published names."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.state: State = {}

    def conv(self, name: str, inputs: int, outputs: int, kernel: int) -> None:
        spread = math.sqrt(1 / (inputs * kernel * kernel))
        shape = (outputs, inputs, kernel, kernel)
        self.state[f"{name}.weight"] = torch.randn(shape, generator=self.generator) * spread

    def vector(self, name: str, size: int, low: float, high: float) -> None:
        values = torch.rand(size, generator=self.generator)
        self.state[name] = low + (high - low) * values

    def norm(self, name: str, size: int) -> None:
        self.vector(f"{name}.weight", size, 0.5, 1.5)
        self.vector(f"{name}.bias", size, -0.5, 0.5)
        self.vector(f"{name}.running_mean", size, -0.3, 0.3)
        self.vector(f"{name}.running_var", size, 0.5, 2.0)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(0)


def _resnet38_state(width: float = WIDTH, seed: int = 0) -> State:
    values = _Values(seed)
    values.conv("conv1a", 3, int(64 * width), 3)
    for name, (inputs, middle, outputs, stride, _, _) in BASIC.items():
        a, b, c = (int(n * width) for n in (inputs, middle, outputs))
        values.norm(f"{name}.bn_branch2a", a)
        values.conv(f"{name}.conv_branch2a", a, b, 3)
        values.norm(f"{name}.bn_branch2b1", b)
        values.conv(f"{name}.conv_branch2b1", b, c, 3)
        if a != c or stride != 1:
            values.conv(f"{name}.conv_branch1", a, c, 1)
    for name, channels in BOTTLENECK.items():
        a, b, c, d = (int(n * width) for n in channels)
        values.norm(f"{name}.bn_branch2a", a)
        values.conv(f"{name}.conv_branch2a", a, b, 1)
        values.norm(f"{name}.bn_branch2b1", b)
        values.conv(f"{name}.conv_branch2b1", b, c, 3)
        values.norm(f"{name}.bn_branch2b2", c)
        values.conv(f"{name}.conv_branch2b2", c, d, 1)
        values.conv(f"{name}.conv_branch1", a, d, 1)
    values.norm("bn7", int(4096 * width))
    return values.state


def _vgg16_state(width: float = WIDTH, seed: int = 1) -> State:
    values = _Values(seed)
    for name, (inputs, outputs) in VGG.items():
        a = inputs if inputs == 3 else int(inputs * width)
        values.conv(name, a, int(outputs * width), 1 if name == "fc7" else 3)
        values.vector(f"{name}.bias", int(outputs * width), -0.5, 0.5)
    return values.state


def _head_state(kind: str, network: str) -> State:
    """A psa head (fc8, or f8_* and f9) for a network of 1/16 width."""
    values = _Values(2)
    channels = {"resnet38": (32, 64, 256), "vgg16": (32, 32, 64)}[network]
    if kind == "classifier":
        values.conv("fc8", channels[2], CLASSES, 1)
        return values.state
    for layer, inputs, outputs in zip((3, 4, 5), channels, (64, 128, 256), strict=True):
        values.conv(f"f8_{layer}", inputs, outputs, 1)
        if network == "vgg16":
            values.vector(f"gn8_{layer}.weight", outputs, 0.5, 1.5)
            values.vector(f"gn8_{layer}.bias", outputs, -0.5, 0.5)
    values.conv("f9", 448, 448, 1)
    return values.state


def _bn_relu(x: Tensor, state: State, name: str) -> Tensor:
    weight, bias, mean, var = (
        state[f"{name}.{value}"].double().view(1, -1, 1, 1)
        for value in ("weight", "bias", "running_mean", "running_var")
    )
    return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)


def _conv(x: Tensor, state: State, name: str, stride: int = 1, dilation: int = 1) -> Tensor:
    weight = state[f"{name}.weight"].double()
    bias = state[f"{name}.bias"].double() if f"{name}.bias" in state else None
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, bias, stride, padding, dilation)


def _resnet38_forward(
    images: Tensor, state: State, masks: Mapping[str, Tensor] | None = None
) -> list[Tensor]:
    """The paper's table as straight-line code, in float64; `masks` are the dropouts'."""
    masks = masks or {}
    x = _conv(images.double(), state, "conv1a")
    maps = []
    for name, (inputs, _, outputs, stride, first, second) in BASIC.items():
        t = _bn_relu(x, state, f"{name}.bn_branch2a")
        if name == "b5":
            maps.append(t)
        branch = _conv(t, state, f"{name}.conv_branch2a", stride, first)
        branch = _bn_relu(branch, state, f"{name}.bn_branch2b1")
        branch = _conv(branch, state, f"{name}.conv_branch2b1", 1, second)
        kept = inputs == outputs and stride == 1
        x = (x if kept else _conv(t, state, f"{name}.conv_branch1", stride)) + branch
    for name in BOTTLENECK:
        t = _bn_relu(x, state, f"{name}.bn_branch2a")
        if name == "b6":
            maps.append(t)
        branch = _conv(t, state, f"{name}.conv_branch2a")
        branch = _bn_relu(branch, state, f"{name}.bn_branch2b1") * masks.get(f"{name}.2b1", 1)
        branch = _conv(branch, state, f"{name}.conv_branch2b1", 1, 4)
        branch = _bn_relu(branch, state, f"{name}.bn_branch2b2") * masks.get(f"{name}.2b2", 1)
        branch = _conv(branch, state, f"{name}.conv_branch2b2")
        x = _conv(t, state, f"{name}.conv_branch1") + branch
    return [*maps, _bn_relu(x, state, "bn7")]


def _vgg16_forward(images: Tensor, state: State, fc6_dilation: int) -> list[Tensor]:
    """The paper's VGG-16 as straight-line code, in float64, without dropout."""
    x = images.double()
    for name in VGG:
        if name in ("conv2_1", "conv3_1", "conv4_1"):
            x = F.max_pool2d(x, 3, 2, 1)
        if name == "conv5_1":
            conv4 = x
            x = F.max_pool2d(x, 3, 1, 1)
        if name == "fc6":
            conv5 = x
        dilation = fc6_dilation if name == "fc6" else 2 if name.startswith("conv5") else 1
        x = _conv(x, state, name, 1, dilation).clamp(min=0)
    return [conv4, conv5, x]


def _affinity_features(maps: list[Tensor], state: State) -> Tensor:
    """The published affinity head, in float64; group normalization where the state has it."""
    parts = []
    for layer, features in zip((3, 4, 5), maps, strict=True):
        x = _conv(features, state, f"f8_{layer}")
        if f"gn8_{layer}.weight" in state:
            groups = x.unflatten(1, (-1, 8))  # 8 channels a group, and the whole grid
            mean = groups.mean((2, 3, 4), keepdim=True)
            var = groups.var((2, 3, 4), correction=0, keepdim=True)
            x = ((groups - mean) / (var + 1e-5).sqrt()).flatten(1, 2)
            scale, shift = (
                state[f"gn8_{layer}.{value}"].double().view(1, -1, 1, 1)
                for value in ("weight", "bias")
            )
            x = x * scale + shift
        parts.append(torch.where(x > 0, x, torch.exp(x) - 1))
    x = _conv(torch.cat(parts, 1), state, "f9")
    return torch.where(x > 0, x, torch.exp(x) - 1)


@pytest.fixture(scope="session")
def paper() -> SimpleNamespace:
    """The independent networks: states by published names, and forwards of those states."""
    functions: dict[str, Callable[..., object]] = {
        "resnet38_state": _resnet38_state,
        "vgg16_state": _vgg16_state,
        "head_state": _head_state,
        "resnet38": _resnet38_forward,
        "vgg16": _vgg16_forward,
        "affinity_features": _affinity_features,
    }
    return SimpleNamespace(**functions, width=WIDTH, classes=CLASSES)


@pytest.fixture
def images() -> Tensor:
    """Two images whose sides are no multiples of 8."""
    return torch.randn(2, 3, 43, 59, generator=torch.Generator().manual_seed(3))
