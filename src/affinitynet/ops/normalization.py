"""What a network expects of its input: how 0..255 RGB becomes the numbers it was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_IMAGENET_STD = 255 * (0.229 + 0.224 + 0.225) / 3


@dataclass(frozen=True)
class Normalization:
    """How a backbone wants its images: ``(image / scale - mean) / std``, then BGR if it asks.

    ``mean`` and ``std`` are given in R, G, B order and in the unit the image has after the
    division by ``scale`` (255 makes it 0..1, 1 leaves it 0..255). ``bgr`` reverses the channels
    last, so the three numbers of a BGR network are written here in R, G, B order too.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1.0
    bgr: bool = False

    def apply(self, images: Tensor) -> Tensor:
        """Normalize images ``(..., C, H, W)``, RGB as a rule, uint8 or floating 0..255, to float32.

        The result is on the device of ``images``; the mean color becomes exactly 0.
        """
        pixels = images.to(torch.float32)
        mean = pixels.new_tensor(self.mean).view(-1, 1, 1)
        std = pixels.new_tensor(self.std).view(-1, 1, 1)
        # Multiplying by the scale here keeps the pixels' own arithmetic to two operations.
        normalized = (pixels - mean * self.scale) / (std * self.scale)
        return normalized.flip(-3) if self.bgr else normalized

    def of_data(self, mean: Sequence[float], std: Sequence[float]) -> "Normalization":
        """Return what brings images of other channels or colors to where this brings photographs.

        mean, std: of each channel, in 0..255. Each becomes 0 and the deviation that ImageNet's
        photographs have here: 1 for most networks, 57.6 for Caffe's VGG-16, which keeps 0..255.
        """
        spread = _IMAGENET_STD / (sum(self.std) / len(self.std) * self.scale)
        # A BGR network's order is that of its weights, which only RGB has.
        return Normalization(
            tuple(m / self.scale for m in mean),
            tuple(s / spread / self.scale for s in std),
            self.scale,
            self.bgr and len(mean) == 3,
        )

    def invert(self, normalized: Tensor) -> Tensor:
        """Give back the images 0..255 (..., C, H, W) float32 that `apply` normalized."""
        pixels = normalized.flip(-3) if self.bgr else normalized
        mean = pixels.new_tensor(self.mean).view(-1, 1, 1)
        std = pixels.new_tensor(self.std).view(-1, 1, 1)
        return pixels * (std * self.scale) + mean * self.scale


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=255.0)
"""RGB, 0..1, ImageNet's mean and deviation: ResNet-38 and most timm networks."""

CAFFE_BGR = Normalization(mean=(122.675, 116.669, 104.008), std=(1.0, 1.0, 1.0), bgr=True)
"""BGR, 0..255, minus the mean color, no scaling: the VGG-16 of Caffe."""
