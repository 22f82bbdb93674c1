"""Affinities, pair labels and their loss, held to loops written from the paper."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from affinitynet.ops import affinity as pairs


def slow_affinity(features: Tensor, radius: float, reduction: str) -> Tensor:
    """W_ij = exp(-||f_i - f_j||_1), or of the mean (section 3.3)."""
    batch, channels, height, width = features.shape
    offsets = pairs.neighbor_offsets(radius).tolist()
    result = torch.zeros(batch, len(offsets), height, width, dtype=features.dtype)
    for p, (dy, dx) in enumerate(offsets):
        for y in range(height - dy):
            for x in range(max(0, -dx), min(width, width - dx)):
                norm = (features[:, :, y, x] - features[:, :, y + dy, x + dx]).abs().sum(1)
                result[:, p, y, x] = torch.exp(-norm / (channels if reduction == "mean" else 1))
    return result


def slow_targets(labels: Tensor, radius: float, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """W*_ij of section 3.3, in three masks."""
    batch, height, width = labels.shape
    offsets = pairs.neighbor_offsets(radius).tolist()
    masks = tuple(torch.zeros(batch, len(offsets), height, width, dtype=torch.bool) for _ in "bfn")
    for p, (dy, dx) in enumerate(offsets):
        for b in range(batch):
            for y in range(height):
                for x in range(width):
                    if not (y + dy < height and 0 <= x + dx < width):
                        continue
                    first, second = int(labels[b, y, x]), int(labels[b, y + dy, x + dx])
                    if ignore_index in (first, second):
                        continue
                    kind = 2 if first != second else (0 if first == 0 else 1)
                    masks[kind][b, p, y, x] = True
    return masks


def random_features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_offsets_of_radius_3():
    assert pairs.neighbor_offsets(3).tolist() == [
        [0, 1], [0, 2],
        [1, -2], [1, -1], [1, 0], [1, 1], [1, 2],
        [2, -2], [2, -1], [2, 0], [2, 1], [2, 2],
    ]  # fmt: skip


def test_offsets_of_the_default_radius():
    offsets = pairs.neighbor_offsets()
    assert offsets.dtype == torch.int64
    assert offsets.shape == (34, 2)
    rows = [offsets[offsets[:, 0] == dy, 1].tolist() for dy in range(5)]
    assert rows == [
        [1, 2, 3, 4],
        [-4, -3, -2, -1, 0, 1, 2, 3, 4],
        [-4, -3, -2, -1, 0, 1, 2, 3, 4],
        [-3, -2, -1, 0, 1, 2, 3],
        [-2, -1, 0, 1, 2],
    ]


@pytest.mark.parametrize("radius", range(1, 11))
def test_offsets_are_half_the_disc(radius):
    half = {tuple(offset) for offset in pairs.neighbor_offsets(radius).tolist()}
    turned = {(-dy, -dx) for dy, dx in half}
    span = range(-radius, radius + 1)
    disc = {(y, x) for y in span for x in span if 0 < y * y + x * x < radius * radius}
    assert not half & turned
    assert half | turned == disc


def test_radius_1_has_no_pairs():
    assert pairs.neighbor_offsets(1).shape == (0, 2)
    assert pairs.pairwise_affinity(torch.ones(2, 3, 4, 5), 1).shape == (2, 0, 4, 5)
    assert pairs.affinity_targets(torch.zeros(2, 4, 5, dtype=torch.int64), 1)[0].numel() == 0


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("shape", "radius"),
    [
        ((2, 7, 6, 9), 5),
        ((1, 3, 1, 1), 5),
        ((1, 8, 1, 12), 4),
        ((1, 9, 12, 1), 5),
        ((2, 1, 2, 3), 10),
        ((1, 17, 11, 12), 10),
        ((1, 16, 5, 8), 2),
        ((1, 2, 3, 4), 2.5),
    ],
)
def test_affinity_equals_the_formula(shape, radius, reduction):
    features = random_features(*shape)
    result = pairs.pairwise_affinity(features, radius, reduction)
    torch.testing.assert_close(
        result, slow_affinity(features, radius, reduction), rtol=2e-6, atol=1e-7
    )


@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 9), st.integers(1, 19)),
    radius=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
def test_affinity_equals_the_formula_whatever_the_shape(shape, radius, seed):
    features = random_features(*shape, seed=seed)
    expected = slow_affinity(features, radius, "mean")
    result = pairs.pairwise_affinity(features, radius)
    torch.testing.assert_close(result, expected, rtol=2e-6, atol=1e-7)


def test_affinity_of_equal_features_is_one_inside_and_zero_outside():
    affinity = pairs.pairwise_affinity(torch.ones(1, 4, 6, 7))
    assert set(affinity.unique().tolist()) == {0.0, 1.0}
    for p, (dy, dx) in enumerate(pairs.neighbor_offsets().tolist()):
        assert affinity[0, p].sum() == max(6 - dy, 0) * max(7 - abs(dx), 0)


def test_a_batch_equals_its_samples():
    features = random_features(3, 10, 7, 8)
    together = pairs.pairwise_affinity(features)
    for b in range(3):
        assert torch.equal(together[b : b + 1], pairs.pairwise_affinity(features[b : b + 1]))


def test_a_part_of_the_grid_equals_the_whole():
    features = random_features(1, 10, 12, 13)
    whole, part = pairs.pairwise_affinity(features), pairs.pairwise_affinity(features[..., :9, 4:])
    inside = part > 0
    torch.testing.assert_close(part[inside], whole[..., :9, 4:][inside], rtol=1e-6, atol=0)


def test_strided_features_equal_contiguous_ones():
    features = random_features(2, 10, 7, 8)
    strided = features.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        pairs.pairwise_affinity(strided), pairs.pairwise_affinity(features), rtol=1e-6, atol=0
    )


def test_float64_features_give_float64_affinities():
    features = random_features(1, 5, 4, 4).double()
    result = pairs.pairwise_affinity(features)
    assert result.dtype == torch.float64
    expected = slow_affinity(features, 5, "mean")
    torch.testing.assert_close(result, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_give_float32_affinities(dtype):
    features = random_features(1, 5, 4, 4).to(dtype)
    result = pairs.pairwise_affinity(features)
    assert result.dtype == torch.float32
    assert torch.equal(result, pairs.pairwise_affinity(features.float()))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("shape", "radius"), [((2, 3, 3, 4), 3), ((1, 3, 2, 5), 5), ((1, 2, 1, 1), 4)]
)
def test_gradients_equal_finite_differences(shape, radius, reduction):
    features = random_features(*shape).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f: pairs.pairwise_affinity(f, radius, reduction), (features,)
    )


def test_gradients_equal_those_of_the_formula_with_ties():
    """Equal features, as in the padding of a batch: their difference has the gradient zero."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randint(-1, 2, (2, 10, 6, 11), generator=generator).float()
    weight = random_features(2, 34, 6, 11)
    gradients = []
    for function in (pairs.pairwise_affinity, slow_affinity):
        leaf = features.clone().requires_grad_()
        (function(leaf, 5, "mean") * weight).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "radius"),
    [
        ((2, 5, 9, 10), 5),
        ((1, 4, 1, 1), 5),
        ((1, 3, 40, 70), 3),
        ((1, 9, 7, 13), 10),
        ((1, 2, 3, 3), 1),
    ],
)
def test_the_torch_path_equals_the_kernels(shape, radius):
    """The path of CUDA and float64, forward and backward."""
    features = random_features(*shape)
    offsets = pairs.displacements(radius)
    inside = pairs.pairwise_affinity(torch.ones(shape), radius) > 0
    plain, compiled = (
        function(features, offsets) for function in (pairs.distance_torch, pairs.distance_numba)
    )
    torch.testing.assert_close(compiled[inside], plain[inside], rtol=2e-6, atol=1e-6)
    pulls = random_features(*inside.shape, seed=1) * inside
    torch.testing.assert_close(
        pairs.distance_backward_numba(features, pulls, offsets),
        pairs.distance_backward_torch(features, pulls, offsets),
        rtol=1e-5,
        atol=1e-5,  # sums in another order; 3e-6 seen with torch 2.6
    )


