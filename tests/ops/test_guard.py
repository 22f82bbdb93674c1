"""The guard of the walk: what counts as a flood or as eaten, and how seeds come back."""

import pytest
import torch

from affinitynet.ops.guard import (
    fall_back,
    label_areas,
    seed_scores,
    walk_fault,
    wrong_classes,
)


@pytest.mark.parametrize(
    ("seed", "walked", "fault"),
    [
        (0, 0, None),  # no seeds, nothing to hold the walk against
        (0, 900, None),
        (100, 9, "eats"),
        (100, 10, None),
        (100, 0, "eats"),
        (100, 501, "floods"),
        (100, 500, None),  # half of the image and no more
        (126, 504, None),  # over half, but not over four times
        (125, 501, "floods"),
        (600, 1000, None),
    ],
)
def test_a_fault_is_an_area_far_from_the_seeds(seed: int, walked: int, fault: str | None) -> None:
    assert walk_fault(seed, walked, 1000) == fault


def test_areas_leave_out_what_is_no_label() -> None:
    labels = torch.tensor([[0, 1, 2], [255, 2, 2], [7, 0, 0]])
    assert label_areas(labels, 4).tolist() == [3, 1, 3, 0]


def test_seeds_are_the_background_and_the_maps() -> None:
    cams = torch.tensor([[[0.0, 0.5]], [[0.2, 0.1]]])
    expected = torch.cat([torch.tensor([[[0.8**4, 0.5**4]]]), cams])
    torch.testing.assert_close(seed_scores(cams, 4), expected)
    constant = torch.cat([torch.tensor([[[0.25, 0.25]]]), cams])
    torch.testing.assert_close(seed_scores(cams, 4, 0.25), constant)


def maps(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([[row] for row in rows])


# Six pixels: the seeds say 1 1 0 0 0 2, the walk has lost 1 and spread 2 by one.
SEEDS = maps([0.1, 0.1, 0.9, 0.9, 0.9, 0.2], [0.8, 0.7, 0, 0, 0, 0], [0, 0, 0, 0, 0.1, 0.9])
WALKED = maps([0.9, 0.8, 0.8, 0.9, 0.3, 0.3], [0.2, 0.3, 0, 0, 0, 0], [0, 0, 0, 0, 0.6, 0.7])


def test_only_the_wrong_class_falls_back() -> None:
    assert WALKED.max(0).indices.tolist() == [[0, 0, 0, 0, 2, 2]]
    assert SEEDS.max(0).indices.tolist() == [[1, 1, 0, 0, 0, 2]]
    found = fall_back(WALKED, SEEDS, torch.tensor([True, False]))
    assert found.max(0).indices.tolist() == [[1, 1, 0, 0, 2, 2]]
    torch.testing.assert_close(found[:, :, :2], SEEDS[:, :, :2])
    torch.testing.assert_close(found[[0, 2], :, 2:], WALKED[[0, 2], :, 2:])


def test_a_flood_goes_back_with_its_rivals() -> None:
    """Where the walk says the wrong class, the background of before is what it meets."""
    found = fall_back(WALKED, SEEDS, torch.tensor([False, True]))
    assert found.max(0).indices.tolist() == [[0, 0, 0, 0, 0, 2]]
    torch.testing.assert_close(found[:, :, 4:], SEEDS[:, :, 4:])


def test_nothing_of_the_walk_is_left_where_all_are_wrong_and_all_where_none_is() -> None:
    torch.testing.assert_close(fall_back(WALKED, SEEDS, torch.tensor([True, True])), SEEDS)
    torch.testing.assert_close(fall_back(WALKED, SEEDS, torch.tensor([False, False])), WALKED)


def test_wrong_classes_are_told_from_label_maps() -> None:
    seeds, walked = torch.zeros(10, 20, dtype=torch.long), torch.zeros(10, 20, dtype=torch.long)
    seeds[:2] = 1
    seeds[5] = 2
    walked[:, :12] = 2
    walked[0, 19] = 1
    assert wrong_classes(seeds, walked, 3).tolist() == [True, True, False]


def test_shapes_have_to_fit() -> None:
    with pytest.raises(ValueError, match=r"do not fit: \(K \+ 1, H, W\) twice and \(K,\)"):
        fall_back(WALKED, SEEDS, torch.tensor([True]))
    with pytest.raises(ValueError, match="do not fit"):
        fall_back(WALKED, SEEDS[:, :, :3], torch.tensor([True, True]))
