"""The first layer of a network for images of other than three channels."""

import math
from collections.abc import Mapping

from torch import Tensor, nn


def adapt_weight(weight: Tensor, channels: int) -> Tensor:
    """Make a convolution's weight for N inputs of one for RGB: (O, 3, k, k) -> (O, N, k, k).

    The three are repeated in turn and scaled by 3 / N, so that N like channels excite the layer as
    three did; of a single one they are summed. Source: timm's `adapt_input_conv`.
    """
    if channels == 3:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, math.ceil(channels / 3), 1, 1)[:, :channels]
    return repeated * (3 / channels)


def let_learn(network: nn.Module, channels: int) -> None:
    """Let a network's first convolution learn where its inputs are no RGB, frozen or not.

    What it was taught was other channels.
    """
    if channels == 3:
        return
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == channels:
            layer.requires_grad_(True)
            return


def adapted(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], *, bgr: bool = False
) -> dict[str, Tensor]:
    """Fit the first layer of a file for RGB to a network `own` of N channels; others as they are.

    bgr: the file's network takes blue first; its order is turned around, as N channels begin with
    red where they hold colors.
    """
    found = dict(tensors)
    for name, tensor in tensors.items():
        wanted = own.get(name)
        if wanted is None or wanted.ndim != 4 or tensor.ndim != 4 or tensor.shape == wanted.shape:
            continue
        if tensor.shape[1] == 3 and tensor.shape[0] == wanted.shape[0]:
            found[name] = adapt_weight(tensor.flip(1) if bgr else tensor, wanted.shape[1])
    return found
