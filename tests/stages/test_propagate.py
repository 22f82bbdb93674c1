"""The walk of an image's CAMs against the dense matrix power and interpolation written out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from affinitynet.ops.affinity import neighbor_offsets, pairwise_affinity
from affinitynet.stages.propagate import pad_to_stride, walk_cams

Bilinear = Callable[[Tensor, int, int], Tensor]


def random_case(
    count: int, size: tuple[int, int], stride: int, radius: int
) -> tuple[Tensor, Tensor]:
    """CAMs (K, H, W) in [0, 1] and affinities of the padded grid."""
    generator = torch.Generator().manual_seed(0)
    grid = [-(-n // stride) for n in size]
    features = 2 * torch.rand(1, 4, *grid, generator=generator)
    return torch.rand(count, *size, generator=generator), pairwise_affinity(features, radius)


def slow_walk(
    cams: Tensor,
    affinity: Tensor,
    bilinear: Bilinear,
    *,
    alpha: float,
    beta: float,
    steps: int,
    radius: int,
    stride: int,
) -> Tensor:
    """Steps e.2 to e.7 of the original code in float64."""
    K, H, W = cams.shape
    h, w = affinity.shape[2:]
    padded = torch.zeros(K + 1, h * stride, w * stride, dtype=torch.float64)
    for y in range(H):
        for x in range(W):
            scores = [float(cams[k, y, x]) for k in range(K)]
            padded[0, y, x] = (1 - max(scores, default=0.0)) ** alpha
            padded[1:, y, x] = torch.tensor(scores)
    grid = torch.zeros(K + 1, h, w, dtype=torch.float64)
    for y in range(h):
        for x in range(w):
            cell = padded[:, y * stride : (y + 1) * stride, x * stride : (x + 1) * stride]
            grid[:, y, x] = cell.sum((1, 2)) / stride**2
    A = torch.eye(h * w, dtype=torch.float64)
    for p, (dy, dx) in enumerate(neighbor_offsets(radius).tolist()):
        for y in range(h - dy):
            for x in range(max(0, -dx), min(w, w - dx)):
                i, j = y * w + x, (y + dy) * w + x + dx
                A[i, j] = A[j, i] = float(affinity[0, p, y, x]) ** beta
    T = torch.linalg.matrix_power(A / A.sum(1, keepdim=True), steps)
    walked = (grid.reshape(K + 1, -1) @ T.T).reshape(K + 1, h, w)
    return bilinear(walked, h * stride, w * stride)[:, :H, :W].float()


@pytest.mark.parametrize(
    ("count", "size", "settings"),
    [
        (2, (20, 27), {"alpha": 16, "beta": 8, "steps": 256, "radius": 5, "stride": 4}),
        (1, (24, 16), {"alpha": 4, "beta": 2, "steps": 7, "radius": 2, "stride": 8}),
        (3, (9, 1), {"alpha": 1, "beta": 1, "steps": 1, "radius": 3, "stride": 2}),
        (2, (15, 18), {"alpha": 24, "beta": 8, "steps": 0, "radius": 5, "stride": 8}),
        (0, (13, 10), {"alpha": 16, "beta": 8, "steps": 3, "radius": 3, "stride": 4}),
    ],
)
def test_equals_the_matrix_power(
    count: int, size: tuple[int, int], settings: dict[str, Any], bilinear: Bilinear
) -> None:
    cams, affinity = random_case(count, size, settings["stride"], settings["radius"])
    expected = slow_walk(cams, affinity, bilinear, **settings)
    result = walk_cams(cams, affinity, **settings)
    assert result.shape == (count + 1, *size)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=5e-5)


def test_the_background_is_made_before_the_cells_are_averaged() -> None:
    """Half a cell at 1 and half at 0: the mean of (1 - M)^16 is 1/2, (1 - mean)^16 is 1/65536."""
    cams = torch.zeros(1, 8, 8)
    cams[:, :, 4:] = 1.0
    settings = {"alpha": 16.0, "beta": 8.0, "steps": 5, "radius": 5, "stride": 8}
    scores = walk_cams(cams, torch.zeros(1, 34, 1, 1), **settings)  # type: ignore[arg-type]
    torch.testing.assert_close(scores, torch.full((2, 8, 8), 0.5))


def test_the_padding_counts_as_nothing_for_every_class() -> None:
    """An image of 8 x 6 fills three quarters of its only cell."""
    settings = {"alpha": 16.0, "beta": 8.0, "steps": 5, "radius": 5, "stride": 8}
    scores = walk_cams(torch.zeros(1, 8, 6), torch.zeros(1, 34, 1, 1), **settings)  # type: ignore[arg-type]
    torch.testing.assert_close(scores[0], torch.full((8, 6), 0.75))
    assert not scores[1].any()


def test_padding_is_zeros_at_the_bottom_and_right() -> None:
    maps = torch.arange(1.0, 7.0).view(1, 2, 3)
    assert pad_to_stride(maps, 4).tolist() == [
        [[1, 2, 3, 0], [4, 5, 6, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    ]
    assert torch.equal(pad_to_stride(maps, 1), maps)
    assert pad_to_stride(torch.ones(2, 3, 375, 500), 8).shape == (2, 3, 376, 504)
    assert pad_to_stride(torch.ones(1, 16, 24), 8).shape == (1, 16, 24)
