"""Boundary affinities, held to loops written from the paper."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from affinitynet.ops import affinity_loss, affinity_targets, boundary_affinity, neighbor_offsets
from affinitynet.ops.boundary import line_cells


def slow_affinity(boundary: Tensor, radius: float) -> Tensor:
    """1 - the largest boundary of all cells in the box of i and j that are nearer to ij than 1."""
    batch, height, width = boundary.shape
    offsets = neighbor_offsets(radius).tolist()
    result = torch.zeros(batch, len(offsets), height, width, dtype=boundary.dtype)
    for p, (dy, dx) in enumerate(offsets):
        for y in range(height - dy):
            for x in range(max(0, -dx), min(width, width - dx)):
                on_line = [
                    boundary[:, y + cy, x + cx]
                    for cy in range(dy + 1)
                    for cx in range(min(dx, 0), max(dx, 0) + 1)
                    if abs(dy * cx - dx * cy) / (dy**2 + dx**2) ** 0.5 < 1 - 1e-9
                ]
                result[:, p, y, x] = 1 - torch.stack(on_line).amax(0)
    return result


def random_boundary(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_the_cells_of_a_line():
    assert line_cells(0, 3) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert line_cells(0, -2) == [(0, 0), (0, -1), (0, -2)]
    # Both neighbors of a diagonal: a boundary along the other diagonal has no hole.
    assert sorted(line_cells(1, 1)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert (0, 2) not in line_cells(2, 2)
    assert line_cells(4, -2)[-1] == (4, -2)


@pytest.mark.parametrize("radius", [2, 5, 10])
def test_a_line_goes_from_end_to_end_without_a_gap(radius: int):
    for dy, dx in neighbor_offsets(radius).tolist():
        cells = line_cells(dy, dx)
        assert (cells[0], cells[-1]) == ((0, 0), (dy, dx))
        reached = {cells[0]}
        for y, x in cells[1:]:
            assert any(abs(y - a) + abs(x - b) == 1 for a, b in reached)
            reached.add((y, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "radius"),
    [
        ((2, 6, 9), 5),
        ((1, 1, 1), 5),
        ((1, 1, 12), 4),
        ((1, 12, 1), 5),
        ((2, 2, 3), 10),
        ((1, 12, 13), 10),
        ((1, 5, 8), 2),
        ((1, 3, 4), 2.5),
        ((2, 4, 5), 1),
    ],
)
def test_affinity_equals_the_formula(shape, radius, dtype):
    """In the kernel, which float32 takes on the CPU, and in plain torch."""
    boundary = random_boundary(*shape).to(dtype)
    result = boundary_affinity(boundary, radius)
    assert result.dtype == dtype
    assert torch.equal(result, slow_affinity(boundary, radius))


@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 19)),
    radius=st.integers(1, 7),
    seed=st.integers(0, 10**6),
)
def test_affinity_equals_the_formula_whatever_the_shape(shape, radius, seed):
    boundary = random_boundary(*shape, seed=seed)
    assert torch.equal(boundary_affinity(boundary, radius), slow_affinity(boundary, radius))


def test_a_wall_parts_what_lies_on_its_two_sides():
    boundary = torch.zeros(1, 8, 8)
    boundary[:, :, 4] = 1
    affinity = boundary_affinity(boundary)
    for p, (dy, dx) in enumerate(neighbor_offsets().tolist()):
        for y in range(8 - dy):
            for x in range(max(0, -dx), min(8, 8 - dx)):
                parted = min(x, x + dx) <= 4 <= max(x, x + dx)
                assert affinity[0, p, y, x] == (0 if parted else 1)


def test_mirrored_boundaries_give_mirrored_affinities():
    """Lines have no side: all that a mirror changes is which displacement a pair has."""
    boundary = random_boundary(1, 7, 9)
    offsets = [tuple(offset) for offset in neighbor_offsets().tolist()]
    affinity, mirrored = boundary_affinity(boundary), boundary_affinity(boundary.flip(-1))
    for p, (dy, dx) in enumerate(offsets):
        if dy > 0:
            assert torch.equal(mirrored[0, offsets.index((dy, -dx))], affinity[0, p].flip(-1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_float32(dtype):
    boundary = random_boundary(1, 4, 4).to(dtype)
    assert torch.equal(boundary_affinity(boundary), boundary_affinity(boundary.float()))


def test_strided_boundaries_equal_contiguous_ones():
    boundary = random_boundary(2, 9, 7)
    assert torch.equal(
        boundary_affinity(boundary.transpose(1, 2)),
        boundary_affinity(boundary.transpose(1, 2).contiguous()),
    )


@pytest.mark.parametrize(("shape", "radius"), [((2, 3, 4), 3), ((1, 2, 5), 5), ((1, 1, 1), 4)])
def test_gradients_equal_finite_differences(shape, radius):
    boundary = random_boundary(*shape).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda b: boundary_affinity(b, radius), (boundary,))


@pytest.mark.parametrize(
    ("shape", "radius"), [((2, 9, 10), 5), ((1, 1, 6), 4), ((1, 5, 35), 3), ((1, 11, 5), 10)]
)
def test_gradients_of_the_kernel_equal_those_of_the_formula(shape, radius):
    weight = random_boundary(shape[0], len(neighbor_offsets(radius)), *shape[1:], seed=1)
    gradients = []
    for function in (boundary_affinity, slow_affinity):
        leaf = random_boundary(*shape).requires_grad_()
        (function(leaf, radius) * weight).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_equal_boundaries_the_first_on_the_way_learns(dtype):
    boundary = torch.full((1, 1, 4), 0.5, dtype=dtype, requires_grad=True)
    boundary_affinity(boundary, 4)[0, 2, 0, 0].backward()  # from the first cell to the last
    assert boundary.grad is not None
    assert boundary.grad.tolist() == [[[-1.0, 0.0, 0.0, 0.0]]]


def test_descent_puts_the_boundary_between_the_labels():
    """What it is for: pairs of labels, a neutral strip between them, and a map that learns."""
    labels = torch.zeros(1, 12, 16, dtype=torch.int64)
    labels[..., 9:], labels[..., 7:9] = 1, 255
    logits = random_boundary(1, 12, 16).requires_grad_()
    targets = affinity_targets(labels, 6)
    for _ in range(60):
        loss = affinity_loss(boundary_affinity(logits.sigmoid(), 6), targets).total
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - 200 * gradient).detach().requires_grad_()
    boundary = logits.sigmoid()[0]
    assert boundary[:, 7:9].amax(1).min() > 0.9
    assert boundary[:, :6].max() < 0.5
    assert boundary[:, 10:].max() < 0.5


@pytest.mark.parametrize(
    ("boundary", "message"),
    [
        (torch.zeros(3, 4), r"boundary is \(B, h, w\), not \(3, 4\)"),
        (torch.full((1, 2, 2), 1.5), "boundary"),
        (torch.full((1, 2, 2), float("nan")), "boundary"),
        (torch.zeros(1, 2, 2, dtype=torch.int64), "boundary"),
    ],
)
def test_other_input_is_refused(boundary, message):
    with pytest.raises(ValueError, match=message):
        boundary_affinity(boundary)


def test_a_radius_under_1_is_refused():
    with pytest.raises(ValueError, match="radius must be at least 1"):
        boundary_affinity(torch.zeros(1, 2, 2), 0.5)
