"""Triton's forms of the walk and the dense CRF, in its interpreter: run by `test_triton.py`."""

import os

os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

import importlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from affinitynet.ops import (
    _crf_triton,
    _walk_triton,
    confident_labels,
    dense_crf,
    neighbor_offsets,
    random_walk,
    restart_walk,
)
from affinitynet.ops._choice import Choice
from affinitynet.ops._crf_choice import mean_field_cuda
from affinitynet.ops._walk_choice import walk_cuda

WALK = importlib.import_module("affinitynet.ops.random_walk")  # there is a function of this name
CRF = importlib.import_module("affinitynet.ops.crf")
# What an older interpreter says of its own code.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:triton")


@pytest.fixture(autouse=True)
def _kernels_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where the kernels do not: the tensor path would pass all tests here."""

    def fail(_: Choice, __: torch.device, reason: BaseException) -> None:
        raise reason

    monkeypatch.setattr(Choice, "_give_up", fail)


def by_triton(function: Callable[..., Tensor], *arguments: Any, **settings: Any) -> Tensor:
    """Call an operation on CPU tensors with the kernels that CUDA tensors take."""
    walk, field = patch.object(WALK, "walk_numba", walk_cuda), mean_field_cuda
    with walk, patch.object(CRF, "mean_field_cpu", field):
        return function(*arguments, **settings)


@pytest.fixture
def one_program(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a program do the work of many, as the interpreter takes its time for each."""
    monkeypatch.setattr(_walk_triton, "CELLS", 128)
    monkeypatch.setattr(_walk_triton, "PAIRS", 64)
    for name in ("POINTS", "BLURRED", "SLICED"):
        monkeypatch.setattr(_crf_triton, name, 2048)


