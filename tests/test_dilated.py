"""The faster backward pass of dilated depthwise convolutions against torch's own."""

import pytest
import torch
from torch import nn

from affinitynet.dilated import faster_dilated


def depthwise(spread: int, channels: int = 4, **options) -> nn.Conv2d:
    settings = {"padding": spread, "dilation": spread, "groups": channels, "bias": False}
    return nn.Conv2d(channels, channels, 3, **{**settings, **options}).double()


def gradients(layer: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    images = images.clone().requires_grad_()
    # A gradient that differs from place to place.
    output = layer(images)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    (output * weights).sum().backward()
    grad = layer.weight.grad.clone()
    layer.weight.grad = None
    return output.detach(), images.grad, grad


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 1), (2, 13)])
@pytest.mark.parametrize("dilation", [2, 3, 4])
def test_gradients_are_those_of_torch(dilation: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer, images = depthwise(dilation), torch.randn(2, 4, *size, dtype=torch.float64)
    expected = gradients(layer, images)
    with faster_dilated(layer):
        assert "forward" in vars(layer)
        found = gradients(layer, images)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert "forward" not in vars(layer)


@pytest.mark.parametrize(
    "options", [{"dilation": 1}, {"dilation": 8}, {"padding": 1}, {"stride": 2}, {"groups": 2},
                {"bias": True}, {"padding_mode": "reflect"}],
    ids=str,
)  # fmt: skip
def test_other_convolutions_are_left_alone(options: dict) -> None:
    layer = depthwise(2, **options)
    with faster_dilated(layer):
        assert "forward" not in vars(layer)


def test_only_what_learns_gets_a_gradient() -> None:
    layer, images = depthwise(2), torch.randn(1, 4, 6, 6, dtype=torch.float64)
    layer.weight.requires_grad_(False)
    images.requires_grad_()
    with faster_dilated(layer):
        layer(images).sum().backward()
        layer.weight.requires_grad_(True)
        layer(images.detach()).sum().backward()
        with torch.no_grad():
            assert not layer(images).requires_grad
    assert images.grad is not None
    assert layer.weight.grad is not None


def test_mixed_precision_takes_torchs_own() -> None:
    layer = depthwise(2).float()
    with faster_dilated(layer), torch.autocast("cpu", torch.bfloat16):
        output = layer(torch.randn(1, 4, 6, 6))
    assert output.dtype == torch.bfloat16
