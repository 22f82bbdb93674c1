"""What a segmentation network says of a tagged image, given all that is known of it."""

import pytest
import torch

from affinitynet.ops.final_scores import restrict, with_evidence


def test_only_tags_and_background_are_left_and_sum_to_one() -> None:
    probabilities = torch.rand(5, 3, 4).softmax(0)
    kept = restrict(probabilities, (0, 3))
    assert kept.shape == (3, 3, 4)
    torch.testing.assert_close(kept.sum(0), torch.ones(3, 4))
    torch.testing.assert_close(kept[1] / kept[0], probabilities[1] / probabilities[0])
    torch.testing.assert_close(kept[2] / kept[1], probabilities[4] / probabilities[1])
    torch.testing.assert_close(restrict(probabilities, ()), torch.ones(1, 3, 4))


@pytest.mark.parametrize(("label", "expected"), [(0, (0.75, 0.25)), (6, (0.25, 0.75))])
def test_odds_of_three_make_an_even_choice_three_to_one(label, expected) -> None:
    found = with_evidence(torch.full((2, 1, 1), 0.5), torch.tensor([[label]]), (5,), 3.0)
    torch.testing.assert_close(found.flatten(), torch.tensor(expected))


@pytest.mark.parametrize("label", [255, 2])
def test_neutral_pixels_and_classes_without_a_tag_say_nothing(label) -> None:
    scores = torch.rand(2, 1, 1).softmax(0)
    found = with_evidence(scores, torch.tensor([[label]]), (5,), 3.0)
    torch.testing.assert_close(found, scores)
