"""From maps to labels against loops written from the paper, and against what has to be equal."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from affinitynet.ops import (
    background_map,
    dense_crf,
    enlarge_scores,
    label_scores,
    neighbor_offsets,
    pairwise_affinity,
    random_walk,
    refine_scores,
    restart_walk,
    walk_scores,
)
from affinitynet.ops.propagation import pad_to_stride

PAPER = {"alpha": 16.0, "beta": 8.0, "steps": 256, "radius": 5, "stride": 8}
SETTINGS: list[tuple[int, tuple[int, int], dict[str, Any]]] = [
    (2, (20, 27), {"alpha": 16, "beta": 8, "steps": 256, "radius": 5, "stride": 4}),
    (1, (24, 16), {"alpha": 4, "beta": 2, "steps": 7, "radius": 2, "stride": 8}),
    (3, (9, 1), {"alpha": 1, "beta": 1, "steps": 1, "radius": 3, "stride": 2}),
    (2, (15, 18), {"alpha": 24, "beta": 8, "steps": 0, "radius": 5, "stride": 8}),
    (0, (13, 10), {"alpha": 16, "beta": 8, "steps": 3, "radius": 3, "stride": 4}),
]


def case(count: int, size: tuple[int, int], stride: int, radius: int) -> tuple[Tensor, Tensor]:
    """Maps (K, H, W) in [0, 1] and affinities (1, P, h, w) of the padded grid."""
    generator = torch.Generator().manual_seed(0)
    grid = [-(-n // stride) for n in size]
    features = 2 * torch.rand(1, 4, *grid, generator=generator)
    return torch.rand(count, *size, generator=generator), pairwise_affinity(features, radius)


def slow_walk(cams: Tensor, affinity: Tensor, settings: dict[str, Any]) -> Tensor:
    """Cell averages and the dense matrix power in float64."""
    alpha, beta, steps, radius, stride = settings.values()
    K, H, W = cams.shape
    h, w = affinity.shape[2:]
    grid = torch.zeros(K + 1, h, w, dtype=torch.float64)
    for y in range(H):
        for x in range(W):
            scores = [float(cams[k, y, x]) for k in range(K)]
            pixel = torch.tensor([(1 - max(scores, default=0.0)) ** alpha, *scores]).double()
            grid[:, y // stride, x // stride] += pixel / stride**2
    A = torch.eye(h * w, dtype=torch.float64)
    for p, (dy, dx) in enumerate(neighbor_offsets(radius).tolist()):
        for y in range(h - dy):
            for x in range(max(0, -dx), min(w, w - dx)):
                i, j = y * w + x, (y + dy) * w + x + dx
                A[i, j] = A[j, i] = float(affinity[0, p, y, x]) ** beta
    T = torch.linalg.matrix_power(A / A.sum(1, keepdim=True), steps)
    return (grid.reshape(K + 1, -1) @ T.T).reshape(K + 1, h, w)


def whole_walk(cams: Tensor, affinity: Tensor, settings: dict[str, Any]) -> Tensor:
    """The walk from maps to scores at image size in one piece, as version 0.1 wrote it."""
    alpha, beta, steps, radius, stride = settings.values()
    height, width = cams.shape[-2:]
    maps = torch.cat([background_map(cams, alpha), cams])
    maps = F.pad(maps, (0, -width % stride, 0, -height % stride))
    grid = F.avg_pool2d(maps[None], stride)
    walked = random_walk(grid, affinity, beta=beta, steps=steps, radius=radius)
    spread = F.interpolate(walked, maps.shape[-2:], mode="bilinear", align_corners=False)
    return spread[0, :, :height, :width].clamp(0, 1)


@pytest.mark.parametrize(("count", "size", "settings"), SETTINGS)
def test_walk_equals_the_matrix_power(
    count: int, size: tuple[int, int], settings: dict[str, Any]
) -> None:
    cams, affinity = case(count, size, settings["stride"], settings["radius"])
    scores = walk_scores(cams, affinity, **settings)
    expected = slow_walk(cams, affinity, settings).float()
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=5e-5)
    assert torch.equal(walk_scores(cams, affinity[0], **settings), scores)


@pytest.mark.parametrize(("count", "size", "settings"), SETTINGS)
def test_the_steps_together_give_the_bits_of_the_walk_in_one_piece(
    count: int, size: tuple[int, int], settings: dict[str, Any]
) -> None:
    cams, affinity = case(count, size, settings["stride"], settings["radius"])
    scores = walk_scores(cams, affinity, **settings)
    whole = whole_walk(cams, affinity, settings)
    assert torch.equal(enlarge_scores(scores, settings["stride"], size), whole)


def test_classes_keep_their_order() -> None:
    cams, affinity = case(3, (30, 41), 8, 5)
    scores = walk_scores(cams, affinity, **PAPER)
    turned = walk_scores(cams[[2, 0, 1]], affinity, **PAPER)
    torch.testing.assert_close(turned, scores[[0, 3, 1, 2]])


def test_maps_over_one_keep_their_excess_and_none_goes_below_zero() -> None:
    cams, affinity = case(2, (40, 48), 8, 5)
    double = walk_scores(2 * cams, affinity, **PAPER)
    torch.testing.assert_close(double[1:], 2 * walk_scores(cams, affinity, **PAPER)[1:])
    assert walk_scores(torch.full((1, 40, 48), 1.5), affinity, **PAPER)[1].max() > 1
    below = walk_scores(cams - 2, affinity, **PAPER)
    assert torch.equal(below[1:], torch.zeros(2, 5, 6))


def test_background_is_made_before_the_cells_are_averaged() -> None:
    """Half a cell at 1 and half at 0: the mean of (1 - M)^16 is 1/2, (1 - mean)^16 is 1/65536."""
    cams = torch.zeros(1, 8, 8)
    cams[:, :, 4:] = 1.0
    scores = walk_scores(cams, torch.zeros(34, 1, 1), **PAPER)
    torch.testing.assert_close(scores, torch.full((2, 1, 1), 0.5))


def test_padding_counts_as_nothing_for_every_map() -> None:
    """An image of 8 x 6 fills three quarters of its only cell."""
    scores = walk_scores(torch.zeros(1, 8, 6), torch.zeros(34, 1, 1), **PAPER)
    torch.testing.assert_close(scores.flatten(), torch.tensor([0.75, 0]))


def test_half_precision_affinities_and_double_maps() -> None:
    cams, affinity = case(2, (24, 24), 8, 5)
    expected = walk_scores(cams, affinity.half().float(), **PAPER)
    assert torch.equal(walk_scores(cams, affinity.half(), **PAPER), expected)
    assert walk_scores(cams.double(), affinity, **PAPER).dtype == torch.float64


@pytest.mark.parametrize(
    ("cams", "affinity", "changed", "words"),
    [
        ((2, 24, 24), (34, 3, 4), {}, "do not fit"),
        ((2, 24, 24), (2, 34, 3, 3), {}, "do not fit"),
        ((24, 24), (34, 3, 3), {}, "do not fit"),
        ((2, 24, 24), (34, 3), {}, "do not fit"),
        ((2, 24, 24), (33, 3, 3), {}, "do not fit"),
        ((2, 24, 24), (34, 3, 3), {"stride": 4}, "do not fit"),
        ((2, 24, 24), (34, 24, 24), {"stride": 0}, "stride must be at least 1, not 0"),
        ((2, 24, 24), (34, 3, 3), {"alpha": 0}, "alpha"),
        ((2, 24, 24), (34, 3, 3), {"beta": 0}, "beta"),
        ((2, 24, 24), (34, 3, 3), {"steps": -1}, "steps"),
    ],
)
def test_walks_that_are_refused(
    cams: tuple[int, ...], affinity: tuple[int, ...], changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        walk_scores(torch.zeros(cams), torch.zeros(affinity), **{**PAPER, **changed})


def slow_bilinear(grid: list[list[float]], stride: int, y: int, x: int) -> float:
    """The value at the middle of a pixel between the middles of cells, the edge's beyond them."""
    h, w = len(grid), len(grid[0])
    v = min(max((y + 0.5) / stride - 0.5, 0), h - 1)
    u = min(max((x + 0.5) / stride - 0.5, 0), w - 1)
    top, left = math.floor(v), math.floor(u)
    bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
    upper = grid[top][left] * (1 - u + left) + grid[top][right] * (u - left)
    lower = grid[bottom][left] * (1 - u + left) + grid[bottom][right] * (u - left)
    return upper * (1 - v + top) + lower * (v - top)