def random_case(shape: tuple[int, ...], radius: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Maps (B, K, h, w) and affinities, NaN where a pair leaves the grid."""
    generator = torch.Generator().manual_seed(seed)
    batch, _, height, width = shape
    offsets = neighbor_offsets(radius)
    affinity = torch.rand(batch, len(offsets), height, width, generator=generator)
    for p, (dy, dx) in enumerate(offsets.tolist()):
        affinity[:, p, max(height - dy, 0) :] = torch.nan
        affinity[:, p, :, max(width - dx, 0) if dx > 0 else 0 : width if dx > 0 else -dx] = (
            torch.nan
        )
    return torch.rand(*shape, generator=generator), affinity


def dense_walk(maps: Tensor, affinity: Tensor, beta: float, steps: int, radius: int) -> Tensor:
    """T^t as a full matrix in float64."""
    batch, _, height, width = maps.shape
    W = torch.eye(height * width, dtype=torch.float64).repeat(batch, 1, 1)
    for p, (dy, dx) in enumerate(neighbor_offsets(radius).tolist()):
        for y in range(height - dy):
            for x in range(max(-dx, 0), min(width - dx, width)):
                i, j = y * width + x, (y + dy) * width + x + dx
                W[:, i, j] = W[:, j, i] = affinity[:, p, y, x].double() ** beta
    T = torch.linalg.matrix_power(W / W.sum(2, keepdim=True), steps)
    return (maps.double().flatten(2) @ T.mT).reshape(maps.shape)


@pytest.mark.parametrize(
    ("shape", "radius", "beta", "steps"),
    [
        ((2, 3, 9, 13), 3, 8, 2),  # two programs of cells
        ((2, 5, 6, 7), 2, 0.5, 7),  # and of maps
        ((1, 1, 3, 5), 10, 2, 1),  # most pairs leave the grid
        ((1, 4, 1, 9), 5, 8, 7),
        ((1, 2, 4, 4), 1, 8, 7),  # no pairs at all
        ((1, 2, 5, 4), 2, 8, 0),
        ((1, 0, 5, 4), 2, 8, 7),
    ],
)
def test_a_walk_equals_the_matrix_power(
    shape: tuple[int, ...], radius: int, beta: float, steps: int
) -> None:
    maps, affinity = random_case(shape, radius)
    walked = by_triton(random_walk, maps, affinity, beta=beta, steps=steps, radius=radius)
    expected = dense_walk(maps, affinity, beta, steps, radius)
    torch.testing.assert_close(walked.double(), expected, atol=5e-5, rtol=0)
    kernels = random_walk(maps, affinity, beta=beta, steps=steps, radius=radius)
    torch.testing.assert_close(walked, kernels, atol=2e-6, rtol=0)


def test_a_long_walk_equals_the_matrix_power(one_program: None) -> None:
    maps, affinity = random_case((1, 3, 7, 9), 5)
    walked = by_triton(random_walk, maps, affinity, beta=8, steps=256)
    expected = dense_walk(maps, affinity, 8, 256, 5)
    torch.testing.assert_close(walked.double(), expected, atol=5e-5, rtol=0)


def test_float64_is_exact_to_1e_minus_10(one_program: None) -> None:
    maps, affinity = (values.double() for values in random_case((1, 2, 5, 7), 2))
    with patch.object(WALK, "walk_torch", walk_cuda):
        walked = random_walk(maps, affinity, beta=3, steps=9, radius=2)
    assert walked.dtype == torch.float64
    expected = dense_walk(maps, affinity, 3, 9, 2)
    torch.testing.assert_close(walked, expected, atol=1e-10, rtol=0)


def test_no_affinity_changes_nothing_and_a_constant_map_stays() -> None:
    maps, affinity = random_case((1, 2, 5, 7), 2)
    assert torch.equal(
        by_triton(random_walk, maps, torch.zeros_like(affinity), steps=1, radius=2), maps
    )
    constant = torch.full_like(maps, 0.75)
    walked = by_triton(random_walk, constant, torch.ones_like(affinity), steps=7, radius=2)
    torch.testing.assert_close(walked, constant, atol=1e-7, rtol=0)


def test_a_walk_that_begins_again(one_program: None) -> None:
    maps, affinity = random_case((1, 2, 5, 7), 2)
    affinity = affinity.nan_to_num(0)
    walked = by_triton(restart_walk, maps, affinity, restart=0.3, radius=2)
    expected = restart_walk(maps, affinity, restart=0.3, radius=2)
    torch.testing.assert_close(walked, expected, atol=1e-5, rtol=0)


def picture(height: int, width: int, channels: int = 3) -> Tensor:
    """Three flat areas with some noise, (H, W, channels)."""
    generator = torch.Generator().manual_seed(5)
    noise = 12 * torch.rand(height, width, channels, generator=generator)
    areas = (torch.arange(width) * 3 // width)[None, :, None] * 70.0
    return (areas + noise).to(torch.uint8)


def scores(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(6))


def close(result: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)
    assert (result.argmax(-3) == expected.argmax(-3)).float().mean() >= 0.99


def test_the_mean_field_in_programs_of_their_own_size() -> None:
    image, probabilities = picture(5, 14), scores(3, 5, 14)
    refined = by_triton(dense_crf, image, probabilities, iterations=1)
    close(refined, dense_crf(image, probabilities, iterations=1))


@pytest.mark.parametrize(
    ("shape", "channels", "settings"),
    [
        ((3, 13, 17), 3, {"iterations": 10}),
        ((1, 5, 6), 1, {"iterations": 2}),
        ((2, 1, 1), 3, {"iterations": 3}),
        ((4, 7, 9), 3, {"iterations": 0}),
        ((21, 7, 9), 1, {"iterations": 2, "origin": (40, 3)}),  # three programs of channels
        ((2, 3, 7, 9), 2, {"iterations": 3, "bilateral_compat": 0, "gaussian_sxy": 1.5}),
        ((2, 3, 7, 9), 3, {"iterations": 3, "gaussian_compat": 0, "bilateral_srgb": 30}),
    ],
)
def test_the_mean_field_equals_the_cpu_kernels(
    one_program: None, shape: tuple[int, ...], channels: int, settings: dict[str, Any]
) -> None:
    image, probabilities = picture(*shape[-2:], channels), scores(*shape)
    refined = by_triton(dense_crf, image, probabilities, **settings)
    torch.testing.assert_close(refined.sum(-3), torch.ones(refined.shape[:-3] + shape[-2:]))
    close(refined, dense_crf(image, probabilities, **settings))
    with patch.object(CRF, "mean_field_cpu", mean_field_cuda.plain):
        tensors = dense_crf(image, probabilities, **settings)
    torch.testing.assert_close(refined, tensors, atol=2e-5, rtol=0)


def test_confident_labels(one_program: None) -> None:
    image, cams = picture(13, 17), scores(2, 13, 17) ** 2
    labels = by_triton(confident_labels, image, cams, iterations=3)
    expected = confident_labels(image, cams, iterations=3)
    assert len(expected.unique()) >= 2
    assert (labels == expected).float().mean() >= 0.99
