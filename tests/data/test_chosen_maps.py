"""What `choose_cams` chose is read back, and decides the walk's background."""

from pathlib import Path

import pytest

from affinitynet.data.chosen_maps import read_sources, settled
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import write_json
from affinitynet.run_folder.recipe import Recipe

CLASSES = ("cat", "dog")


def choose(root: Path, *sources: str) -> None:
    chosen = {name: {"source": s} for name, s in zip(CLASSES, sources, strict=False)}
    write_json(root / "cams" / "choice.json", chosen)


def recipe(source: str = "auto", background: str = "auto") -> Recipe:
    return Recipe.model_validate(
        {
            "cams": {"source": source},
            "classifier": {"hold_out": 0.1},
            "walk": {"background": background},
        }
    )


@pytest.mark.parametrize(
    ("sources", "background"),
    [
        (("classifier", "classifier"), "constant"),
        (("classifier", "contrast"), "alpha"),
        (("contrast", "contrast"), "alpha"),
    ],
)
def test_auto_is_constant_where_all_maps_are_the_classifiers(
    tmp_path: Path, sources: tuple[str, ...], background: str
) -> None:
    choose(tmp_path, *sources)
    own = recipe()
    assert settled(own, tmp_path, CLASSES).background == background
    assert read_sources(tmp_path, CLASSES) == sources


@pytest.mark.parametrize("source", ["classifier", "contrast", "files:maps"])
def test_auto_is_the_papers_where_nothing_was_chosen(tmp_path: Path, source: str) -> None:
    own = recipe(source)
    assert settled(own, tmp_path, CLASSES).background == "alpha"


def test_what_was_set_stays(tmp_path: Path) -> None:
    choose(tmp_path, "classifier", "classifier")
    for background in ("alpha", "constant", "relative"):
        own = recipe(background=background)
        assert settled(own, tmp_path, CLASSES) is own.walk


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is missing"),
        ("[]", "not what a stage writes"),
        ('{"cat": {"source": "classifier"}}', "no source for the class dog"),
        ('{"cat": {"source": "classifier"}, "dog": {"source": "?"}}', "for the class dog"),
    ],
)
def test_a_damaged_choice_is_made_again(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "cams").mkdir()
        (tmp_path / "cams" / "choice.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=rf"{words}.*--redo choose_cams"):
        read_sources(tmp_path, CLASSES)
