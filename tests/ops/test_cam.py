"""Class activation maps, held to the formula in loops."""

import pytest
import torch

from affinitynet.ops import cam


def test_equals_the_formula():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 4, 5, generator=generator)
    weight = torch.randn(6, 3, generator=generator)
    maps = cam.class_activation_maps(features, weight)
    assert maps.shape == (2, 6, 4, 5)
    for b, c, y, x in [(0, 0, 0, 0), (1, 5, 3, 4), (1, 2, 0, 3), (0, 4, 2, 1)]:
        score = sum(float(weight[c, d]) * float(features[b, d, y, x]) for d in range(3))
        assert abs(float(maps[b, c, y, x]) - max(score, 0)) < 1e-6
    assert (maps == 0).any()
    assert (maps > 0).any()


def test_takes_the_weight_of_a_1x1_convolution():
    features, weight = torch.randn(1, 3, 2, 2), torch.randn(4, 3)
    as_convolution = cam.class_activation_maps(features, weight[:, :, None, None])
    assert torch.equal(as_convolution, cam.class_activation_maps(features, weight))


def test_mean_of_the_unrectified_map_is_the_class_score():
    features, weight = torch.rand(2, 3, 4, 5), torch.rand(6, 3)
    scores = features.mean((-2, -1)) @ weight.T
    torch.testing.assert_close(cam.class_activation_maps(features, weight).mean((-2, -1)), scores)


def test_normalizes_each_class_by_its_own_maximum():
    cams = torch.tensor([[[0.0, 1.0], [2.0, 4.0]], [[0.5, 0.25], [0.0, 0.0]]])
    normalized = cam.normalize_cams(cams)
    torch.testing.assert_close(normalized[0], cams[0] / (4 + 1e-5))
    torch.testing.assert_close(normalized[1], cams[1] / (0.5 + 1e-5))
    batched = cam.normalize_cams(torch.stack([cams, 3 * cams]))
    assert torch.equal(batched[0], normalized)


def test_a_map_of_zeros_stays_zero():
    assert torch.equal(cam.normalize_cams(torch.zeros(2, 3, 3)), torch.zeros(2, 3, 3))


@pytest.mark.parametrize(
    ("features", "weight"),
    [((1, 4, 3, 3), (2, 5)), ((4, 3, 3), (2, 4)), ((1, 4, 3, 3), (2, 4, 3, 3))],
)
def test_features_and_weights_that_do_not_fit(
    features: tuple[int, ...], weight: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        cam.class_activation_maps(torch.zeros(features), torch.zeros(weight))