@pytest.mark.parametrize(
    ("stride", "size"), [(4, (10, 15)), (8, (24, 9)), (1, (3, 4)), (3, (1, 7))]
)
def test_enlarging_equals_interpolation_by_hand(stride: int, size: tuple[int, int]) -> None:
    grid = torch.rand(2, -(-size[0] // stride), -(-size[1] // stride))
    expected = [
        [[slow_bilinear(one, stride, y, x) for x in range(size[1])] for y in range(size[0])]
        for one in grid.tolist()
    ]
    torch.testing.assert_close(enlarge_scores(grid, stride, size), torch.tensor(expected))


def test_enlarging_keeps_what_is_level_and_takes_half_precision() -> None:
    assert torch.equal(enlarge_scores(torch.ones(1, 3, 4), 8, (20, 32)), torch.ones(1, 20, 32))
    half = torch.rand(2, 3, 4).half()
    assert torch.equal(enlarge_scores(half, 8, (20, 32)), enlarge_scores(half.float(), 8, (20, 32)))


@pytest.mark.parametrize(
    ("shape", "stride", "size"),
    [
        ((2, 3, 4), 8, (25, 32)),
        ((2, 3, 4), 8, (16, 32)),
        ((2, 3, 4), 8, (24, 33)),
        ((3, 4), 8, (24, 32)),
        ((1, 2, 3, 4), 8, (24, 32)),
        ((2, 3, 4), 0, (24, 32)),
    ],
)
def test_grids_of_another_image(shape: tuple[int, ...], stride: int, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="do not fit an image"):
        enlarge_scores(torch.zeros(shape), stride, size)


def test_refining_is_the_dense_crf_unless_all_is_background() -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (20, 25, 3), dtype=torch.uint8, generator=generator)
    scores = torch.rand(3, 20, 25, generator=generator)
    settings = {"iterations": 2, "bilateral_sxy": 50.0, "bilateral_srgb": 5.0}
    expected = dense_crf(image, scores, **settings)  # type: ignore[arg-type]
    assert torch.equal(refine_scores(image, scores, **settings), expected)  # type: ignore[arg-type]
    assert not torch.equal(refine_scores(image, scores), expected)
    assert torch.equal(refine_scores(image, scores[:1]), scores[:1])


def test_labels_equal_a_loop_and_ties_go_to_the_smallest() -> None:
    scores = torch.randint(0, 3, (4, 30, 40), generator=torch.Generator().manual_seed(2)).float()
    labels = label_scores(scores)
    assert labels.dtype == torch.int64
    for y in range(30):
        for x in range(40):
            pixel = scores[:, y, x].tolist()
            assert labels[y, x] == pixel.index(max(pixel))
    assert not label_scores(torch.rand(1, 3, 4)).any()


@pytest.mark.parametrize("shape", [(0, 4, 5), (4, 5), (1, 2, 4, 5)])
def test_scores_that_cannot_be_labels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="L from 1"):
        label_scores(torch.zeros(shape))


