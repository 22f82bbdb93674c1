"""The confident areas against their definition, map by map."""

import pytest
import torch
from torch import Tensor

from affinitynet.ops import background_map, confident_labels, dense_crf


def example(classes: int = 2, H: int = 37, W: int = 45) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    coarse = torch.rand(1, 3, 5, 6, generator=generator)
    image = torch.nn.functional.interpolate(coarse, (H, W), mode="bilinear")[0]
    cams = torch.rand(1, max(classes, 1), 4, 4, generator=generator)
    cams = torch.nn.functional.interpolate(cams, (H, W), mode="bilinear")[0] ** 2
    cams = cams / cams.amax((1, 2), keepdim=True)
    return (255 * image).byte().permute(1, 2, 0).contiguous(), cams[:classes]


def test_background_map():
    cams = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    score = background_map(cams, 4)
    assert score.shape == (2, 1, 4, 5)
    for b in range(2):
        for y in range(4):
            for x in range(5):
                largest = max(cams[b, c, y, x].item() for c in range(3))
                assert score[b, 0, y, x].item() == pytest.approx((1 - largest) ** 4, rel=1e-5)


def test_background_map_without_classes_is_one():
    assert torch.equal(background_map(torch.zeros(0, 3, 4), 4), torch.ones(1, 3, 4))


@pytest.mark.parametrize("background_priority", [True, False])
@pytest.mark.parametrize("classes", [1, 3])
def test_rule(classes, background_priority):
    image, cams = example(classes)
    labels = confident_labels(image, cams, background_priority=background_priority)
    low, high = (
        dense_crf(image, torch.cat([(1 - cams.amax(0, keepdim=True)) ** alpha, cams])).argmax(0)
        for alpha in (4, 32)
    )
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            expected = int(low[y, x]) or 255
            if high[y, x] == 0 and (background_priority or low[y, x] == 0):
                expected = 0
            assert labels[y, x] == expected
    assert labels.dtype == torch.int64
    assert len(labels.unique()) > 1


def test_settings_reach_the_crf():
    image, cams = example()
    still = confident_labels(image, cams, iterations=0)
    scores = torch.cat([background_map(cams, 4), cams])
    assert torch.equal(still[still % 255 > 0], scores.argmax(0)[still % 255 > 0])
    assert not torch.equal(still, confident_labels(image, cams))


def test_equal_alphas_leave_nothing_neutral():
    image, cams = example()
    labels = confident_labels(image, cams, low_alpha=8, high_alpha=8)
    assert not (labels == 255).any()


def test_no_class_is_background():
    image, cams = example(0)
    assert torch.equal(confident_labels(image, cams), torch.zeros(37, 45, dtype=torch.int64))


def test_arrays_and_half_precision():
    image, cams = example()
    expected = confident_labels(image, cams.half().float())
    array = image.numpy().copy()
    array.flags.writeable = False
    assert torch.equal(confident_labels(array, cams.half().numpy()), expected)


@pytest.mark.parametrize("shape", [(2, 3), (255, 2, 2)])
def test_wrong_cams(shape):
    with pytest.raises(ValueError, match="cams must be"):
        confident_labels(torch.zeros(2, 2, 3), torch.zeros(shape))


def test_a_single_plane_has_no_classes() -> None:
    with pytest.raises(ValueError, match="C, H, W"):
        background_map(torch.zeros(4, 5), 16)


@pytest.mark.parametrize("background_priority", [True, False])
@pytest.mark.parametrize("classes", [1, 3])
def test_rule_of_thresholds(classes, background_priority):
    """As IRN: labels at each threshold, 0.7 sure, through the CRF."""
    image, cams = example(classes)
    labels = confident_labels(
        image, cams, thresholds=(0.6, 0.4), background_priority=background_priority
    )
    passes = []
    for threshold in (0.6, 0.4):
        hard = torch.cat([torch.full_like(cams[:1], threshold), cams]).argmax(0)
        scores = torch.full((classes + 1, *hard.shape), 0.3 / classes)
        for c in range(classes + 1):
            scores[c][hard == c] = 0.7
        passes.append(dense_crf(image, scores).argmax(0))
    foreground, background = passes
    expected = torch.where(foreground > 0, foreground, 255)
    sure = (background == 0) & ((foreground == 0) | background_priority)
    expected[sure] = 0
    assert torch.equal(labels, expected)
    assert {1, 255} <= set(labels.unique().tolist())
    assert classes > 1 or 0 in labels


def test_thresholds_without_classes_leave_background():
    image, cams = example(0)
    assert confident_labels(image, cams, thresholds=(0.3, 0.05)).max() == 0


@pytest.mark.parametrize("thresholds", [(0.1, 0.2), (1.5, 0.2), (0.3, -0.1)])
def test_thresholds_the_wrong_way_round_are_refused(thresholds):
    image, cams = example()
    with pytest.raises(ValueError, match="thresholds"):
        confident_labels(image, cams, thresholds=thresholds)
