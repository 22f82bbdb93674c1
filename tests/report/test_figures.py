"""Figures are read as they are written, and what is missing is None."""

import math

import pytest

from affinitynet.errors import UserError
from affinitynet.report.figures import (
    read_facts,
    read_figure,
    read_figures,
    read_stages,
)
from affinitynet.run_folder.freshness import Freshness
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.stages import stages_of


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


def rows(builder) -> dict:
    freshness = Freshness(Recipe.load(builder.run / "recipe.yaml", out=builder.run))
    states = freshness.states(lambda stage: (3, 8))
    found = read_stages(builder.run, freshness.stages, states)
    return {row.name: row for row in found}


def test_trainings_have_no_speed_of_their_own(builder):
    builder.manifest()
    builder.record("affinity", "train_affinity", counts={"done": 8, "total": 8})
    builder.record("pseudo", "propagate", counts={"done": 3, "total": 8}, seconds=2.0)
    stages = rows(builder)
    assert stages["train_affinity"].images_per_second is None
    assert stages["propagate"].images_per_second == 1.5
    assert stages["propagate"].state == "done"


def test_an_unfinished_stage_says_how_far_it_is(builder):
    builder.masks(builder.manifest(), "pseudo")
    builder.record("pseudo", "propagate")
    (builder.run / "pseudo" / "stage.json").unlink()
    assert rows(builder)["propagate"].state == "partial 3 of 8"
    assert rows(builder)["evaluate"].state == "to do"


def test_facts_without_records(builder):
    manifest = builder.manifest()
    recipe = Recipe.load(builder.run / "recipe.yaml", out=builder.run)
    facts = read_facts(builder.run, manifest, recipe, stages_of(recipe))
    assert (facts.name, facts.seed, facts.finished, facts.machine) == ("first", 0, "", "")
    assert facts.splits == (("train", 8), ("val", 3))


def test_broken_stage_record_is_named(builder):
    builder.manifest()
    builder.record("cams", "compute_cams")
    (builder.run / "cams" / "stage.json").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"cams/stage\.json"):
        rows(builder)
