"""16-bit images among 8-bit ones: stretched as nothing else is, they would be nearly black."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import affinitynet as an
from affinitynet.cli import main
from affinitynet.data import Manifest, Sample, check_dataset, load_image, load_picture
from affinitynet.data.readings import check_depths, describe, find_reading, settle_reading
from affinitynet.errors import UserError
from affinitynet.run_folder.settings_base import InputSettings

REFUSED = r"{}: has more than 8 bits a channel, .* save it with 8 bits, or train with dataset.range"


def write(file: Path, deep: bool) -> Sample:
    values = np.arange(64).reshape(8, 8) * 60
    kind = np.uint16 if deep else np.uint8
    Image.fromarray((values if deep else values // 16).astype(kind)).save(file)
    return Sample(file.stem, file, (0,))


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Manifest]:
    """Make a data set of gray images, train0 and train2 measured; those named are of 16 bits."""
    monkeypatch.setattr("affinitynet.data.readings.LOOKED_AT", 2)

    def make(deep: set[str], kind: str = ".png") -> Manifest:
        splits = {
            name: tuple(
                write(tmp_path / f"{name}{n}{kind}", f"{name}{n}" in deep) for n in range(count)
            )
            for name, count in (("train", 4), ("val", 2))
        }
        return Manifest(tmp_path, ("cat", "dog"), splits)

    return make


def recipe(manifest: Manifest, **settings: object) -> an.Recipe:
    return an.Recipe.model_validate({"out": manifest.root / "run", **settings})


@pytest.mark.parametrize("kind", [".png", ".tif"])
@pytest.mark.parametrize("name", ["val1", "train1"])
def test_a_deep_image_that_is_not_measured_is_refused(images, kind, name):
    manifest = images({name}, kind)
    named = REFUSED.format(rf"{name}\{kind}")
    settled = settle_reading(recipe(manifest), manifest)
    with pytest.raises(UserError, match=named):
        check_depths(*settled)
    found = check_dataset(manifest)
    assert [problem.id for problem in found.problems] == [name]
    with pytest.raises(UserError, match=named):
        raise UserError(found.problems[0].message)
    assert not any("become 0 to 255" in warning for warning in found.warnings)


@pytest.mark.parametrize("page", [None, 0])
def test_what_the_heads_were_not_asked_for_is_refused_when_it_is_loaded(tmp_path, page):
    reading = None if page is None else InputSettings(page=page)
    deep = write(tmp_path / "a.png", deep=True)
    for load in (load_image, load_picture):
        with pytest.raises(UserError, match=REFUSED.format(r"a\.png")):
            load(deep.image, reading)
    # A picture of nobody's data set is converted as ever.
    assert load_image(deep.image).max() == round(3780 * 255 / 65535)


@pytest.mark.parametrize("name", ["val1", "train1"])
def test_a_given_range_reads_both(images, name):
    manifest = images({name})
    asked = recipe(manifest, dataset={"range": (0, 4000)})
    settled, read = settle_reading(asked, manifest)
    assert settled.backbone.input is not None
    assert settled.backbone.input.high == (4000,)
    deep = next(sample for sample in read.samples if sample.id == name)
    assert load_image(deep.image, deep.reading).max() == round(3780 * 255 / 4000)


def test_a_given_range_changes_nothing_where_all_are_bytes(images):
    manifest = images(set())
    assert settle_reading(recipe(manifest, dataset={"range": (0, 4000)}), manifest)[1] == manifest


def test_deep_images_to_train_on_are_measured(images):
    manifest = images({"train0", "train1", "train2", "train3", "val0", "val1"})
    settled, _ = settle_reading(recipe(manifest), manifest)
    found = check_dataset(manifest)
    assert not found.problems
    assert describe(settled.backbone.input) in found.warnings


@pytest.mark.parametrize("command", ["check", "init"])
@pytest.mark.parametrize(
    ("page", "said"), [("-1", "--page -1: must be at least 0"), ("x", "--page: invalid int value")]
)
def test_a_page_that_is_none_is_refused(tmp_path, capsys, command, page, said):
    with pytest.raises(SystemExit) as end:
        main([command, str(tmp_path), "--page", page])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"affinitynet: {said}")
    with pytest.raises(UserError, match=r"dataset\.page = -1: must be at least 0"):
        find_reading((), -1)
