"""Cosines of features as affinities, held to loops."""

import math

import pytest
import torch
from torch import Tensor

from affinitynet.ops import feature_affinity, neighbor_offsets


def slow_affinity(features: Tensor, radius: float, gamma: float) -> Tensor:
    batch, _, height, width = features.shape
    offsets = neighbor_offsets(radius).tolist()
    result = torch.zeros(batch, len(offsets), height, width, dtype=features.dtype)
    for p, (dy, dx) in enumerate(offsets):
        for y in range(height - dy):
            for x in range(max(0, -dx), min(width, width - dx)):
                for b in range(batch):
                    one, two = features[b, :, y, x], features[b, :, y + dy, x + dx]
                    cosine = float(one @ two) / math.sqrt(float(one @ one) * float(two @ two))
                    result[b, p, y, x] = max(0.0, cosine) ** gamma
    return result


def random_features(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("gamma", [1, 2.5])
@pytest.mark.parametrize(
    ("shape", "radius"),
    [
        ((2, 7, 6, 9), 5),
        ((1, 3, 1, 1), 5),
        ((1, 3, 1, 12), 4),
        ((1, 4, 12, 1), 5),
        ((1, 2, 2, 3), 9),
    ],
)
def test_affinity_equals_the_formula(shape, radius, gamma):
    features = random_features(*shape)
    result = feature_affinity(features, radius, gamma)
    torch.testing.assert_close(
        result, slow_affinity(features.double(), radius, gamma).float(), rtol=1e-4, atol=1e-6
    )


def test_only_the_direction_counts_and_what_points_apart_has_nothing_in_common():
    features = random_features(1, 6, 5, 7)
    lengths = torch.rand(1, 1, 5, 7) + 0.1
    torch.testing.assert_close(feature_affinity(features * lengths), feature_affinity(features))
    apart = torch.tensor([1.0, -1.0]).view(1, 1, 1, 2)
    assert feature_affinity(apart, 2).max() == 0
    assert feature_affinity(apart.abs(), 2).max() == 1
    assert feature_affinity(torch.zeros(1, 3, 2, 2)).max() == 0


def test_equal_features_are_at_most_1():
    features = random_features(1, 500, 1, 1).expand(1, 500, 4, 4)
    affinity = feature_affinity(features)
    assert affinity.max() <= 1
    assert affinity[0, 0, :, :3].min() > 0.99999


def test_radius_1_has_no_pairs_and_half_becomes_float32():
    features = random_features(2, 3, 4, 5)
    assert feature_affinity(features, 1).shape == (2, 0, 4, 5)
    half = features.half()
    assert torch.equal(feature_affinity(half), feature_affinity(half.float()))


def test_gradients_equal_finite_differences():
    features = random_features(1, 3, 2, 3).double().abs().requires_grad_()  # no cosine below 0
    assert torch.autograd.gradcheck(lambda f: feature_affinity(f, 3, 2), (features,))


@pytest.mark.parametrize(
    ("features", "gamma", "message"),
    [
        (torch.zeros(3, 4, 5), 1, r"features are \(B, D, h, w\)"),
        (torch.full((1, 2, 3, 3), math.inf), 1, "features"),
        (torch.zeros(1, 2, 3, 3), 0, "gamma"),
    ],
)
def test_other_input_is_refused(features, gamma, message):
    with pytest.raises(ValueError, match=message):
        feature_affinity(features, 5, gamma)
