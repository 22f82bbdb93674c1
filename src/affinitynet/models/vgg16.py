"""VGG-16 with a large field of view, the paper's second backbone, at output stride 8.

Simonyan & Zisserman's network in the "20M" DeepLab-LargeFOV form (Chen et al., ICLR 2015), as in
the public code of Ahn & Kwak (CVPR 2018). Layers carry Caffe's names (``conv4_3``, ``fc6``).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from affinitynet.ops.normalization import CAFFE_BGR, Normalization

# (stage, layers in it, output channels, dilation, stride of the pooling after it or None)
_STAGES = (
    (1, 2, 64, 1, 2),
    (2, 2, 128, 1, 2),
    (3, 3, 256, 1, 2),
    # pool4 keeps the grid, and the fifth stage is dilated instead.
    (4, 3, 512, 1, 1),
    (5, 3, 512, 2, None),
)
_FROZEN = ("conv1_1", "conv1_2", "conv2_1", "conv2_2")


class VGG16(nn.Module):
    """The paper's VGG-16: 20.5 M parameters, the first two stages frozen.

    ``fc6_dilation`` is 1 in the published classifier, 4 in the published affinity network and 12
    in DeepLab-LargeFOV. ``width`` multiplies every channel count. The input is BGR, 0..255, minus
    the mean color; the published code takes the square root of this network's CAMs, which
    ``sqrt_cam`` tells.

    Source: Ahn & Kwak's public code; Chen et al., ICLR 2015 (LargeFOV).
    """

    normalization: Normalization = CAFFE_BGR
    sqrt_cam = True

    def __init__(self, fc6_dilation: int = 1, width: float = 1.0, channels: int = 3) -> None:
        """Make the network with random weights, for images of so many channels."""
        super().__init__()

        def scaled(channels: int) -> int:
            return max(1, round(channels * width))

        inputs = channels
        for stage, layers, outputs, dilation, _ in _STAGES:
            for layer in range(1, layers + 1):
                convolution = nn.Conv2d(
                    inputs, scaled(outputs), 3, padding=dilation, dilation=dilation
                )
                self.add_module(f"conv{stage}_{layer}", convolution)
                inputs = scaled(outputs)
        self.fc6 = nn.Conv2d(inputs, scaled(1024), 3, padding=fc6_dilation, dilation=fc6_dilation)
        # Channels as a whole, as in the public code, where Caffe's model drops single values.
        self.dropout6 = nn.Dropout2d(0.5)
        self.fc7 = nn.Conv2d(scaled(1024), scaled(1024), 1)

        self.channels: tuple[int, int, int] = (scaled(512), scaled(512), scaled(1024))
        self.strides: tuple[int, int, int] = (8, 8, 8)
        for name in _FROZEN:
            self.get_submodule(name).requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute three maps at stride 8 from normalized images ``(B, 3, H, W)``.

        They are ``(B, 512, h, w)``, ``(B, 512, h, w)`` and ``(B, 1024, h, w)`` with
        h = ceil(H / 8) and w = ceil(W / 8): ``conv4_3`` before its pooling, ``conv5_3`` and
        ``fc7``, each after its ReLU. No pooling follows ``conv5_3``.
        """
        x = images
        ends = {}
        for stage, layers, _, _, pool_stride in _STAGES:
            for layer in range(1, layers + 1):
                x = F.relu(self.get_submodule(f"conv{stage}_{layer}")(x))
            ends[stage] = x
            if pool_stride is not None:
                # 3 x 3 with a frame of 1, as the public code, where Caffe pools 2 x 2: an odd size
                # becomes ceil(H / 2).
                x = F.max_pool2d(x, 3, stride=pool_stride, padding=1)
        x = self.dropout6(F.relu(self.fc6(x)))
        return [ends[4], ends[5], F.relu(self.fc7(x))]
