"""Recipes and flags that mean something else than they say."""

from pathlib import Path

import pytest

import affinitynet as an
from affinitynet.errors import UserError


@pytest.mark.parametrize(
    ("text", "key"),
    [("walk: 5", "walk.beta"), ("cams: [1.0]", "cams.flip"), ("segmenter: x", "segmenter.crop")],
)
def test_a_section_that_is_none_is_not_replaced_by_a_flag(
    tmp_path: Path, text: str, key: str
) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(text)
    name = text.partition(":")[0]
    with pytest.raises(UserError, match=rf"r\.yaml: {name} = .*: is a section, .*write {name}: {{"):
        an.Recipe.load(file, **{key: 10})
    with pytest.raises(UserError, match=rf"r\.yaml: {name} = "):
        an.Recipe.load(file)


def test_a_section_that_is_null_takes_flags(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("walk:\nsegmenter: {backbone: null}\n")
    recipe = an.Recipe.load(file, **{"walk.beta": 10, "segmenter.backbone.name": "vgg16"})
    assert recipe.walk.beta == 10


@pytest.mark.parametrize("name", ["38", "[vit]", "{a: b}", "1.5", "true"])
def test_a_backbone_whose_name_is_no_word_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "r.yaml"
    for text in (f"backbone: {{name: {name}}}\n", f"segmenter: {{backbone: {{name: {name}}}}}\n"):
        file.write_text(text)
        with pytest.raises(UserError, match=r"r\.yaml: .*backbone\.name"):
            an.Recipe.load(file)


@pytest.mark.parametrize("letter", ["\x1b[31m", "\n", "\x07", "\u202e"])
def test_messages_do_nothing_to_a_terminal(letter: str) -> None:
    said = str(UserError(f"images/a{letter}b.png: is damaged"))
    assert said.isprintable()
    assert said.startswith("images/a\\")


@pytest.mark.parametrize("until", ["train_affinity", "propagate", None])
def test_a_distance_that_never_learns_is_refused_at_the_start(
    home: Path, until: str | None
) -> None:
    settings = {"data": home / "data", "out": home / "new", "affinity.distance": "sum"}
    with pytest.raises(UserError, match=r"affinity\.distance = sum: .* set it to mean"):
        an.run(an.Recipe.load(home / "tiny.yaml", **settings), until=until)
    assert not (home / "new" / "classifier").exists()
