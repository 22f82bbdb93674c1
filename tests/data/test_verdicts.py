"""Average precision, chance, verdicts, suspicious tags and the weights of rare classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_average_precision

from affinitynet.data import Sample
from affinitynet.data.verdicts import (
    average_precision,
    chance_level,
    judge_tags,
    rarity_weights,
    suspicious_tags,
    table_lines,
    why_stop,
)

CLASSES = ("ant", "bee", "cow")


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=25).filter(
        lambda pairs: any(tagged for _, tagged in pairs)
    )
)
def test_average_precision_is_torchmetrics(pairs: list[tuple[int, bool]]) -> None:
    """Integers, so that many scores are equal."""
    scores, tagged = (np.array(column) for column in zip(*pairs, strict=True))
    expected = binary_average_precision(
        torch.from_numpy(scores / 6.0), torch.from_numpy(tagged.astype(int))
    )
    assert average_precision(scores / 6.0, tagged) == pytest.approx(float(expected), abs=1e-6)


def test_average_precision_by_hand() -> None:
    """From the top: yes, no, yes, no; precision 1 at the first, 2/3 at the second."""
    tagged = np.array([False, True, False, True])
    assert average_precision(np.array([1.0, 2.0, 3.0, 4.0]), tagged) == pytest.approx(5 / 6)


def test_without_a_tag_there_is_no_precision() -> None:
    assert average_precision(np.array([1.0, 2.0]), np.array([False, False])) == 0


def test_chance_lies_above_the_share_of_the_tag_and_repeats() -> None:
    rng = np.random.default_rng(0)
    scores, tagged = rng.random(60), np.arange(60) < 12
    level = chance_level(scores, tagged, 3)
    assert 0.2 < level < 0.6
    assert level == chance_level(scores, tagged, 3) != chance_level(scores, tagged, 4)


def judged() -> tuple[np.ndarray, np.ndarray, list[dict[str, object]]]:
    """Scores that know ants, guess bees, and 40 images of which four show a cow."""
    rng = np.random.default_rng(1)
    tagged = np.zeros((40, 3), dtype=bool)
    tagged[:10, 0], tagged[5:20, 1], tagged[36:, 2] = True, True, True
    scores = rng.normal(size=(40, 3))
    scores[:, 0] = np.where(tagged[:, 0], 2.0, -2.0) + 0.1 * scores[:, 0]
    scores[:, 1] = np.where(tagged[:, 1], -1.0, 1.0)  # surely no better than chance
    return scores, tagged, judge_tags(scores, tagged, CLASSES, 0)


def test_verdicts() -> None:
    _, _, rows = judged()
    assert [row["verdict"] for row in rows] == ["learned", "not learned", "not judged"]
    assert [row["positives"] for row in rows] == [10, 15, 4]
    assert rows[0]["ap"] == 1
    assert rows[2]["ap"] is rows[2]["chance"] is None
    assert table_lines(rows)[3].split() == ["cow", "4", "-", "-", "not", "judged"]


def test_a_tag_that_all_images_have_is_not_judged() -> None:
    rows = judge_tags(np.zeros((20, 1)), np.ones((20, 1), dtype=bool), ("ant",), 0)
    assert rows[0]["verdict"] == "not judged"


def test_a_run_stops_only_where_no_judged_class_was_learned() -> None:
    _, _, rows = judged()
    assert why_stop(rows) == ""
    assert "on 40 held-out images: bee " in why_stop(rows[1:])
    assert "(chance " in why_stop(rows[1:])
    assert why_stop(rows[2:]) == why_stop([]) == ""


def test_suspicious_tags_are_the_worst_of_learned_classes(tmp_path: Path) -> None:
    scores, tagged, rows = judged()
    wrong = tagged.copy()
    wrong[3, 0], wrong[30, 0] = False, True  # a forgotten tag and one too many
    samples = [
        Sample(str(i), tmp_path / f"{i}.png", tuple(np.flatnonzero(own).tolist()))
        for i, own in enumerate(wrong)
    ]
    probabilities = 1 / (1 + np.exp(-scores))
    probabilities[3, 0] = 0.999
    found = suspicious_tags(probabilities, samples, rows, tmp_path)
    assert [(entry["image"], entry["class"], entry["tagged"]) for entry in found] == [
        ("3.png", "ant", False),
        ("30.png", "ant", True),
    ]


def test_rare_classes_weigh_the_root_of_their_rarity() -> None:
    tags = [(0,)] * 8 + [(1,), (1,), (0, 1), ()]
    samples = [Sample(str(i), Path(f"{i}.png"), own) for i, own in enumerate(tags)]
    rare = 3**0.5  # nine images of the commonest to three
    expected = [1.0] * 8 + [rare, rare, rare, 1.0]
    assert rarity_weights(samples, 2) == pytest.approx(expected)
