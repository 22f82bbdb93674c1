"""The walk with restarts, held to the inverse of a dense matrix."""

import pytest
import torch
from torch import Tensor

from affinitynet.ops import neighbor_offsets, restart_walk
from affinitynet.ops.restart_walk import restart_coefficients


def dense(maps: Tensor, affinity: Tensor, beta: float, restart: float, radius: float) -> Tensor:
    """r (I - (1 - r) D^-1/2 W D^-1/2)^-1 M in float64."""
    height, width = maps.shape[-2:]
    result = []
    for sample, pairs in zip(maps.double(), affinity.double(), strict=True):
        weights = torch.eye(height * width, dtype=torch.float64)
        for p, (dy, dx) in enumerate(neighbor_offsets(radius).tolist()):
            for y in range(height - dy):
                for x in range(max(0, -dx), min(width, width - dx)):
                    i, j = y * width + x, (y + dy) * width + x + dx
                    weights[i, j] = weights[j, i] = pairs[p, y, x] ** beta
        root = weights.sum(1).sqrt()
        symmetric = weights / root / root[:, None]
        matrix = torch.eye(len(root), dtype=torch.float64) - (1 - restart) * symmetric
        walked = restart * torch.linalg.solve(matrix, sample.flatten(1).T)
        result.append(walked.T.view_as(sample))
    return torch.stack(result)


def scene(batch: int, count: int, height: int, width: int, radius: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pairs = len(neighbor_offsets(radius))
    return (
        torch.rand(batch, count, height, width, generator=generator),
        torch.rand(batch, pairs, height, width, generator=generator),
    )


@pytest.mark.parametrize("restart", [1, 0.5, 0.01, 0.001])
@pytest.mark.parametrize(("height", "width", "radius"), [(6, 7, 5), (1, 1, 5), (3, 12, 3)])
def test_it_is_the_inverse(height: int, width: int, radius: float, restart: float) -> None:
    maps, affinity = scene(2, 3, height, width, radius)
    expected = dense(maps, affinity, 2, restart, radius)
    walked = restart_walk(maps, affinity, beta=2, restart=restart, radius=radius)
    assert walked.dtype == torch.float32
    assert (walked - expected).abs().max() <= 5e-5 * maps.max()
    exact = restart_walk(maps.double(), affinity.double(), beta=2, restart=restart, radius=radius)
    torch.testing.assert_close(exact, expected, rtol=1e-9, atol=1e-10)


def test_a_tiny_restart_is_calculated_in_float64() -> None:
    maps, affinity = scene(1, 1, 5, 6, 3)
    walked = restart_walk(maps, affinity, restart=2e-6, radius=3)
    expected = dense(maps, affinity, 8, 2e-6, 3)
    assert (walked - expected).abs().max() <= 5e-5


def test_what_no_edge_leads_to_stays() -> None:
    maps, affinity = scene(1, 2, 4, 5, 5)
    torch.testing.assert_close(restart_walk(maps, affinity, restart=1), maps)
    still = restart_walk(maps, torch.zeros_like(affinity), restart=0.1)
    torch.testing.assert_close(still, maps, rtol=1e-5, atol=1e-5)


def test_a_smaller_restart_spreads_farther() -> None:
    maps = torch.zeros(1, 1, 1, 20)
    maps[..., 0] = 1
    affinity = torch.ones(1, 1, 1, 20)  # radius 1.2: the right neighbor alone
    affinity = torch.cat([affinity, torch.ones(1, 1, 1, 20)], 1)  # and the one below
    near, far = (restart_walk(maps, affinity, restart=r, radius=1.2) for r in (0.3, 0.01))
    assert far[..., 10] > 100 * near[..., 10]


def test_gradients_equal_finite_differences() -> None:
    maps, affinity = (t.double().requires_grad_() for t in scene(1, 2, 2, 3, 2))
    assert torch.autograd.gradcheck(
        lambda m, a: restart_walk(m, a, beta=2, restart=0.3, radius=2), (maps, affinity)
    )


def test_coefficients_sum_to_one_and_are_as_many_as_the_tolerance_asks() -> None:
    terms = restart_coefficients(0.01, 1e-5)
    assert sum(terms) == pytest.approx(1)
    assert 60 < len(terms) < 100
    assert restart_coefficients(1.0, 1e-5) == (1.0,)


@pytest.mark.parametrize("restart", [0, 1.5, float("nan")])
def test_a_restart_out_of_range_is_refused(restart: float) -> None:
    maps, affinity = scene(1, 1, 2, 2, 2)
    with pytest.raises(ValueError, match="restart must be from"):
        restart_walk(maps, affinity, restart=restart, radius=2)
