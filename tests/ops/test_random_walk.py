"""The random walk, held to the dense matrix power of the paper."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from affinitynet.ops import affinity as pairs
from affinitynet.ops.random_walk import (
    power_coefficients,
    random_walk,
    walk_numba,
    walk_torch,
)


def dense_walk(maps: Tensor, affinity: Tensor, beta: float, steps: int, radius: float) -> Tensor:
    """vec(M*) = T^t vec(M) with T = D^-1 W^beta as a full matrix in float64 (sections 3.3, 3.4)."""
    maps, affinity = maps.double(), affinity.double()
    count, height, width = maps.shape[1:]
    results = []
    for sample in range(len(maps)):
        W = torch.eye(height * width, dtype=torch.float64)
        for p, (dy, dx) in enumerate(pairs.neighbor_offsets(radius).tolist()):
            for y in range(height):
                for x in range(width):
                    if y + dy < height and 0 <= x + dx < width:
                        i, j = y * width + x, (y + dy) * width + x + dx
                        W[i, j] = W[j, i] = affinity[sample, p, y, x] ** beta
        T = torch.linalg.matrix_power(W / W.sum(1, keepdim=True), steps)
        results.append((maps[sample].reshape(count, -1) @ T.T).reshape(count, height, width))
    return torch.stack(results)


def random_case(
    height: int, width: int, *, count: int = 2, radius: float = 5, batch: int = 1, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Maps in [0, 1] and affinities of smooth regions, hard edges among them."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(batch, 3, height, width, generator=generator) * 0.3
    features += (torch.arange(width) > width // 2) * 1.0
    maps = torch.rand(batch, count, height, width, generator=generator)
    return maps, pairs.pairwise_affinity(features, radius)


def error(result: Tensor, expected: Tensor) -> float:
    """Largest error relative to the largest value."""
    if not expected.numel():
        return 0.0
    return float((result.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


@pytest.mark.parametrize("radius", range(1, 11))
def test_equals_the_matrix_power_for_every_radius(radius):
    maps, affinity = random_case(11, 14, radius=radius)
    expected = dense_walk(maps, affinity, 8, 256, radius)
    assert error(random_walk(maps, affinity, radius=radius), expected) < 5e-5


@pytest.mark.parametrize(
    "grid", [(1, 1), (1, 2), (1, 9), (23, 1), (2, 2), (3, 17), (8, 8), (16, 5)]
)
def test_equals_the_matrix_power_on_every_grid(grid):
    maps, affinity = random_case(*grid, count=3)
    expected = dense_walk(maps, affinity, 8, 256, 5)
    assert error(random_walk(maps, affinity), expected) < 5e-5


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 7, 37, 100, 255, 1000, 4097])
def test_equals_the_matrix_power_for_every_number_of_steps(steps):
    maps, affinity = random_case(7, 9)
    expected = dense_walk(maps, affinity, 8, steps, 5)
    assert error(random_walk(maps, affinity, steps=steps), expected) < 5e-5


@pytest.mark.parametrize("beta", [0.5, 1, 2, 3.7, 8, 10, 16])
def test_equals_the_matrix_power_for_every_beta(beta):
    maps, affinity = random_case(7, 9)
    expected = dense_walk(maps, affinity, beta, 64, 5)
    assert error(random_walk(maps, affinity, beta=beta, steps=64), expected) < 5e-5


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 9])
def test_maps_walk_independently(count):
    maps, affinity = random_case(9, 10, count=count, batch=2)
    together = random_walk(maps, affinity)
    assert together.shape == maps.shape
    for k in range(count):
        alone = random_walk(maps[:, k : k + 1], affinity)
        torch.testing.assert_close(together[:, k : k + 1], alone, rtol=0, atol=2e-6)


def test_a_batch_equals_its_samples():
    maps, affinity = random_case(9, 10, batch=3)
    together = random_walk(maps, affinity)
    for b in range(3):
        alone = random_walk(maps[b : b + 1], affinity[b : b + 1])
        assert torch.equal(together[b : b + 1], alone)


def test_float64_is_exact_to_1e_minus_10():
    maps, affinity = random_case(9, 10)
    maps, affinity = maps.double(), affinity.double()
    result = random_walk(maps, affinity)
    assert result.dtype == torch.float64
    assert error(result, dense_walk(maps, affinity, 8, 256, 5)) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_calculated_in_float32(dtype):
    maps, affinity = random_case(6, 7)
    result = random_walk(maps.to(dtype), affinity.to(dtype))
    assert result.dtype == torch.float32
    assert torch.equal(result, random_walk(maps.to(dtype).float(), affinity.to(dtype).float()))


def test_isolated_pixels_keep_their_value():
    maps, affinity = random_case(9, 10)
    affinity[:, :, 4, 5] = 0
    for p, (dy, dx) in enumerate(pairs.neighbor_offsets().tolist()):
        if 4 - dy >= 0 and 0 <= 5 - dx < 10:
            affinity[:, p, 4 - dy, 5 - dx] = 0
    result = random_walk(maps, affinity)
    torch.testing.assert_close(result[:, :, 4, 5], maps[:, :, 4, 5], rtol=1e-6, atol=0)
    assert error(result, dense_walk(maps, affinity, 8, 256, 5)) < 5e-5


def test_without_any_affinity_nothing_moves():
    maps, affinity = random_case(6, 7)
    result = random_walk(maps, torch.zeros_like(affinity))
    torch.testing.assert_close(result, maps, rtol=1e-6, atol=0)


def test_affinities_of_one_average_everything():
    maps = random_case(6, 7)[0]
    affinity = pairs.pairwise_affinity(torch.ones(1, 2, 6, 7))
    expected = dense_walk(maps, affinity, 8, 1000, 5)
    result = random_walk(maps, affinity, steps=1000)
    assert error(result, expected) < 5e-5
    assert float(result.std((-2, -1)).max()) < 1e-4


def test_a_two_cycle_graph_reaches_the_negative_end_of_the_spectrum():
    """Neighbours of distance one only: eigenvalues down to -3/5, where odd powers are negative."""
    maps = random_case(6, 7)[0]
    affinity = torch.ones(1, 2, 6, 7)
    affinity[:, 0, :, -1] = 0
    affinity[:, 1, -1] = 0
    for steps in (5, 6, 51):
        expected = dense_walk(maps, affinity, 8, steps, 1.2)
        result = random_walk(maps, affinity, steps=steps, radius=1.2)
        assert error(result, expected) < 5e-5


def test_constant_maps_are_fixed_points():
    affinity = random_case(13, 12)[1]
    maps = torch.tensor([0.0, 0.3, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 13, 12)
    torch.testing.assert_close(random_walk(maps, affinity), maps, rtol=1e-5, atol=0)


def test_linear_in_the_maps():
    maps, affinity = random_case(9, 10)
    first, second = maps[:, :1], maps[:, 1:]
    mixed = random_walk(3 * first - 2 * second, affinity)
    apart = 3 * random_walk(first, affinity) - 2 * random_walk(second, affinity)
    torch.testing.assert_close(mixed, apart, rtol=0, atol=2e-5)


def test_an_average_stays_between_the_extremes():
    maps, affinity = random_case(12, 12)
    result = random_walk(maps, affinity)
    assert float(result.max()) <= float(maps.max()) + 1e-5
    assert float(result.min()) >= float(maps.min()) - 1e-5


def test_walking_twice_is_walking_the_sum_of_steps():
    maps, affinity = random_case(9, 10)
    halfway = random_walk(maps, affinity, steps=100)
    torch.testing.assert_close(
        random_walk(halfway, affinity, steps=156),
        random_walk(maps, affinity, steps=256),
        rtol=0,
        atol=5e-5,
    )


def test_mirrored_input_gives_the_mirrored_result():
    features = torch.rand(1, 3, 8, 9, generator=torch.Generator().manual_seed(3))
    maps = random_case(8, 9)[0]
    straight = random_walk(maps, pairs.pairwise_affinity(features))
    for axes in [(-1,), (-2,), (-2, -1)]:
        flipped = random_walk(maps.flip(axes), pairs.pairwise_affinity(features.flip(axes)))
        torch.testing.assert_close(flipped.flip(axes), straight, rtol=0, atol=5e-6)


def test_what_stands_outside_the_grid_is_not_read():
    maps, affinity = random_case(6, 7)
    dirty = affinity + (pairs.pairwise_affinity(torch.ones(1, 1, 6, 7)) == 0) * 0.9
    assert torch.equal(random_walk(maps, dirty), random_walk(maps, affinity))


def test_the_cropped_pairs_leave_ten_isolated_pixels():
    maps, affinity = random_case(12, 14)
    cropped = pairs.cropped_pairs(affinity)
    result = random_walk(maps, cropped)
    assert error(result, dense_walk(maps, cropped, 8, 256, 5)) < 5e-5
    kept = (result - maps).abs().amax((0, 1)) < 1e-6
    h, w = 12, 14
    expected = {(0, 0), (0, 1), (0, 2), (0, 3), (h - 2, 0), (h - 1, 0), (h - 1, 1)}
    expected |= {(h - 2, w - 1), (h - 1, w - 2), (h - 1, w - 1)}
    assert {tuple(position) for position in kept.nonzero().tolist()} == expected


def test_strided_input_equals_contiguous_input():
    maps, affinity = random_case(8, 9, batch=2)
    strided = maps.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    assert not strided.is_contiguous()
    upside_down = affinity.flip(1).flip(1).transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(random_walk(strided, upside_down), random_walk(maps, affinity))


def test_the_input_is_left_alone():
    maps, affinity = random_case(8, 9)
    before = maps.clone(), affinity.clone()
    random_walk(maps, affinity)
    random_walk(maps, affinity, steps=0).zero_()
    assert torch.equal(maps, before[0])
    assert torch.equal(affinity, before[1])


@settings(deadline=None, max_examples=40)
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    count=st.integers(1, 4),
    radius=st.integers(1, 6),
    beta=st.sampled_from([0.5, 1, 3, 8]),
    steps=st.integers(0, 300),
    seed=st.integers(0, 10**6),
)
def test_equals_the_matrix_power_whatever_the_input(grid, count, radius, beta, steps, seed):
    """Affinities of any size, a third of them exactly zero or one."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(1, count, *grid, generator=generator)
    P = len(pairs.neighbor_offsets(radius))
    affinity = (torch.rand(1, P, *grid, generator=generator) * 1.5 - 0.25).clamp(0, 1)
    expected = dense_walk(maps, affinity, beta, steps, radius)
    result = random_walk(maps, affinity, beta=beta, steps=steps, radius=radius)
    assert error(result, expected) < 5e-5