def test_float32_gradients_equal_those_of_float64():
    features = random_features(2, 11, 8, 9)
    weight = random_features(2, 34, 8, 9, seed=1)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaf = features.to(dtype, copy=True).requires_grad_()
        (pairs.pairwise_affinity(leaf) * weight).sum().backward()
        gradients.append(leaf.grad.double())
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_equal_features_have_no_gradient():
    features = torch.ones(1, 4, 6, 7, requires_grad=True)
    pairs.pairwise_affinity(features).sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


@pytest.mark.parametrize("ignore_index", [255, 65535])
@pytest.mark.parametrize(("grid", "radius"), [((6, 7), 5), ((1, 1), 5), ((2, 9), 3), ((9, 1), 6)])
def test_targets_equal_the_definition(grid, radius, ignore_index):
    generator = torch.Generator().manual_seed(0)
    choices = torch.tensor([0, 1, 2, ignore_index])
    labels = choices[torch.randint(0, 4, (2, *grid), generator=generator)]
    targets = pairs.affinity_targets(labels, radius, ignore_index)
    for mask, expected in zip(targets, slow_targets(labels, radius, ignore_index), strict=True):
        assert mask.dtype == torch.bool
        assert torch.equal(mask, expected)


def test_targets_of_a_picture_on_paper():
    labels = torch.tensor([[[0, 0, 1], [1, 255, 1]]])
    targets = pairs.affinity_targets(labels, radius=1.2)  # right and below
    assert targets.background[0].nonzero().tolist() == [[0, 0, 0]]
    assert targets.foreground[0].nonzero().tolist() == [[1, 0, 2]]
    assert targets.negative[0].nonzero().tolist() == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_targets_do_not_depend_on_the_integer_type(dtype):
    labels = torch.tensor([[[0, 3], [100, 3]]])
    for mask, expected in zip(
        pairs.affinity_targets(labels.to(dtype)), pairs.affinity_targets(labels), strict=True
    ):
        assert torch.equal(mask, expected)


