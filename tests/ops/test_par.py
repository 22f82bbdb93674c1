"""Pixel-adaptive refinement, held to loops written from its formula."""

import math

import pytest
import torch
from torch import Tensor

from affinitynet.ops import pixel_adaptive_refinement


def slow(image: Tensor, maps: Tensor, dilations: tuple[int, ...], iterations: int) -> Tensor:
    H, W = maps.shape[1:]
    colors, maps = image.double(), maps.double()
    steps = [
        (d * dy, d * dx)
        for d in dilations
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if (dy, dx) != (0, 0)
    ]
    distances = [math.hypot(*step) for step in steps]
    mean = sum(distances) / len(steps)
    deviation = (sum((d - mean) ** 2 for d in distances) / (len(steps) - 1)) ** 0.5
    near = torch.tensor([-((d / (deviation + 1e-8) / 0.3) ** 2) for d in distances]).softmax(0)
    for _ in range(iterations):
        result = torch.zeros_like(maps)
        for y in range(H):
            for x in range(W):
                places = [
                    (min(max(y + dy, 0), H - 1), min(max(x + dx, 0), W - 1)) for dy, dx in steps
                ]
                around = torch.stack([colors[place] for place in places])
                scaled = (around - colors[y, x]) / (around.std(0) + 1e-8) / 0.3
                weights = (-(scaled**2).mean(1)).softmax(0) + 0.01 * near
                for weight, (a, b) in zip(weights, places, strict=True):
                    result[:, y, x] += weight * maps[:, a, b]
        maps = result
    return maps


def scene(K: int = 2, H: int = 7, W: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (H, W, 3), generator=generator, dtype=torch.uint8)
    return image, torch.rand(K, H, W, generator=generator)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("dilations", [(1, 2, 4, 8, 12, 24), (1,), (3, 2)])
def test_it_is_the_formula(dilations: tuple[int, ...], iterations: int) -> None:
    image, maps = scene()
    found = pixel_adaptive_refinement(image, maps, dilations=dilations, iterations=iterations)
    expected = slow(image, maps, dilations, iterations)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    double = pixel_adaptive_refinement(
        image, maps.double(), dilations=dilations, iterations=iterations
    )
    torch.testing.assert_close(double, expected, rtol=1e-6, atol=1e-7)


def test_a_map_moves_to_the_edge_of_a_color() -> None:
    image = torch.zeros(16, 16, 3)
    image[:, 9:] = 255
    image += torch.randn(16, 16, 3, generator=torch.Generator().manual_seed(0))
    left = torch.zeros(16, 16)
    left[:, :6] = 1  # three columns short
    maps = torch.stack([1 - left, left])
    labels = pixel_adaptive_refinement(image, maps, iterations=20).argmax(0)
    assert (labels[:, :8] == 1).float().mean() > 0.9
    assert (labels[:, 9:] == 0).all()


def test_a_constant_stays_but_for_the_weights_sum_and_ranges_do_not_matter() -> None:
    image, maps = scene()
    flat = pixel_adaptive_refinement(image, torch.ones(1, 7, 9), iterations=3)
    torch.testing.assert_close(flat, torch.full((1, 7, 9), 1.01**3))
    torch.testing.assert_close(
        pixel_adaptive_refinement(image / 255, maps), pixel_adaptive_refinement(image, maps)
    )
    assert torch.equal(pixel_adaptive_refinement(image, maps, iterations=0), maps)
    assert pixel_adaptive_refinement(image, maps[:0]).shape == (0, 7, 9)
    assert pixel_adaptive_refinement(image.numpy(), maps).isfinite().all()
    uniform = torch.full((7, 9, 3), 80, dtype=torch.uint8)
    assert pixel_adaptive_refinement(uniform, maps).isfinite().all()


def test_gradients_equal_finite_differences() -> None:
    image, maps = scene(2, 3, 4)
    leaf = maps.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m: pixel_adaptive_refinement(image, m, iterations=2, dilations=(1, 2)), (leaf,)
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"iterations": -1}, "iterations"),
        ({"dilations": ()}, "dilations"),
        ({"dilations": (0, 1)}, "dilations"),
        ({"color_width": 0}, "color_width"),
        ({"position_weight": -1}, "position_weight"),
    ],
)
def test_settings_out_of_range_are_refused(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pixel_adaptive_refinement(*scene(), **changed)


def test_shapes_that_do_not_fit_are_refused() -> None:
    image, maps = scene()
    with pytest.raises(ValueError, match=r"do not fit: they are \(H, W, 3\)"):
        pixel_adaptive_refinement(image[1:], maps)
    with pytest.raises(ValueError, match="NaN or infinite"):
        pixel_adaptive_refinement(image, maps * math.nan)
