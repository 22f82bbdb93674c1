"""Labels' entropy, and what is said of a segmenter by labels and predictions."""

import math

import numpy as np
import pytest

from affinitynet.data.label_statistics import (
    LabelCounts,
    count_labels,
    judge_segmenter,
    label_entropy,
)

CLASSES = ("ant", "bee")


def test_labels_are_counted_without_the_neutral_one() -> None:
    found = count_labels([{0, 1, 255}, {0, 1}, {0, 2, 255}], 255)
    assert found == LabelCounts(3, {0: 3, 1: 2, 2: 1})
    assert count_labels([], 255) == LabelCounts(0, {})


def test_entropy_is_the_best_constant_guess() -> None:
    counts = {0: 3, 1: 1}
    guesses = np.linspace(0.01, 0.99, 9801)
    best = (-0.75 * np.log(guesses) - 0.25 * np.log(1 - guesses)).min()
    assert label_entropy(counts) == pytest.approx(best, rel=1e-6)
    assert label_entropy({0: 1, 1: 1, 2: 1}) == pytest.approx(math.log(3))
    assert label_entropy({0: 9}) == label_entropy({}) == 0


TAUGHT = LabelCounts(100, {0: 100, 1: 40, 2: 10})


def test_a_good_segmenter_is_not_blamed() -> None:
    assert judge_segmenter(0.2, 0.613, TAUGHT, LabelCounts(60, {0: 60, 1: 9, 2: 1}), CLASSES) == []


def test_a_segmenter_that_guesses_and_one_that_misses_a_class() -> None:
    guesses, misses = judge_segmenter(0.61, 0.613, TAUGHT, LabelCounts(60, {0: 60, 1: 9}), CLASSES)
    assert "its cross entropy is 0.61, guessing by the labels' frequency has 0.613" in guesses
    assert "says bee in none of 60 val images, its labels in 10 of 100 training" in misses


def test_a_class_is_missed_only_where_val_should_show_it() -> None:
    for images, said in ((49, 0), (50, 1)):
        found = judge_segmenter(0.1, 0.613, TAUGHT, LabelCounts(images, {0: images, 1: 1}), CLASSES)
        assert len(found) == said
    assert judge_segmenter(0.1, 0.613, TAUGHT, LabelCounts(0, {}), CLASSES) == []  # no val
