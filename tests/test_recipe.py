"""Recipes: what is accepted, what is refused, and how it is said."""

from pathlib import Path

import pytest

import affinitynet
from affinitynet.errors import UserError
from affinitynet.run_folder.recipe import Recipe

RECIPES = sorted((Path(affinitynet.__file__).parent / "recipes").glob("*.yaml"))


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_load(path: Path) -> None:
    assert Recipe.load(path).name == path.stem


def test_shipped_recipes_are_found_by_name() -> None:
    assert Recipe.load("demo") == Recipe.load(RECIPES[0].parent / "demo.yaml")


def test_overrides_replace_single_settings(tmp_path: Path) -> None:
    file = write(tmp_path, "walk: {beta: 10, steps: 100}\n")
    recipe = Recipe.load(file, data="photos", **{"walk.steps": 7, "cams.scales": [1.0, 2.0]})
    assert (recipe.walk.beta, recipe.walk.steps) == (10, 7)
    assert recipe.cams.scales == (1.0, 2.0)
    assert recipe.data == Path("photos")
    assert recipe.out == Path("runs/mine")


def test_dump_and_load_give_the_same_recipe(tmp_path: Path) -> None:
    recipe = Recipe.load("demo", data=tmp_path, out=tmp_path / "run", seed=3)
    assert Recipe.load(write(tmp_path, recipe.dump())) == recipe


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("walk: {betta: 3}", "unknown setting walk.betta: did you mean walk.beta?"),
        ("wlak: {beta: 3}", "unknown setting wlak: did you mean walk?"),
        ("segmenter: {backbone: {nam: x}}", "did you mean segmenter.backbone.name?"),
        ("epochs: 3", "did you mean classifier.epochs, affinity.epochs or segmenter.epochs?"),
        ("dataset: {format: vco}", "dataset.format = 'vco'"),
        ("dataset: {format: vco}", "did you mean voc?"),
        ("walk: {beta: much}", "walk.beta = 'much'"),
        ("walk: {beta: -1}", "walk.beta = -1"),
        ("walk: {beta: .inf}", "walk.beta = inf: Input should be a finite number"),
        ("classifier: {learning_rate: .nan}", "classifier.learning_rate = nan"),
        ("cams: {scales: [1, .nan]}", "cams.scales.1 = nan"),
        ("cams: {scales: [1, 0]}", "cams.scales.1 = 0"),
        ("cams: {splits: [train, vall]}", "cams.splits.1 = 'vall'"),
        ("cams: {splits: [val]}", "cams.splits = ['val']: train must be among them"),
        ("classifier: {long_side: [512, 256]}", "classifier.long_side = [512, 256]: a range"),
        ("classifier: {long_side: [0, 256]}", "classifier.long_side.0 = 0"),
        ("segmenter: {scale_range: [2, 0.5]}", "segmenter.scale_range = [2, 0.5]: a range"),
        ("segmenter: {scale_range: [0, 1]}", "segmenter.scale_range.0 = 0"),
        ("segmenter: {scales: [-1]}", "segmenter.scales.0 = -1"),
        ("evaluate: {sweep: [0, 0.6, 0]}", "evaluate.sweep = [0, 0.6, 0]: give start, stop"),
        ("evaluate: {sweep: [1, 0, 0.1]}", "evaluate.sweep = [1, 0, 0.1]: give start, stop"),
        ("evaluate: {sweep: [0, 1, 0.000001]}", "more than 1000 steps"),
        ("walk: {crf: {bilateral_sxy: 0.01}}", "walk.crf.bilateral_sxy = 0.01"),
        ("confident: {crf: {bilateral_srgb: 0.01}}", "confident.crf.bilateral_srgb = 0.01"),
        ("walk: 3", "walk = 3"),
        ("- walk", "a recipe is a mapping"),
        ("walk: {beta: 1", "not valid YAML"),
        ("zzz: 1", "known here: name, data"),
        (
            "segmenter: {start: classifier, backbone: {name: resnet50}}",
            "mine.yaml: segmenter.start = classifier needs the classifier's backbone",
        ),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        Recipe.load(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_a_recipe_that_cannot_be_read_is_named(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    file = write(tmp_path, "seed: 1")
    request.getfixturevalue("nothing_readable")
    with pytest.raises(UserError, match=r"mine\.yaml: can't be read \(Permission denied"):
        Recipe.load(file)


@pytest.mark.parametrize("key", ["path", "cls"])
def test_no_override_collides_with_an_argument(key: str) -> None:
    with pytest.raises(UserError, match=f"unknown setting {key}"):
        Recipe.load("demo", **{key: "x"})


def test_a_missing_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match=r"none of the package's own \(.*demo"):
        Recipe.load("demmo")


def test_a_wrong_value_is_blamed_on_the_file_only_if_it_stands_there(tmp_path: Path) -> None:
    file = write(tmp_path, "walk: {beta: x}")
    with pytest.raises(UserError, match=r"mine\.yaml: walk\.beta = 'x'"):
        Recipe.load(file, **{"walk.alpha": 4})
    with pytest.raises(UserError, match=r"^walk\.beta = 'y'"):
        Recipe.load(file, **{"walk.beta": "y"})
    with pytest.raises(UserError, match=r"^segmenter\.scales\.0 = '0\.75,1'"):
        Recipe.load("demo", **{"segmenter.scales": ["0.75,1"]})


def test_an_override_of_an_unknown_setting_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown setting walk\.betta"):
        Recipe.load("demo", **{"walk.betta": 1})
