"""ResNet-38, the paper's main backbone, at output stride 8.

Wu, Shen & van den Hengel, "Wider or Deeper: Revisiting the ResNet Model for Visual Recognition",
model A1, as used by Ahn & Kwak (CVPR 2018). Modules carry the names of the published checkpoints
(``b4_5.conv_branch2b1``), so those load without translation.
"""

from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from affinitynet.ops.normalization import IMAGENET, Normalization

# (unit, input channels, middle channels, output channels, stride, dilations of the two 3x3)
_BASIC_UNITS = (
    ("b2", 64, 128, 128, 2, (1, 1)),
    ("b2_1", 128, 128, 128, 1, (1, 1)),
    ("b2_2", 128, 128, 128, 1, (1, 1)),
    ("b3", 128, 256, 256, 2, (1, 1)),
    ("b3_1", 256, 256, 256, 1, (1, 1)),
    ("b3_2", 256, 256, 256, 1, (1, 1)),
    ("b4", 256, 512, 512, 2, (1, 1)),
    ("b4_1", 512, 512, 512, 1, (1, 1)),
    ("b4_2", 512, 512, 512, 1, (1, 1)),
    ("b4_3", 512, 512, 512, 1, (1, 1)),
    ("b4_4", 512, 512, 512, 1, (1, 1)),
    ("b4_5", 512, 512, 512, 1, (1, 1)),
    # Stride 2 became dilation 2 here: only the second convolution sees the finer grid.
    ("b5", 512, 512, 1024, 1, (1, 2)),
    ("b5_1", 1024, 512, 1024, 1, (2, 2)),
    ("b5_2", 1024, 512, 1024, 1, (2, 2)),
)
# (unit, input channels, output channels, dropout); the middles are a quarter and a half of the
# output, the dilation is 4.
_BOTTLENECK_UNITS = (("b6", 1024, 2048, 0.3), ("b7", 2048, 4096, 0.5))
_FROZEN = ("conv1a", "b2", "b2_1", "b2_2")


def _conv3x3(inputs: int, outputs: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(
        inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )


class _BasicUnit(nn.Module):
    """Pre-activated unit of two 3x3 convolutions; returns its output and ``t = ReLU(BN(x))``."""

    def __init__(
        self, inputs: int, middle: int, outputs: int, stride: int, dilations: tuple[int, int]
    ) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = _conv3x3(inputs, middle, stride, dilations[0])
        self.bn_branch2b1 = nn.BatchNorm2d(middle)
        self.conv_branch2b1 = _conv3x3(middle, outputs, 1, dilations[1])
        self.conv_branch1: nn.Conv2d | None = None
        if inputs != outputs or stride != 1:
            self.conv_branch1 = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        t = F.relu(self.bn_branch2a(x))
        # The projection starts from t, not from x, as published.
        shortcut = x if self.conv_branch1 is None else self.conv_branch1(t)
        branch = self.conv_branch2a(t)
        branch = self.conv_branch2b1(F.relu(self.bn_branch2b1(branch)))
        return shortcut + branch, t


class _BottleneckUnit(nn.Module):
    """Pre-activated unit 1x1, 3x3, 1x1 with channel dropout; returns its output and ``t``."""

    def __init__(self, inputs: int, outputs: int, dilation: int, dropout: float) -> None:
        super().__init__()
        quarter, half = outputs // 4, outputs // 2
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = nn.Conv2d(inputs, quarter, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(quarter)
        self.dropout_2b1 = nn.Dropout2d(dropout)
        self.conv_branch2b1 = _conv3x3(quarter, half, 1, dilation)
        self.bn_branch2b2 = nn.BatchNorm2d(half)
        self.dropout_2b2 = nn.Dropout2d(dropout)
        self.conv_branch2b2 = nn.Conv2d(half, outputs, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        t = F.relu(self.bn_branch2a(x))
        branch = self.conv_branch2a(t)
        # Both dropouts have the unit's one rate, as published.
        branch = self.conv_branch2b1(self.dropout_2b1(F.relu(self.bn_branch2b1(branch))))
        branch = self.conv_branch2b2(self.dropout_2b2(F.relu(self.bn_branch2b2(branch))))
        return self.conv_branch1(t) + branch, t


class ResNet38(nn.Module):
    """The paper's ResNet-38: 105.1 M parameters, of which 104.3 M are trained.

    ``width`` multiplies every channel count (1/16 makes a network a test can afford). As
    published, ``conv1a`` and the three units ``b2*`` are frozen, and so is every BatchNorm:
    its affine parameters get no gradient and its statistics stay fixed, even in training mode.

    Source: Ahn & Kwak, CVPR 2018, section 4.1, and their public code; see the module's docstring.
    """

    normalization: Normalization = IMAGENET
    sqrt_cam = False

    def __init__(self, width: float = 1.0, channels: int = 3) -> None:
        """Make the network with random weights, for images of so many channels."""
        super().__init__()

        def scaled(channels: int) -> int:
            # Multiples of 4, because a bottleneck's middles are a quarter and a half.
            return max(1, round(channels * width / 4)) * 4

        self.conv1a = _conv3x3(channels, scaled(64), 1, 1)
        for name, inputs, middle, outputs, stride, dilations in _BASIC_UNITS:
            unit = _BasicUnit(scaled(inputs), scaled(middle), scaled(outputs), stride, dilations)
            self.add_module(name, unit)
        for name, inputs, outputs, dropout in _BOTTLENECK_UNITS:
            self.add_module(name, _BottleneckUnit(scaled(inputs), scaled(outputs), 4, dropout))
        self.bn7 = nn.BatchNorm2d(scaled(4096))

        self.channels: tuple[int, int, int] = (scaled(512), scaled(1024), scaled(4096))
        self.strides: tuple[int, int, int] = (8, 8, 8)
        for name in _FROZEN:
            self.get_submodule(name).requires_grad_(False)
        for norm in self._norms():
            norm.requires_grad_(False)
        self.train()

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> Self:
        """Set training mode (it turns the dropouts on); BatchNorm stays in evaluation mode."""
        super().train(mode)
        for norm in self._norms():
            norm.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute three maps at stride 8 from normalized images ``(B, 3, H, W)``.

        They are ``(B, 512, h, w)``, ``(B, 1024, h, w)`` and ``(B, 4096, h, w)`` with
        h = ceil(H / 8) and w = ceil(W / 8): the pre-activated inputs of ``b5`` and of ``b6``, and
        ReLU(bn7) of the output of ``b7``, from which the CAM is read.
        """
        x = self.conv1a(images)
        preactivated = {}
        for name, *_ in (*_BASIC_UNITS, *_BOTTLENECK_UNITS):
            x, t = self.get_submodule(name)(x)
            # A unit's output ends without BN and ReLU; t of the next unit has them.
            if name in ("b5", "b6"):
                preactivated[name] = t
        return [preactivated["b5"], preactivated["b6"], F.relu(self.bn7(x))]
