"""Settings that the data choose: by numbers and sizes, once, unless they are given."""

import json
from pathlib import Path

import pytest

import affinitynet as an
from affinitynet.pipeline import Run
from affinitynet.run_folder.choices import CHOICES, Facts, choose, read_choices, settle

EVEN = {"ant": 30, "bee": 20}


def open_recipe(out: Path, **given: object) -> an.Recipe:
    return an.Recipe.load("own_images", data=out, out=out, **given)


def values(recipe: an.Recipe, facts: Facts) -> dict[str, object]:
    return {key: choice.value for key, choice in choose(recipe, facts).items()}


def test_leaves_of_1024_pixels(tmp_path: Path) -> None:
    found = values(open_recipe(tmp_path), Facts(317, [(1024, 512)] * 50, {"a": 91, "b": 16}))
    assert found == {
        "classifier.steps": 300,
        "classifier.balance": True,
        "cams.scales": (0.234, 0.469, 0.703),
        "affinity.steps": 250,
        "affinity.scale": 1,
        "affinity.crop": 288,
        "segmenter.steps": 450,
        "segmenter.scale_range": (0.5, 1.25),
        "segmenter.scales": (0.75, 1.0),
        "segmenter.balance": True,
        "tile": 0,
        "confident.block": 0,
        "walk.block": 0,
        "relabel.block": 0,
    }


def test_large_images_are_taken_in_parts(tmp_path: Path) -> None:
    facts = Facts(300, [(500, 400), (3000, 4000)], EVEN)
    recipe, chosen = settle(open_recipe(tmp_path), facts)
    assert recipe.tile == recipe.confident.block == recipe.walk.block == 1024
    assert recipe.relabel.block == 1024
    assert chosen["tile"].reason.startswith("the largest image has 4000 pixels on its long side")
    assert settle(open_recipe(tmp_path, tile=512), facts)[0].tile == 512
    assert an.Recipe.load("voc12_resnet38", out=tmp_path).tile == 0


def test_a_large_image_among_small_ones_is_enlarged_in_parts(tmp_path: Path) -> None:
    chosen = choose(open_recipe(tmp_path), Facts(3, [(120, 90), (120, 90), (1000, 900)], EVEN))
    assert chosen["tile"].value == 256  # 1024 pixels as networks see it
    assert "1000 pixels on its long side, 4000 as networks see it, more than" in chosen["tile"][1]
    assert chosen["walk.block"].value == chosen["confident.block"].value == 0
    alike = choose(open_recipe(tmp_path), Facts(3, [(120, 90)] * 3, EVEN))
    assert alike["tile"].value == 0


def test_small_images_are_enlarged_and_small_sets_seen_more_often(tmp_path: Path) -> None:
    found = values(open_recipe(tmp_path), Facts(30, [(64, 48), (48, 64), (90, 10)], EVEN))
    assert found["classifier.steps"] == found["affinity.steps"] == 150
    assert found["segmenter.steps"] == 300
    assert found["cams.scales"] == (3.75, 7.5, 11.25)
    assert (found["affinity.scale"], found["affinity.crop"]) == (4, 72)
    assert found["segmenter.scale_range"] == (2.0, 5.0)
    assert found["segmenter.scales"] == (3.0, 4.0)
    assert found["classifier.balance"] is False


@pytest.mark.parametrize(
    ("side", "scale"), [(1, 4), (128, 4), (169, 4), (170, 2), (339, 2), (340, 1), (5000, 1)]
)
def test_networks_see_small_images_enlarged(tmp_path: Path, side: int, scale: int) -> None:
    chosen = choose(open_recipe(tmp_path), Facts(30, [(side, side)], EVEN))
    assert chosen["affinity.scale"].value == scale
    assert chosen["affinity.crop"].value == 288 // scale
    said = f"enlarged {scale} times" if scale > 1 else "taken as it is"
    assert chosen["segmenter.scales"].reason == f"the median long side is {side} pixels, {said}"


@pytest.mark.parametrize(("images", "steps"), [(1000, 540), (10_000, 1700), (10**6, 3000)])
def test_large_sets_take_more_steps_but_fewer_epochs(
    tmp_path: Path, images: int, steps: int
) -> None:
    recipe = open_recipe(tmp_path)
    assert values(recipe, Facts(images, [(500, 375)], EVEN))["classifier.steps"] == steps


def test_the_segmenter_of_a_large_set_sees_each_image_less_than_five_times(tmp_path: Path) -> None:
    chosen = choose(open_recipe(tmp_path), Facts(5000, [(500, 375)], EVEN))
    assert chosen["segmenter.steps"] == (1770, "5000 training images: 2.8 times each")
    assert chosen["affinity.steps"].value == 990
    few = choose(open_recipe(tmp_path), Facts(20, [(500, 375)], EVEN))
    assert few["segmenter.steps"] == (300, "20 training images: 120 times each")


def test_larger_batches_take_fewer_steps(tmp_path: Path) -> None:
    recipe = open_recipe(tmp_path, **{"segmenter.batch_size": 16})
    assert values(recipe, Facts(5000, [(500, 375)], EVEN))["segmenter.steps"] == 880


def test_what_is_given_is_not_chosen(tmp_path: Path) -> None:
    recipe = open_recipe(tmp_path, **{"classifier.steps": 7, "cams.scales": [1.0]})
    facts = Facts(317, [(1024, 512)], EVEN)
    assert not {"classifier.steps", "cams.scales"} & set(values(recipe, facts))
    settled, chosen = settle(recipe, facts)
    assert (settled.classifier.steps, settled.cams.scales) == (7, (1.0,))
    assert settled.choose == ()
    assert "317" not in chosen["affinity.crop"].reason


def test_what_a_recipe_sets_is_not_chosen(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("choose: [affinity.crop, cams.scales]\naffinity: {crop: 99}\n")
    assert an.Recipe.load(file).choose == ("cams.scales",)
    file.write_text("choose: [classifier.steps]\nclassifier: {epochs: 3}\n")
    assert an.Recipe.load(file).choose == ()
    file.write_text("choose: [walk.beta]\n")
    with pytest.raises(an.UserError, match=r"choose\.0 = 'walk\.beta'"):
        an.Recipe.load(file)


def test_a_recipe_that_leaves_nothing_open_is_as_it_was(tmp_path: Path) -> None:
    recipe = an.Recipe.load("voc12_resnet38", out=tmp_path)
    assert settle(recipe, Facts(1, [], {})) == (recipe, {})


def test_choices_are_kept_with_the_run_folder(toy: Path, tiny_text: str, tmp_path: Path) -> None:
    file = tmp_path / "open.yaml"
    text = tiny_text.replace("cams: {scales: [1.0]}", "choose: [classifier.balance, cams.scales]")
    file.write_text(text, encoding="utf-8")
    recipe = an.Recipe.load(file, data=toy, out=tmp_path / "run")
    run = an.run(recipe, until="train_classifier")
    assert run.recipe.choose == Run.open(tmp_path / "run").recipe.choose == ()
    assert run.recipe.cams.scales == (3.75, 7.5, 11.25)  # the toy set's images have 64 pixels
    noted = json.loads((tmp_path / "run" / CHOICES).read_text(encoding="utf-8"))
    assert noted["cams.scales"]["reason"].startswith("the median long side is 64 pixels")
    assert read_choices(tmp_path / "run")["cams.scales"].value == [3.75, 7.5, 11.25]
    # Another number of images would choose otherwise; the run folder's values stand.
    facts = Facts(9, [(500, 400)], {})
    again, chosen = settle(recipe, facts)
    assert again == run.recipe
    assert chosen == {}