def test_cropped_pairs_are_those_of_the_original_code():
    """52 rows x 48 columns of first pixels on a 56x56 grid; every displacement stays inside."""
    inside = pairs.pairwise_affinity(torch.ones(1, 1, 56, 56))
    cropped = pairs.cropped_pairs(inside)
    assert cropped.sum() == 34 * 2496
    rows, columns = cropped[0, 0].nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 51, 4, 51)
    mask = pairs.cropped_pairs(inside.bool())
    assert mask.dtype == torch.bool
    assert torch.equal(mask, cropped.bool())
    assert float(inside.sum()) > 34 * 2496


@pytest.mark.parametrize("grid", [(1, 1), (4, 20), (20, 8), (3, 5)])
def test_cropped_pairs_of_a_small_grid_are_none(grid):
    assert not pairs.cropped_pairs(torch.ones(1, 34, *grid)).any()


def test_loss_equals_the_formula():
    labels = torch.tensor([[[0, 0, 1], [1, 255, 1]], [[2, 2, 0], [0, 0, 2]]])
    affinity = pairs.pairwise_affinity(random_features(2, 4, 2, 3), 2)
    targets = pairs.affinity_targets(labels, 2)
    losses = []
    for kind, mask in enumerate(targets):
        values = [float(affinity[tuple(position)]) for position in mask.nonzero()]
        logs = [math.log(1 + 1e-5 - w) if kind == 2 else math.log(w + 1e-5) for w in values]
        losses.append(-sum(logs) / (len(logs) + 1e-5))
    result = pairs.affinity_loss(affinity, targets)
    for part, expected in zip(result[1:], losses, strict=True):
        assert abs(float(part) - expected) < 1e-5
    assert abs(float(result.total) - (losses[0] / 4 + losses[1] / 4 + losses[2] / 2)) < 1e-5


def test_loss_without_pairs_of_a_kind_is_zero():
    affinity = pairs.pairwise_affinity(random_features(1, 4, 5, 5))
    neutral = pairs.affinity_loss(affinity, pairs.affinity_targets(torch.full((1, 5, 5), 255)))
    assert [float(part) for part in neutral] == [0, 0, 0, 0]
    background = pairs.affinity_targets(torch.zeros(1, 5, 5, dtype=torch.int64))
    loss = pairs.affinity_loss(affinity, background)
    assert float(loss.foreground) == float(loss.negative) == 0
    assert abs(float(loss.total) - float(loss.background) / 4) < 1e-6


def test_loss_is_finite_at_the_ends():
    features = torch.zeros(1, 2, 4, 4)
    features[..., 2:] = 1e4
    features.requires_grad_()
    labels = torch.tensor([[0, 1, 1, 1]]).expand(4, 4)[None]
    targets = pairs.affinity_targets(labels)
    loss = pairs.affinity_loss(pairs.pairwise_affinity(features), targets)
    loss.total.backward()
    assert math.isfinite(loss.total.item())
    assert torch.isfinite(features.grad).all()


def test_the_parts_of_a_batch_are_balanced_over_the_whole_batch():
    affinity = pairs.pairwise_affinity(random_features(2, 4, 5, 5))
    labels = torch.zeros(2, 5, 5, dtype=torch.int64)
    labels[0, :, :3] = 255
    targets = pairs.affinity_targets(labels)
    counts = targets.background.sum((1, 2, 3)).float()
    alone = torch.stack(
        [
            pairs.affinity_loss(
                affinity[b : b + 1], pairs.PairTargets(*(mask[b : b + 1] for mask in targets))
            ).background
            for b in range(2)
        ]
    )
    together = pairs.affinity_loss(affinity, targets).background
    torch.testing.assert_close(together, (alone * counts).sum() / counts.sum())


def test_training_pulls_labels_together_and_apart():
    features = random_features(1, 8, 6, 6).requires_grad_()
    labels = (torch.arange(6) >= 3).long().expand(1, 6, 6)
    targets = pairs.affinity_targets(labels)
    optimizer = torch.optim.SGD([features], lr=50.0)
    losses = []
    for _ in range(60):
        loss = pairs.affinity_loss(pairs.pairwise_affinity(features), targets).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"features are \(B, D, h, w\)"):
        pairs.pairwise_affinity(torch.ones(3, 4, 5))
    with pytest.raises(ValueError, match="'mean' or 'sum'"):
        pairs.pairwise_affinity(torch.ones(1, 3, 4, 5), reduction="max")
    with pytest.raises(ValueError, match=r"labels are \(B, h, w\)"):
        pairs.affinity_targets(torch.zeros(4, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least 1"):
        pairs.neighbor_offsets(0)


def test_loss_of_affinities_and_targets_of_different_radius() -> None:
    targets = pairs.affinity_targets(torch.zeros(1, 6, 7, dtype=torch.int64), 3)
    with pytest.raises(ValueError, match="must match"):
        pairs.affinity_loss(torch.full((1, 1, 6, 7), 0.5), targets)
