"""Figures are read as they are written, and what is missing is None."""

import math

import pytest

from affinitynet.errors import UserError
from affinitynet.report.figures import (
    read_facts,
    read_figure,
    read_figures,
    read_settings,
    read_stages,
)


def test_missing_unknown_and_odd_keys_are_tolerated():
    bare = read_figure({})
    assert (bare.stage, bare.split, bare.images, bare.miou, bare.iou) == ("?", "?", None, None, ())
    odd = {"stage": "cam", "miou": math.nan, "iou": None, "crf": "maybe", "images": True, "new": 1}
    figure = read_figure(odd)
    assert (figure.stage, figure.miou, figure.iou) == ("cam", None, ())
    assert (figure.crf, figure.images) == (None, None)
    assert not figure.measures_classes


def test_a_row_of_nulls_measures_no_class():
    assert not read_figure({"iou": [None, None]}).measures_classes
    assert read_figure({"iou": [None, 0.0]}).measures_classes


@pytest.mark.parametrize("content", [[], {"figures": {}}, {"classes": None, "figures": None}])
def test_other_shapes_of_file_are_empty_sheets(builder, content):
    builder.write("evaluation/figures.json", content)
    assert read_figures(builder.run).figures == ()


def test_trainings_have_no_speed_of_their_own(builder):
    builder.record("affinity", "train_affinity", counts={"done": 8, "total": 8})
    builder.record("pseudo", "propagate", counts={"done": 3, "total": 8}, seconds=2.0)
    stages = {row.name: row for row in read_stages(builder.run)}
    assert stages["train_affinity"].images_per_second is None
    assert stages["propagate"].images_per_second == 1.5
    assert stages["propagate"].state == "partial 3 of 8"


def test_stages_the_pipeline_does_not_name_follow(builder):
    names = [row.name for row in read_stages(builder.run, {"evaluate": "done", "own": "to do"})]
    assert names[:3] == ["evaluate", "own", "train_classifier"]
    assert len(names) == len(set(names)) == 8


def test_facts_without_recipe_and_records(builder):
    facts = read_facts(builder.run, builder.manifest(), {})
    assert (facts.name, facts.seed, facts.finished, facts.machine) == ("first", None, "", "")
    assert facts.splits == (("train", 8), ("val", 3))


@pytest.mark.usefixtures("nothing_readable")
def test_a_recipe_that_cannot_be_read_is_named(builder):
    builder.write("recipe.yaml", {})
    with pytest.raises(UserError, match=r"recipe\.yaml: can't be read"):
        read_settings(builder.run)


def test_broken_stage_record_is_named(builder):
    builder.write("cams/stage.json", {})
    (builder.run / "cams" / "stage.json").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"cams/stage\.json"):
        read_stages(builder.run)
