"""Which source's maps a class gets, by how much the tag's probability falls without them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from affinitynet.data import Manifest, Sample
from affinitynet.run_folder.folder import write_json
from affinitynet.run_folder.recipe import Recipe
from affinitynet.stages.choose_cams import Drops, choose, deletion_drops, images_to_look_at
from affinitynet.stages.context import Context


def spread(mean: float, count: int, width: float = 0.1) -> list[float]:
    return [mean + width * (-1) ** number for number in range(count)]


def test_the_larger_drop_is_chosen() -> None:
    choices = choose({0: Drops(spread(0.2, 20), spread(0.3, 20))})
    assert choices[0].source == "contrast"
    assert (
        "0.30 of the tag's probability for contrast, 0.20 for the classifier" in choices[0].reason
    )
    assert choose({0: Drops([0.3, 0.2], [0.1, 0.0])})[0].source == "classifier"


def test_a_class_that_is_clearly_other_decides_for_itself() -> None:
    drops = {
        0: Drops(spread(0.1, 20), spread(0.6, 20)),
        1: Drops([0.40] * 20, spread(0.10, 20)),
        2: Drops(spread(0.1, 20), spread(0.6, 20)),
    }
    choices = choose(drops)
    sources = [choices[label].source for label in range(3)]
    assert sources == ["contrast", "classifier", "contrast"]


@pytest.mark.parametrize(
    "unclear",
    [
        Drops([0.04] * 20, spread(0.01, 20)),  # within the error
        Drops([0.46] * 20, spread(0.35, 20)),  # more, but not three times as much
        Drops([0.40] * 7, [0.10] * 7),  # too few images
        Drops([0.009] * 20, [0.001] * 20),  # the classifier needs neither's pixels
        Drops([], []),
    ],
)
def test_a_class_that_is_not_clear_follows_the_others(unclear: Drops) -> None:
    choices = choose({0: Drops(spread(0.1, 20), spread(0.6, 20)), 1: unclear})
    assert choices[1].source == "contrast"
    assert "as the other classes" in choices[1].reason


LEAVES = [
    [(0.3719, 0.3931), (0.0485, 0.2754), (-0.0011, 0.0034), (0.4366, 0.3612)],
    [(0.4575, 0.3475), (0.0559, 0.1308), (0.0049, 0.0212), (0.3794, 0.4462)],
    [(0.3733, 0.3820), (0.0734, 0.1844), (0.0352, 0.0287), (0.3865, 0.3098)],
]
PHOTOGRAPHS = [
    [
        (0.0289, 0.0038),
        (0.1435, 0.0602),
        (0.1773, 0.1200),
        (0.0295, 0.0166),
        (0.0639, 0.0183),
        (0.0739, 0.0223),
    ],
    [
        (0.0436, 0.0072),
        (0.183, 0.045),
        (0.1436, 0.0883),
        (0.0903, 0.0326),
        (0.0594, 0.0337),
        (0.0711, 0.0227),
    ],
]


@pytest.mark.parametrize(
    ("measured", "better"),
    [(drops, "contrast") for drops in LEAVES] + [(drops, "classifier") for drops in PHOTOGRAPHS],
)
def test_all_classes_get_the_better_source(
    measured: list[tuple[float, float]], better: str
) -> None:
    """As measured: leaves with seeds 0 to 2, and animals with 0 and 1. The truth says which."""
    drops = {
        n: Drops(spread(k, 30, 0.02), spread(c, 30, 0.02)) for n, (k, c) in enumerate(measured)
    }
    assert {choice.source for choice in choose(drops).values()} == {better}


def test_what_one_class_loses_more_than_all_others_decides_nothing_for_them() -> None:
    drops = {0: Drops([0.9] * 9, [0.3] * 9), 1: Drops([0.01] * 9, [0.1] * 9)}
    drops |= {label: Drops([0.05] * 9, [0.1] * 9) for label in (2, 3)}
    assert choose(drops)[1].source == "contrast"


def test_without_any_image_the_classifier_is_taken() -> None:
    assert choose({0: Drops([], [])})[0].source == "classifier"


def test_a_class_without_contrast_has_no_say_and_the_classifier() -> None:
    drops = {0: Drops([0.1] * 9, [0.2] * 9), 1: Drops([0.9] * 9, [0.0] * 9)}
    choices = choose(drops, contrasted=[0])
    assert [choices[label].source for label in (0, 1)] == ["contrast", "classifier"]
    assert choices[1].reason == "nothing to contrast it with"


def test_a_class_that_the_classifier_did_not_learn_is_not_heard() -> None:
    drops = {0: Drops([0.1] * 9, [0.2] * 9), 1: Drops([0.9] * 9, [0.0] * 9)}
    choices = choose(drops, unlearned=[1])
    assert [choices[label].source for label in (0, 1)] == ["contrast", "contrast"]
    assert choices[1].reason == "as the other classes: the classifier did not learn it"


def test_a_class_counts_once_however_many_images_it_has() -> None:
    drops = {0: Drops([0.1] * 30, [0.2] * 30), 1: Drops([0.5, 0.5], [0.1, 0.1])}
    assert choose(drops)[1].source == "classifier"


def test_each_class_is_looked_at_in_as_many_images() -> None:
    samples = [Sample(f"{n}", Path(f"{n}.png"), (0,) if n % 2 else (0, 1)) for n in range(100)]
    found = images_to_look_at(samples, 3, seed=0)
    counts = [sum(label in labels for labels in found.values()) for label in range(3)]
    assert counts == [30, 30, 0]
    assert found == images_to_look_at(samples, 3, seed=0)
    assert found != images_to_look_at(samples, 3, seed=1)


def brightness(images: Tensor) -> Tensor:
    """A classifier of two classes: how bright the left and the right half are."""
    return torch.stack([half.amax((1, 2, 3)) / 255 for half in images.split(20, 3)], 1)


def test_deleting_what_the_classifier_sees_takes_its_probability() -> None:
    image = torch.zeros(3, 30, 40)
    image[:, 10:13, 5:8] = 255  # of the left half
    image[:, 20:23, 30:33] = 255
    right, wrong = torch.zeros(30, 40), torch.zeros(30, 40)
    right[10:13, 5:8] = wrong[2:5, 5:8] = 1
    drops = deletion_drops(image, torch.stack([right, wrong]), [0, 0], brightness)
    assert drops == pytest.approx([1, 0])
    other = torch.zeros(30, 40)
    other[20:23, 30:33] = 1
    assert deletion_drops(image, other[None], [1], brightness) == pytest.approx([1])


def test_a_failed_class_counts_only_where_its_maps_are_the_classifiers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps by contrast don't ask the classifier, so they stay."""
    monkeypatch.setattr("affinitynet.stages.context.failed_classes", lambda root: (0, 1))
    sample = Sample("a", tmp_path / "a.png", (0,))
    manifest = Manifest(tmp_path, ("cat", "dog"), {"train": (sample,)})
    chosen = {"cat": {"source": "contrast"}, "dog": {"source": "classifier"}}
    write_json(tmp_path / "cams" / "choice.json", chosen)
    for source, failed in (("auto", (1,)), ("classifier", (0, 1)), ("contrast", ())):
        settings = {"cams": {"source": source}, "classifier": {"hold_out": 0.1}}
        recipe = Recipe.model_validate(settings)
        assert Context(recipe, manifest, tmp_path).failed == failed
