"""What is put on a backbone: class scores, affinity features, or per-pixel scores."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pooling = Literal["average", "top"]

TOP = 0.05  # share of the positions whose scores `top` pooling averages
_BOUNDARY_WIDTH, _BOUNDARY_GROUPS = 32, 4
_CHANNELS_PER_GROUP = 8  # 64, 128 and 256 channels in 8, 16 and 32 groups


class CamHead(nn.Module):
    """Image-level class scores whose weights are also the class activation maps'.

    Y_c = sum_k w_k^c (1/Z) sum_ij A^k_ij: global average pooling, channel dropout (0.5) and a
    bias-free linear layer, kept as a 1x1 convolution of Xavier-uniform initial weights.

    With `top` pooling a class's score is the mean of that average and of the average over the
    5 % of the positions (one at least) where its own map s_c = w^c A is largest: the average of an
    object of 1 % of the image drowns in the rest. The maps are read off in the same way.

    Source: the paper's section 3.1; Zhou et al., CVPR 2016; `top` after WILDCAT (Durand et al.,
    CVPR 2017), which pools the largest scores of a map.
    """

    def __init__(self, channels: int, classes: int, pooling: Pooling = "average") -> None:
        """Make a fresh head for maps of `channels` channels."""
        super().__init__()
        self.pooling = pooling
        # Whole channels, as in the public code.
        self.dropout = nn.Dropout2d(0.5)
        self.fc = nn.Conv2d(channels, classes, 1, bias=False)  # a bias would be in no map
        nn.init.xavier_uniform_(self.fc.weight)

    @property
    def class_weights(self) -> Tensor:
        """The ``(C, D)`` weights that turn a feature map into class activation maps."""
        return self.fc.weight.flatten(1)

    def forward(self, features: Tensor) -> Tensor:
        """Score the deepest map ``(B, D, h, w)``: raw logits ``(B, C)``, no background."""
        # A dropped channel is zero before and after the average, so the small map is dropped.
        if self.pooling == "average":
            pooled = self.dropout(F.adaptive_avg_pool2d(features, 1))
            return torch.flatten(self.fc(pooled), 1)
        scores = torch.flatten(self.fc(self.dropout(features)), 2)  # (B, C, h w)
        largest = scores.topk(max(1, round(TOP * scores.shape[2])), dim=2).values
        return (scores.mean(2) + largest.mean(2)) / 2


class AffinityHead(nn.Module):
    """Features f_aff whose L1 distance between two positions says how unlike they are.

    Each of three maps goes through a bias-free 1x1 convolution (to ``widths`` channels), group
    normalization where asked (8 channels a group; the published VGG-16 has it) and ELU; they are
    concatenated and mixed by a bias-free 1x1 convolution and ELU. Maps of another size than the
    first are resized to it (bilinear). Initial weights are Kaiming normal, the mixing ones
    Xavier uniform with gain 4.

    Source: the paper's section 3.2; widths, gain and group normalization from its public code.
    """

    def __init__(
        self,
        channels: Sequence[int],
        widths: Sequence[int] = (64, 128, 256),
        group_norm: bool = False,
    ) -> None:
        """Make a fresh head for maps of `channels` channels, shallow to deep."""
        super().__init__()
        self.out_channels = sum(widths)
        self.reduce = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 1, bias=False)
            for inputs, outputs in zip(channels, widths, strict=True)
        )
        self.norm: nn.ModuleList | None = None
        if group_norm:
            self.norm = nn.ModuleList(
                nn.GroupNorm(max(1, width // _CHANNELS_PER_GROUP), width) for width in widths
            )
        self.mix = nn.Conv2d(self.out_channels, self.out_channels, 1, bias=False)
        for convolution in self.reduce.children():
            nn.init.kaiming_normal_(convolution.get_parameter("weight"))
        nn.init.xavier_uniform_(self.mix.weight, gain=4.0)

    def forward(self, maps: Sequence[Tensor], grid: tuple[int, int] | None = None) -> Tensor:
        """Turn a backbone's three maps into features ``(B, sum(widths), h, w)``.

        The grid ``(h, w)`` is the first map's if none is given.
        """
        grid = grid or (maps[0].shape[-2], maps[0].shape[-1])
        reduced = []
        for index, features in enumerate(maps):
            x = self.reduce[index](features)
            if self.norm is not None:
                x = self.norm[index](x)
            x = F.elu(x)
            # After the reduction, where there are fewest channels to resize.
            if x.shape[-2:] != grid:
                x = F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
            reduced.append(x)
        return F.elu(self.mix(torch.cat(reduced, dim=1)))


class BoundaryHead(nn.Module):
    """How likely a boundary between classes runs through each cell, as a logit.

    Each map of a backbone goes through a bias-free 1x1 convolution to 32 channels, group
    normalization (4 groups) and ReLU, and is brought to one grid (bilinear); they are concatenated
    and a 1x1 convolution with bias makes one map of them.

    Source: Ahn et al., CVPR 2019 (IRN), and its public code, which resizes before the ReLU.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        """Make a fresh head for maps of `channels` channels."""
        super().__init__()
        width = _BOUNDARY_WIDTH
        self.reduce = nn.ModuleList(nn.Conv2d(inputs, width, 1, bias=False) for inputs in channels)
        self.groups = nn.ModuleList(nn.GroupNorm(_BOUNDARY_GROUPS, width) for _ in channels)
        self.score = nn.Conv2d(width * len(self.reduce), 1, 1)

    def forward(self, maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Turn maps ``(B, D, h, w)`` of any sizes into logits ``(B, *grid)``."""
        reduced = []
        for features, reduce, norm in zip(maps, self.reduce, self.groups, strict=True):
            x = F.relu(norm(reduce(features)))
            if x.shape[-2:] != grid:
                x = F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
            reduced.append(x)
        logits: Tensor = self.score(torch.cat(reduced, dim=1))
        return logits[:, 0]


class PixelHead(nn.Module):
    """Per-pixel class scores from one map: dropout (0.5) and a 1x1 convolution with bias.

    The last layer of DeepLab-LargeFOV, whose ``fc6`` and ``fc7`` are already part of
    :class:`~affinitynet.models.vgg16.VGG16`. Initial weights are N(0, 0.01), the bias 0.

    Source: Chen et al., ICLR 2015 (DeepLab-v1).
    """

    def __init__(self, channels: int, classes: int) -> None:
        """Make a fresh head for maps of `channels` channels."""
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.score = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.get_parameter("bias"))

    def forward(self, features: Tensor) -> Tensor:
        """Score ``(B, D, h, w)``: logits ``(B, classes, h, w)``, the background counted in."""
        scores: Tensor = self.score(self.dropout(features))
        return scores


class LargeFovHead(nn.Module):
    """DeepLab-v1's whole head, for a backbone that ends before it (ResNet-38).

    A 3x3 convolution of dilation 12 to ``hidden`` channels, a 1x1 one, each with ReLU and dropout
    (0.5), then the 1x1 scores of :class:`PixelHead`. The two hidden layers start Kaiming normal.

    Source: Chen et al., ICLR 2015 (LargeFOV: a 3x3 ``fc6`` of dilation 12 and 1024 channels).
    """

    def __init__(self, channels: int, classes: int, hidden: int = 1024, dilation: int = 12) -> None:
        """Make a fresh head for maps of `channels` channels."""
        super().__init__()
        self.fc6 = nn.Conv2d(channels, hidden, 3, padding=dilation, dilation=dilation)
        self.dropout6 = nn.Dropout(0.5)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.fc8 = PixelHead(hidden, classes)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, features: Tensor) -> Tensor:
        """Score ``(B, D, h, w)``: logits ``(B, classes, h, w)``, the background counted in."""
        x = self.dropout6(F.relu(self.fc6(features)))
        scores: Tensor = self.fc8(F.relu(self.fc7(x)))
        return scores