def test_padding_is_zeros_at_the_bottom_and_right() -> None:
    maps = torch.arange(1.0, 7.0).view(1, 2, 3)
    assert pad_to_stride(maps, 4).tolist() == [
        [[1, 2, 3, 0], [4, 5, 6, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    ]
    assert torch.equal(pad_to_stride(maps, 1), maps)
    assert pad_to_stride(torch.ones(2, 3, 375, 500), 8).shape == (2, 3, 376, 504)
    with pytest.raises(ValueError, match="stride must be at least 1, not 0"):
        pad_to_stride(maps, 0)


def test_a_constant_background_stands_beside_classes_that_alone_walked():
    cams, affinity = case(2, (20, 27), 4, 5)
    settings = {**PAPER, "stride": 4}
    scores = walk_scores(cams, affinity, **settings, threshold=0.3)
    free = walk_scores(cams, affinity, **settings)[1:]
    assert (scores[0] == 0.3).all()
    torch.testing.assert_close(scores[1:], free)
    relative = walk_scores(cams, affinity, **settings, threshold=0.3, relative=True)
    torch.testing.assert_close(relative[1:], free / free.max())
    assert (relative[0] == 0.3).all()
    nothing = walk_scores(cams[:0], affinity, **settings, threshold=0.3)
    assert nothing.shape == (1, *affinity.shape[2:])
    assert label_scores(nothing).max() == 0
    with pytest.raises(ValueError, match="threshold must be from 0 to 1"):
        walk_scores(cams, affinity, **settings, threshold=1.5)


def test_a_walk_with_restarts_is_that_of_the_same_cells():
    cams, affinity = case(2, (24, 16), 8, 2)
    settings = {**PAPER, "radius": 2, "restart": 0.02}
    cells = F.avg_pool2d(torch.cat([background_map(cams, 16), cams])[None], 8)
    expected = restart_walk(cells, affinity, beta=8, restart=0.02, radius=2)[0]
    torch.testing.assert_close(walk_scores(cams, affinity, **settings), expected.clamp(min=0))
