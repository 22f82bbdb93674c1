"""Settings as flags: how words become values, and what a wrong name is told."""

import json
from pathlib import Path

import pytest
import yaml

from affinitynet.errors import UserError
from affinitynet.run_folder.flags import (
    list_settings,
    nearest_settings,
    read_flag,
    setting_names,
    show_value,
    split_flags,
)
from affinitynet.run_folder.recipe import Recipe

OWN = ("-h", "--help", "--data", "--until")


def split(*words: str) -> tuple[list[str], dict[str, object]]:
    return split_flags(Recipe, words, OWN)


@pytest.mark.parametrize(
    ("key", "words", "value"),
    [
        ("walk.beta", ["10"], 10),
        ("cams.flip", ["false"], False),
        ("cams.scales", ["1"], [1]),
        ("cams.scales", ["0.5", "1"], [0.5, 1]),
        ("cams.scales", ["[0.5, 1]"], [0.5, 1]),
        ("cams.splits", ["train"], ["train"]),
        ("dataset.classes", ["cat"], ["cat"]),
        ("dataset.classes", ["no", "on"], ["no", "on"]),
        ("dataset.classes", ["[cat, dog]"], ["cat", "dog"]),
        ("dataset.classes", ["null"], None),
        ("dataset.train", ["2012"], "2012"),
        ("dataset.val", ["null"], None),
        ("dataset.format", ["no"], "no"),
        ("name", ["2024-01-01"], "2024-01-01"),
        ("name", ["[a"], "[a"),
        ("backbone.weights", ["*.pth"], "*.pth"),
        ("segmenter.backbone", ["{name: on}"], {"name": True}),
        ("segmenter.backbone.name", ["on"], "on"),
        ("nothing.known", ["1"], 1),
        ("walk.beta.deep", ["1"], 1),
    ],
)
def test_a_flag_is_read_as_its_setting_asks(key: str, words: list[str], value: object) -> None:
    assert read_flag(Recipe, key, words) == value


def test_a_flag_that_is_no_yaml_is_named() -> None:
    with pytest.raises(UserError, match=r"--walk\.beta \*a: this value is not YAML"):
        read_flag(Recipe, "walk.beta", ["*a"])


def test_flags_are_read_as_their_settings_ask() -> None:
    given = ["--walk.beta", "10", "--cams.scales", "0.5", "1", "--cams.flip=false", "--name", "on"]
    assert split(*given) == (
        [],
        {"walk.beta": 10, "cams.scales": [0.5, 1], "cams.flip": False, "name": "on"},
    )


@pytest.mark.parametrize(
    ("words", "rest", "settings"),
    [
        ("--seed 3 demo", ["demo"], {"seed": 3}),
        ("demo --seed 3", ["demo"], {"seed": 3}),
        ("demo --seed=3 more", ["demo", "more"], {"seed": 3}),
        ("--data d demo --seed -1", ["--data", "d", "demo"], {"seed": -1}),
        ("--classifier.long_side 64 96 demo", ["demo"], {"classifier.long_side": [64, 96]}),
        ("--classifier.long_side [64,96] demo", ["demo"], {"classifier.long_side": [64, 96]}),
        ("--classifier.long-side=64 96 demo", ["demo"], {"classifier.long_side": [64, 96]}),
        ("--cams.scales 1 --data d --cams.scales 2", ["--data", "d"], {"cams.scales": [1, 2]}),
        ("--cams.scales 1 2 -h", ["-h"], {"cams.scales": [1, 2]}),
        ("--seed 1 --seed 2", [], {"seed": 2}),
        ("--walk.crf {iterations:\xa03}", [], {"walk.crf": {"iterations": 3}}),
        ("--dataset.val null --until evaluate", ["--until", "evaluate"], {"dataset.val": None}),
        ("--dataset.val=", [], {"dataset.val": None}),
        ("--name=--odd", [], {"name": "--odd"}),
    ],
)
def test_settings_are_taken_out_of_a_commands_words(
    words: str, rest: list[str], settings: dict[str, object]
) -> None:
    found = split(*(word.replace("\xa0", " ") for word in words.split(" ")))
    assert found == (rest, settings)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--walk.beta", "--walk.beta needs a value"),
        ("--walk.beta --seed 3", "--walk.beta needs a value"),
        ("--walk.bta 3", "unknown setting --walk.bta: did you mean walk.beta?"),
        (
            "--epochs 3",
            "unknown setting --epochs: did you mean classifier.epochs, affinity.epochs or "
            "segmenter.epochs?",
        ),
        ("--bilateral-srbg 3", "did you mean confident.crf.bilateral_srgb, walk.crf.bilateral_"),
        ("--untl evaluate", "unknown setting --untl: did you mean until?"),
        ("--segmenter.backbone.nam x", "did you mean segmenter.backbone.name?"),
        ("--walk.beta.deep 3", "unknown setting --walk.beta.deep: did you mean walk.beta?"),
        ("--zzz 3", "unknown setting --zzz; see affinitynet settings"),
        ("--", "unknown setting --; see affinitynet settings"),
    ],
)
def test_flags_that_make_no_sense_are_refused(words: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        split(*words.split())
    assert said in str(caught.value)


def test_the_nearest_setting() -> None:
    assert nearest_settings(Recipe, "beta") == "did you mean walk.beta?"
    assert nearest_settings(Recipe, "sed") == "did you mean seed?"
    assert nearest_settings(Recipe, "walk.apha") == "did you mean walk.alpha?"
    assert nearest_settings(Recipe, "xyzzy") == ""


def test_every_setting_is_listed_with_its_meaning() -> None:
    settings = list(list_settings(Recipe(), Recipe()))
    assert [setting.name for setting in settings if not setting.meaning] == []
    assert {setting.name for setting in settings} <= set(setting_names(Recipe))
    assert not any(setting.changed for setting in settings)
    kinds = {setting.name: setting.kind for setting in settings}
    assert kinds["walk.beta"] == "number"
    assert kinds["cams.flip"] == "true|false"
    assert kinds["cams.scales"] == "number ..."
    assert kinds["classifier.long_side"] == "integer integer"
    assert kinds["dataset.val"] == "text|null"
    assert kinds["confident.priority"] == "background|foreground"


def test_a_recipes_values_stand_beside_the_defaults() -> None:
    recipe = Recipe.load("demo", **{"walk.beta": 8, "segmenter.backbone.name": "vgg16"})
    changed = {s.name: (s.value, s.default) for s in list_settings(recipe, Recipe()) if s.changed}
    assert changed["confident.low_alpha"] == (10, 4)
    assert changed["segmenter.backbone.name"] == ("vgg16", "mobilenetv2_100")
    assert "walk.beta" not in changed


@pytest.mark.parametrize("value", [None, True, 3, 0.5, (0.5, 1.0), ("train", "val"), "auto"])
def test_values_are_shown_as_yaml_reads_them(value: object) -> None:
    assert yaml.safe_load(show_value(value)) == json.loads(json.dumps(value))
    assert show_value(Path("runs/x")) == str(Path("runs/x"))
