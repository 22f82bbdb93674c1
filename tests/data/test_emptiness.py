"""Empty seeds and masks, counted from files."""

from pathlib import Path

import numpy as np
import pytest

from affinitynet.data import Sample
from affinitynet.data.cams import load_cams, load_peaks, save_cams
from affinitynet.data.emptiness import (
    background_border,
    empty_masks,
    empty_seeds,
    say_empty,
    too_many,
)

CLASSES = ("ant", "bee", "cow")


@pytest.mark.parametrize("alpha", [1, 4, 16, 300])
def test_the_border_is_where_map_and_background_tie(alpha: float) -> None:
    border = background_border(alpha)
    assert (1 - border) ** alpha == pytest.approx(border, rel=1e-9)
    assert background_border(1) == 0.5


def test_peaks_are_the_largest_values(tmp_path: Path) -> None:
    cams = np.random.default_rng(0).random((2, 5, 6)).astype(np.float32)
    cams[1] *= 0.01
    save_cams(tmp_path / "a.npz", (0, 2), cams)
    classes, peaks = load_peaks(tmp_path / "a.npz", classes=3)
    assert classes.tolist() == [0, 2]
    np.testing.assert_array_equal(peaks, cams.max((1, 2)))
    np.testing.assert_allclose(load_cams(tmp_path / "a.npz")[1].max((1, 2)), peaks, rtol=1e-6)


def test_seeds_that_no_alpha_lets_through_are_empty(tmp_path: Path) -> None:
    border = background_border(4)
    tops = {"a": {0: border + 1e-4}, "b": {0: border - 1e-4, 1: 0.9}, "c": {1: 0.0}, "d": {}}
    tagged = {"a": (0,), "b": (0, 1), "c": (1,), "d": (2,)}  # of d's tag the file has no map
    samples = []
    for name, peaks in tops.items():
        cams = np.zeros((len(peaks), 4, 4), np.float32)
        cams[:, 0, 0] = list(peaks.values())
        save_cams(tmp_path / f"{name}.npz", tuple(peaks), cams)
        samples.append(Sample(name, tmp_path / f"{name}.png", tagged[name]))
    rows = empty_seeds(samples, lambda sample: tmp_path / f"{sample.id}.npz", CLASSES, 4)
    assert [(row["class"], row["images"], row["empty"]) for row in rows] == [
        ("ant", 2, 1),
        ("bee", 2, 1),
        ("cow", 1, 1),
    ]


def test_masks_without_a_pixel_of_their_tags_are_counted(tmp_path: Path) -> None:
    shown = {"a": 1, "b": 0, "c": 2, "d": 255, "e": 0}
    tagged = {"a": (0, 1), "b": (0,), "c": (0, 1), "d": (0,), "e": (2,)}
    samples = [Sample(name, tmp_path / f"{name}.jpg", tagged[name]) for name in shown]
    found = empty_masks(samples, lambda sample: {0, shown[sample.id]}, CLASSES)
    assert (found["images"], found["empty"]) == (5, 3)
    rows = {row["class"]: (row["images"], row["empty"]) for row in found["classes"]}
    assert rows == {"ant": (4, 3), "bee": (2, 1), "cow": (1, 1)}
    # A failed class is neutral on purpose.
    other = empty_masks(samples, lambda sample: {0, shown[sample.id]}, CLASSES, [0])
    assert (other["images"], other["empty"]) == (3, 2)
    assert [row["class"] for row in other["classes"]] == ["bee", "cow"]


def test_more_than_a_third_of_five_or_more_is_too_many() -> None:
    counts = [(6, 2), (6, 3), (4, 4), (5, 2), (0, 0)]
    rows = [{"class": "ant", "images": images, "empty": empty} for images, empty in counts]
    assert [too_many(row) for row in rows] == [False, True, False, True, False]
    (first, _) = say_empty({"classes": rows}, "pseudo masks", "look")
    assert first == "pseudo masks hold nothing of ant in 3 of its 6 images; look"
