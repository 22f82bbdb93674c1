"""What the classifier's training says of itself."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import affinitynet as an
from affinitynet.data import Sample
from affinitynet.stages.train_classifier import (
    _unlearnt,
    chance_loss,
    classification_losses,
    tag_frequencies,
)


def test_frequencies_count_images() -> None:
    samples = [Sample(str(i), Path(f"{i}.png"), tags) for i, tags in enumerate([(0,), (0, 2), ()])]
    np.testing.assert_allclose(tag_frequencies(samples, 3), [2 / 3, 0, 1 / 3])


def test_chance_is_the_least_loss_of_constant_scores() -> None:
    tags = torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 0]])
    best = torch.tensor([math.log(3), -math.log(3)])  # the log-odds of 3/4 and 1/4

    def loss(scores: torch.Tensor) -> float:
        model = torch.nn.Identity()
        return float(classification_losses(model, (scores.expand(4, 2), tags))["loss"])

    chance = chance_loss(tags.mean(0).numpy())
    assert loss(best) == pytest.approx(chance)
    assert loss(best + torch.tensor([0.1, 0])) > chance
    assert loss(best - torch.tensor([0, 0.1])) > chance


def test_a_classifier_that_learnt_nothing_is_said() -> None:
    assert _unlearnt(0.1, 0.5) == []
    assert "loss is 0.45, without looking at the images it could be 0.50" in _unlearnt(0.45, 0.5)[0]


def test_classes_that_always_or_never_occur_have_no_entropy() -> None:
    assert chance_loss(np.array([0.0, 1.0])) == pytest.approx(0, abs=1e-9)


def test_the_record_has_both_losses(finished: an.Run) -> None:
    figures = finished.metrics("train_classifier")
    assert 0 < figures["chance"] < math.log(2)
    # Four steps with a network from scratch: it cannot have learnt, and says so.
    assert any("learnt next to nothing" in warning for warning in figures["warnings"])
