"""Which classes fail, what to try next, and what the records say of it."""

from pathlib import Path
from typing import Any

import pytest

from affinitynet.data.judgements import (
    all_failed,
    class_lines,
    class_table,
    failed_seeds,
    judge_classes,
    next_step,
    read_judgements,
)
from affinitynet.run_folder.folder import write_json
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.stages import stages_of

SEEDS = [
    {"class": "ant", "images": 30, "empty": 2},
    {"class": "bee", "images": 40, "empty": 20},
    {"class": "cow", "images": 0, "empty": 0},
]
TAGS = [
    {"class": "ant", "images": 60, "positives": 9, "ap": 0.81, "chance": 0.3},
    {"class": "bee", "images": 60, "positives": 9, "ap": 0.2, "chance": 0.3},
    {"class": "cow", "images": 60, "positives": 0, "ap": None, "chance": None},
]
VERDICTS = ("learned", "not learned", "not judged")


def test_a_class_fails_by_its_tag_or_its_seeds() -> None:
    rows = judge_classes(SEEDS, [0], [1])
    assert [row["failed"] for row in rows] == ["not learned", "empty seeds", ""]
    assert all_failed(rows)  # no image shows a cow
    assert failed_seeds(rows) == ()  # none is left then: all are shown
    assert failed_seeds(judge_classes(SEEDS, [], [1])) == (1,)
    assert not all_failed([])


def recipe(**sections: Any) -> Recipe:
    return Recipe.model_validate(sections)


@pytest.mark.parametrize(
    ("row", "changes", "advice"),
    [
        ({"images": 19, "failed": "not learned"}, {}, "tag more images that show it: 20 or more"),
        ({"images": 20, "failed": "not learned"}, {}, "--classifier.norm trained --redo train"),
        (
            {"images": 20, "failed": "not learned"},
            {"classifier": {"norm": "trained", "steps": 150}},
            "--classifier.steps 300 --redo train_classifier",
        ),
        ({"images": 20, "failed": "empty seeds"}, {}, "--cams.source auto"),
        (
            {"images": 20, "failed": "empty seeds"},
            {"cams": {"source": "auto"}},
            "--confident.low_alpha 8 --redo mine_confident",
        ),
    ],
)
def test_there_is_one_thing_to_try_next(
    row: dict[str, Any], changes: dict[str, Any], advice: str
) -> None:
    assert advice in next_step(recipe(**changes), row)


def record(root: Path, folder: str, stage: str, figures: dict[str, Any]) -> None:
    content = {"stage": stage, "fingerprint": "0", "settings": {}, "figures": figures}
    write_json(root / folder / "stage.json", content)


def test_the_table_joins_what_two_stages_recorded(tmp_path: Path) -> None:
    assert class_table(tmp_path) == []
    tags = [row | {"verdict": said} for row, said in zip(TAGS, VERDICTS, strict=True)]
    record(tmp_path, "classifier", "train_classifier", {"tags": tags})
    rows = class_table(tmp_path)
    assert [row["verdict"] for row in rows] == list(VERDICTS)
    assert [row["images"] for row in rows] == [None] * 3
    assert class_lines(rows)[1].split() == ["ant", "-", "81", "30", "-", "learned"]
    seeds = judge_classes(SEEDS, [], [1])
    record(tmp_path, "confident", "mine_confident", {"seeds": seeds})
    rows = class_table(tmp_path)
    assert [row["verdict"] for row in rows] == ["learned", "empty seeds", "not judged"]
    assert class_lines(rows)[2].split() == ["bee", "40", "20", "30", "20", "empty", "seeds"]
    assert class_lines(rows)[3].split() == ["cow", "0", "-", "-", "0", "not", "judged"]


def test_a_class_that_was_not_learned_may_keep_its_maps(tmp_path: Path) -> None:
    record(
        tmp_path, "classifier", "train_classifier", {"tags": [TAGS[1] | {"verdict": "not learned"}]}
    )
    for unlearned, verdict in (([0], "not learned"), ([], "not learned, maps kept")):
        seeds = judge_classes(SEEDS[1:2], unlearned, [])
        record(tmp_path, "confident", "mine_confident", {"seeds": seeds})
        assert class_table(tmp_path)[0]["verdict"] == verdict


def test_judgements_are_those_of_the_runs_own_stages_in_order(tmp_path: Path) -> None:
    record(tmp_path, "pseudo", "propagate", {"judgements": ["late"]})
    record(tmp_path, "classifier", "train_classifier", {"judgements": ["early", "too"]})
    record(tmp_path, "masks", "relabel", {"judgements": ["not a stage of this recipe"]})
    record(tmp_path, "affinity", "train_affinity", {})
    assert read_judgements(tmp_path, stages_of(recipe())) == [
        ("train_classifier", "early"),
        ("train_classifier", "too"),
        ("propagate", "late"),
    ]
