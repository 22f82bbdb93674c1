"""What labels alone say: how often each occurs, and how well one guesses them without looking."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np

LOOKED = 0.95  # of the entropy: above it, looking at the images has gained nothing
EXPECTED = 5  # images that should show a class: fewer, and its absence says nothing


class LabelCounts(NamedTuple):
    """Of label maps: how many there are, and the images that show each label."""

    maps: int
    images: dict[int, int]


def count_labels(shown: Iterable[Set[int]], ignore_index: int) -> LabelCounts:
    """Count the images that show each label, without the neutral one; `shown`: those of each."""
    maps, images = 0, Counter[int]()
    for labels in shown:
        images.update(labels)
        maps += 1
    images.pop(ignore_index, None)
    return LabelCounts(maps, dict(images))


def label_entropy(pixels: Mapping[int, float]) -> float:
    """Return -sum_k p_k log p_k in nats, p the labels' shares of the pixels.

    It is the least cross entropy that the same prediction for every pixel can have; where classes
    are weighted, that is so with weights times pixels.
    """
    values = np.array(list(pixels.values()), float)
    shares = values / values.sum() if len(values) else values
    return float(-(shares * np.log(shares)).sum())


def judge_segmenter(
    loss: float,
    entropy: float,
    taught: LabelCounts,
    predicted: LabelCounts,
    classes: Sequence[str],
) -> list[str]:
    """Say what is wrong with a segmenter by its labels and its predictions, a line each.

    It learned nothing where its cross entropy is no less than the labels' own entropy, both on the
    same crops. It misses a
    class that it never predicts, though as often as in its labels at least five images would show
    it.
    """
    said = []
    if not any(taught.images.keys() - {0}):
        said.append(
            f"none of the {taught.maps} masks that the segmenter learns from shows a class: it can "
            "only say background; look at its labels in pseudo/"
        )
    # An entropy of 0 is one label everywhere, of which the loss says nothing.
    if 0 < LOOKED * entropy < loss:
        said.append(
            f"the segmenter learned nothing from its images: its cross entropy is {loss:.3g}, "
            f"guessing by the labels' frequency has {entropy:.3g}; train longer "
            "(segmenter.epochs), or look at its labels in pseudo/"
        )
    said += [
        f"the segmenter says {classes[label - 1]} in none of {predicted.maps} val images, its "
        f"labels in {count} of {taught.maps} training images; train longer (segmenter.epochs), or "
        "use the final masks of tagged images only"
        for label, count in sorted(taught.images.items())
        if label and label not in predicted.images and _expected(count, taught, predicted)
    ]
    return said


def _expected(count: int, taught: LabelCounts, predicted: LabelCounts) -> bool:
    return count / taught.maps * predicted.maps >= EXPECTED
