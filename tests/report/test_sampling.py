"""The images shown follow from a rule: best, middle, worst, or even steps."""

import numpy as np
import pytest

from affinitynet.report.sampling import image_iou, select


def slow_iou(mask, truth, ignore):
    """The definition, pixel by pixel."""
    scores = []
    for label in set(mask.ravel()) | set(truth.ravel()):
        both = either = 0
        for m, t in zip(mask.ravel(), truth.ravel(), strict=True):
            if t != ignore:
                both += m == label and t == label
                either += m == label or t == label
        if either and label not in (0, ignore):
            scores.append(both / either)
    return sum(scores) / len(scores)


def test_iou_is_its_definition():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.choice([0, 1, 2, 255], (6, 7)).astype(np.uint8)
        truth = rng.choice([0, 1, 3, 255], (6, 7)).astype(np.uint8)
        assert image_iou(mask, truth, 255) == pytest.approx(slow_iou(mask, truth, 255))


def test_iou_by_hand():
    truth = np.array([[0, 0, 1, 255]])
    assert image_iou(truth, truth, 255) == 1
    # A neutral pixel is a miss, and the background does not count.
    assert image_iou(np.array([[0, 255, 1, 1]]), truth, 255) == 1
    assert image_iou(np.array([[1, 0, 255, 1]]), truth, 255) == 0
    assert image_iou(truth * 0, truth * 0, 255) == 1
    assert image_iou(truth, np.full((1, 4), 255), 255) is None
    with pytest.raises(ValueError, match="differ in size"):
        image_iou(truth, truth.T, 255)


def test_best_middle_and_worst(builder):
    manifest = builder.manifest(train=9)
    builder.masks(manifest, "pseudo")  # from image to image farther off the truth
    selection = select(builder.run / "pseudo", manifest, manifest.split("train"), 5, what="mask")
    chosen = {g.title: [s.sample.id[-2:] for s in g.samples] for g in selection.groups}
    assert chosen == {"Best": ["00", "01"], "Around the median": ["04"], "Worst": ["07", "08"]}
    shown = [s.iou for g in selection.groups for s in g.samples]
    assert shown == sorted(shown, reverse=True)
    assert len(selection.ranking) == 9
    assert "the 9 images" in selection.rule


@pytest.mark.parametrize("count", range(11))
def test_each_image_is_shown_once(builder, count):
    manifest = builder.manifest(train=9)
    builder.masks(manifest, "pseudo")
    groups = select(builder.run / "pseudo", manifest, manifest.split("train"), count, what="mask")
    ids = [s.sample.id for g in groups.groups for s in g.samples]
    assert len(ids) == len(set(ids)) == min(count, 9)


def test_even_steps_without_ground_truth(builder):
    manifest = builder.manifest(train=10, truth=False)
    builder.masks(manifest, "pseudo")
    selection = select(builder.run / "pseudo", manifest, manifest.split("train"), 5, what="mask")
    assert [s.sample.id[-2:] for s in selection.groups[0].samples] == ["01", "03", "05", "07", "09"]
    assert "5 of 10 images, spread evenly over the list (no ground truth)" in selection.rule


def test_rule_says_that_masks_are_not_there_yet(builder):
    manifest = builder.manifest()
    selection = select(builder.run / "pseudo", manifest, manifest.samples, 2, what="pseudo mask")
    assert selection.rule.endswith("(no pseudo masks yet).")


def test_large_sets_are_ranked_in_part_and_say_so(builder, monkeypatch):
    monkeypatch.setattr("affinitynet.report.sampling.RANKED_AT_MOST", 4)
    manifest = builder.manifest()
    builder.masks(manifest, "pseudo")
    selection = select(builder.run / "pseudo", manifest, manifest.split("train"), 3, what="mask")
    assert len(selection.ranking) == 4
    assert "4 images taken evenly from 8" in selection.rule