@pytest.mark.parametrize(
    ("radius", "steps", "beta"), [(1, 3, 8), (2, 0, 2), (3, 1, 2), (3, 9, 2.5)]
)
def test_gradients_equal_finite_differences(radius, steps, beta):
    maps, affinity = random_case(4, 5, radius=radius, batch=2)
    maps, affinity = maps.double().requires_grad_(), affinity.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m, a: random_walk(m, a, beta=beta, steps=steps, radius=radius),
        (maps, affinity),
    )


def test_gradients_of_a_long_walk_equal_those_of_the_matrix_power():
    maps, affinity = random_case(5, 6, radius=3)
    maps, affinity = maps.double().requires_grad_(), affinity.double().requires_grad_()
    wanted = torch.rand_like(maps)
    (random_walk(maps, affinity, radius=3) * wanted).sum().backward()
    ours = maps.grad, affinity.grad
    maps.grad = affinity.grad = None
    (dense_walk(maps, affinity, 8, 256, 3) * wanted).sum().backward()
    torch.testing.assert_close(ours[0], maps.grad, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(ours[1], affinity.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("grid", [(1, 1), (9, 10), (40, 70)])
@pytest.mark.parametrize("radius", [1, 3, 5])
def test_asking_for_gradients_does_not_change_the_result(grid, radius):
    maps, affinity = random_case(*grid, radius=radius, batch=2, count=3)
    plain = random_walk(maps, affinity, radius=radius)
    recorded = random_walk(maps.requires_grad_(), affinity, radius=radius)
    assert recorded.requires_grad
    assert not plain.requires_grad
    assert torch.equal(recorded, plain)


@pytest.mark.parametrize("grid", [(1, 1), (2, 9), (9, 10), (20, 35)])
@pytest.mark.parametrize("radius", [2, 5])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_kernels_equal_the_walk_in_torch(grid, radius, dtype, close):
    """The path that CUDA takes: values and both gradients, relative to the largest."""
    maps, affinity = (x.to(dtype) for x in random_case(*grid, radius=radius, batch=2, count=3))
    wanted = torch.rand(maps.shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    offsets, coefficients = pairs.displacements(radius), power_coefficients(64, 1e-5)
    found = []
    for walk in (walk_numba, walk_torch):
        leaves = maps.clone().requires_grad_(), affinity.clone().requires_grad_()
        walked = walk(leaves[0], leaves[1] ** 8, offsets, coefficients)
        found.append((walked.detach(), *torch.autograd.grad((walked * wanted).sum(), leaves)))
    for ours, twin in zip(*found, strict=True):
        assert error(ours, twin.double()) < close


def test_without_gradients_the_arguments_may_ask_for_them():
    maps, affinity = random_case(5, 6)
    with torch.no_grad():
        result = random_walk(maps.requires_grad_(), affinity)
    assert not result.requires_grad
    assert torch.equal(result, random_walk(maps.detach(), affinity))


@pytest.mark.parametrize("power", [0, 1, 2, 3, 7, 64, 255, 256, 1000])
def test_the_polynomial_is_the_power(power):
    x = np.linspace(-1, 1, 501)
    for tolerance in (1e-5, 1e-12):
        coefficients = power_coefficients(power, tolerance)
        fitted = np.polynomial.chebyshev.chebval(x, coefficients)
        assert np.abs(fitted - x**power).max() <= 2 * tolerance
        assert abs(math.fsum(coefficients) - 1) < 1e-15


def test_seventy_products_replace_256():
    assert len(power_coefficients(256, 1e-5)) - 1 == 70


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": 4}, "radius 4 takes"),
        ({"affinity": torch.ones(1, 34, 5, 6)}, "do not fit"),
        ({"affinity": torch.ones(2, 34, 5, 5)}, "do not fit"),
        ({"maps": torch.ones(5, 5)}, "do not fit"),
        ({"beta": 0}, "beta must be above 0"),
        ({"steps": -1}, "steps must be a whole number"),
        ({"radius": 0.5}, "at least 1 and finite"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {"maps": torch.ones(1, 2, 5, 5), "affinity": torch.ones(1, 34, 5, 5)} | change
    with pytest.raises(ValueError, match=message):
        random_walk(**arguments)


def spectral_walk(maps: Tensor, affinity: Tensor, steps: int) -> Tensor:
    """Walk any number of steps in float64, by the eigenvalues of D^-1/2 W D^-1/2."""
    height, width = maps.shape[2:]
    one = dense_weights(affinity.double() ** 8, height, width)
    degree = one.sum(1).sqrt()
    values, vectors = torch.linalg.eigh(one / degree[:, None] / degree)
    start = (maps[0].double().reshape(maps.shape[1], -1) * degree) @ vectors
    return (start * values.clamp(-1, 1) ** steps @ vectors.T / degree).reshape(maps.shape[1:])


def dense_weights(pairs_of: Tensor, height: int, width: int) -> Tensor:
    weights = torch.eye(height * width, dtype=torch.float64)
    for p, (dy, dx) in enumerate(pairs.neighbor_offsets().tolist()):
        for y in range(height - dy):
            for x in range(max(0, -dx), width - max(0, dx)):
                i, j = y * width + x, (y + dy) * width + x + dx
                weights[i, j] = weights[j, i] = pairs_of[0, p, y, x]
    return weights


@pytest.mark.parametrize("steps", [10_000, 10_001, 100_000, 1_000_000])
def test_the_promised_error_holds_over_many_steps(steps):
    maps, affinity = random_case(9, 11, seed=3)
    result = random_walk(maps, affinity, steps=steps)
    assert result.dtype == torch.float32
    assert error(result[0], spectral_walk(maps, affinity, steps)) < 5e-5
