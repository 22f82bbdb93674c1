"""What the public operations refuse, the same kinds at each of them."""

import math

import pytest
import torch

from affinitynet import ops

GRID = (1, 2, 6, 7)
AFFINITY = ops.pairwise_affinity(torch.rand(GRID), 3)


def walk(maps=None, affinity=AFFINITY, **more):
    return ops.random_walk(torch.rand(GRID) if maps is None else maps, affinity, radius=3, **more)


OPERATIONS = {
    "random_walk": walk,
    "pairwise_affinity": ops.pairwise_affinity,
    "background_map": lambda cams: ops.background_map(cams, 4),
    "confident_labels": lambda cams: ops.confident_labels(
        torch.zeros(6, 7, 3, dtype=torch.uint8), cams[0], iterations=1
    ),
    "class_activation_maps": lambda maps: ops.class_activation_maps(maps, torch.rand(3, 2)),
    "dense_crf": lambda scores: ops.dense_crf(
        torch.zeros(6, 7, 3, dtype=torch.uint8), scores[0], iterations=1
    ),
    "affinity": lambda values: walk(affinity=values.expand(1, *AFFINITY.shape[1:])),
}


def spoilt(value: float) -> torch.Tensor:
    maps = torch.full(GRID, 0.5)
    maps[0, 0, 2, 3] = value
    return maps


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(name, value):
    if name == "affinity":
        argument = AFFINITY.clone()
        argument[0, 3, 2, 3] = value
    else:
        argument = spoilt(value)
    with pytest.raises(ValueError, match="NaN or infinite"):
        OPERATIONS[name](argument)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integers_are_refused_so_that_nothing_wraps(name, dtype):
    argument = AFFINITY if name == "affinity" else torch.ones(GRID)
    with pytest.raises(ValueError, match=r"must be floating point.*divide 8-bit values by 255"):
        OPERATIONS[name](argument.to(dtype))


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0])
def test_scores_and_affinities_outside_of_0_to_1_are_refused(value):
    with pytest.raises(ValueError, match="cams must be from 0 to 1"):
        OPERATIONS["confident_labels"](spoilt(value))
    affinity = AFFINITY.clone()
    affinity[0, 3, 2, 3] = value
    with pytest.raises(ValueError, match="affinity must be from 0 to 1"):
        walk(affinity=affinity)
    targets = ops.affinity_targets(torch.zeros(1, 6, 7, dtype=torch.int64), 3)
    with pytest.raises(ValueError, match="affinity must be from 0 to 1"):
        ops.affinity_loss(affinity, targets)


@pytest.mark.parametrize("steps", [2.5, 256.0, -1, 10**9 + 1, 10**12, math.nan, True, "256"])
def test_steps_that_are_no_whole_number_in_reach_are_refused(steps):
    with pytest.raises(ValueError, match=r"steps must be a whole number from 0 to 1,000,000,000"):
        walk(steps=steps)


@pytest.mark.parametrize("exponent", [0, -1, math.nan, math.inf])
def test_exponents_are_over_0_and_finite(exponent):
    with pytest.raises(ValueError, match="beta must be above 0 and finite"):
        walk(beta=exponent)
    with pytest.raises(ValueError, match="alpha must be above 0 and finite"):
        ops.background_map(torch.rand(GRID), exponent)


@pytest.mark.parametrize("radius", [0, 0.9, -5, math.nan, math.inf])
def test_a_radius_is_at_least_1_and_finite(radius):
    with pytest.raises(ValueError, match="radius must be at least 1 and finite"):
        ops.pairwise_affinity(torch.rand(GRID), radius)


@pytest.mark.parametrize("labels", [torch.zeros(1, 6, 7), torch.zeros(1, 6, 7, dtype=torch.bool)])
def test_labels_that_are_no_integers_are_refused(labels):
    with pytest.raises(ValueError, match="labels are integers"):
        ops.affinity_targets(labels, 3)
    with pytest.raises(ValueError, match="labels are at least 0"):
        ops.affinity_targets(labels.long() - 1, 3)


def test_targets_of_another_kind_are_refused():
    targets = ops.affinity_targets(torch.zeros(1, 6, 7, dtype=torch.int64), 3)
    with pytest.raises(ValueError, match="targets are bool"):
        ops.affinity_loss(AFFINITY, targets._replace(negative=targets.negative.float()))
    with pytest.raises(ValueError, match="must match"):
        ops.affinity_loss(AFFINITY, targets._replace(negative=targets.negative[:, :2]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_labels_are_not_chosen_among_what_is_not_finite(value):
    with pytest.raises(ValueError, match=r"scores .* NaN or infinite"):
        ops.label_scores(spoilt(value)[0])
    assert ops.label_scores(torch.eye(3, dtype=torch.int64)[:, None]).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("iterations", [1.5, math.nan, True, 10**7])
def test_iterations_of_the_crf_are_a_whole_number_in_reach(iterations):
    with pytest.raises(ValueError, match="iterations must be a whole number from 0 to 1,000,000"):
        ops.dense_crf(torch.zeros(6, 7, 3), torch.rand(2, 6, 7), iterations=iterations)


@pytest.mark.parametrize("name", ["gaussian_compat", "bilateral_compat"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_of_the_crf_are_finite(name, value):
    with pytest.raises(ValueError, match="must be finite"):
        ops.dense_crf(torch.zeros(6, 7, 3), torch.rand(2, 6, 7), **{name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_refinement_takes_no_image_and_no_weight_that_is_not_finite(value):
    image = torch.zeros(6, 7, 3)
    with pytest.raises(ValueError, match="position_weight at least 0"):
        ops.pixel_adaptive_refinement(image, torch.rand(2, 6, 7), position_weight=value)
    image[2, 3, 1] = value
    with pytest.raises(ValueError, match=r"image .* NaN or infinite"):
        ops.pixel_adaptive_refinement(image, torch.rand(2, 6, 7))
