"""The walk decided again gives the stage's own masks; what it ties to a pixel is the walk's."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affinitynet.data import Manifest, Sample, read_labels
from affinitynet.data.cams import load_cams, save_cams
from affinitynet.data.grids import load_affinity
from affinitynet.errors import UserError
from affinitynet.ops.random_walk import random_walk
from affinitynet.run_folder.artifacts import AFFINITIES, CAMS, PSEUDO
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import RECORD
from affinitynet.stages.context import Context
from affinitynet.tuning.decide import Case, load_case
from affinitynet.view import deciding
from affinitynet.view.applying import apply_settings
from affinitynet.view.deciding import Decider
from affinitynet.view.viewed import Viewed


def train(viewed: Viewed) -> list[int]:
    return [n for n, sample in enumerate(viewed.samples) if viewed.has_affinities(sample)]


def test_the_recipes_settings_give_the_stages_masks(viewed: Viewed) -> None:
    decider = Decider(viewed)
    assert len(train(viewed)) == 9
    for index in train(viewed):
        made = read_labels(viewed.file(PSEUDO, viewed.samples[index]))
        decided = decider.decide(index, viewed.recipe.walk, draft=False)
        assert np.array_equal(decided, made)


def test_a_background_that_the_maps_decide_is_shown_as_what_it_became(root: Path) -> None:
    file = root / "recipe.yaml"
    text = file.read_text(encoding="utf-8")
    assert text.count("  background: alpha\n") == 1
    file.write_text(text.replace("  background: alpha\n", "  background: auto\n"), "utf-8")
    viewed = Viewed(root)
    assert viewed.facts()["walk"]["background"] == "alpha"  # no maps were chosen
    done = apply_settings(viewed, {"beta": 3, "background_score": 0.5})
    assert done["changed"] == {"walk.beta": 3.0, "walk.background_score": 0.5}
    assert viewed.recipe.walk.background == "auto"
    viewed.close()


def test_the_page_opens_before_the_maps_are_chosen(root: Path) -> None:
    file = root / "recipe.yaml"
    text = file.read_text(encoding="utf-8").replace("  background: alpha\n", "  background: auto\n")
    file.write_text(text.replace("  source: classifier\n", "  source: auto\n"), "utf-8")
    viewed = Viewed(root)
    assert viewed.recipe.cams.source == viewed.facts()["walk"]["background"] == "auto"
    viewed.close()


def test_other_settings_give_other_masks(viewed: Viewed) -> None:
    decider = Decider(viewed)

    def area(**changes: Any) -> list[int]:
        settings = decider.settings(changes)
        return [int((decider.decide(n, settings, draft=False) > 0).sum()) for n in train(viewed)]

    assert sum(area(alpha=0.01)) < sum(area(alpha=500))
    assert area(refine=False) != area(refine=True)


# Of small images on every second pixel, of larger ones on fewer: here on every third of 64.
@pytest.mark.parametrize(("pixels", "least"), [(deciding.DRAFT_PIXELS, 0.9), (64 * 64 // 9, 0.7)])
def test_a_draft_is_close_to_the_mask(
    viewed: Viewed, pixels: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "DRAFT_PIXELS", pixels)
    decider = Decider(viewed)
    settings = viewed.recipe.walk
    for index in train(viewed):
        draft = decider.decide(index, settings, draft=True)
        exact = decider.decide(index, settings, draft=False)
        assert draft.shape == exact.shape
        assert (draft == exact).mean() > least


def test_what_was_made_again_is_read_again(viewed: Viewed, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def load(recipe: Recipe, manifest: Manifest, sample: Sample) -> Case:
        read.append(sample.id)
        return load_case(recipe, manifest, sample)

    monkeypatch.setattr("affinitynet.tuning.decide.load_case", load)
    index, decider, settings = train(viewed)[0], Decider(viewed), viewed.recipe.walk
    sample = viewed.samples[index]
    before = [decider.decide(index, settings, draft=False) for _ in range(2)][-1]
    assert (before > 0).any()
    assert read == [sample.id]
    file = viewed.file(CAMS, sample)
    classes, maps = load_cams(file)
    save_cams(file, classes, 0 * maps)
    record = viewed.root / CAMS.folder / RECORD
    stat = record.stat()
    os.utime(record, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))  # as --redo writes it anew
    decided = decider.decide(index, settings, draft=False)
    assert not (decided > 0).any()
    assert read == 2 * [sample.id]


@pytest.mark.parametrize("folder", ["classifier", "cams", "confident", "pseudo"])
def test_which_classes_fail_is_read_again(
    viewed: Viewed, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, decider, settings = train(viewed)[0], Decider(viewed), viewed.recipe.walk
    tags = viewed.samples[index].tags
    before = decider.decide(index, settings, draft=False)
    monkeypatch.setattr(Context, "failed", tags)
    assert np.array_equal(decider.decide(index, settings, draft=False), before)
    (viewed.root / folder / RECORD).unlink()  # the stage is made again
    decided = decider.decide(index, settings, draft=False)
    shown = {tag + 1 for tag in tags}
    assert set(np.unique(before)) & shown
    assert not set(np.unique(decided)) & shown


def test_a_pixel_is_tied_to_what_the_walk_reaches(viewed: Viewed) -> None:
    decider, index = Decider(viewed), train(viewed)[0]
    settings = decider.settings({"beta": 2, "steps": 7})
    near, reach, stride = decider.spread(index, 20, 30, settings)
    affinity, radius = load_affinity(viewed.file(AFFINITIES, viewed.samples[index]))
    h, w = affinity.shape[1:]
    row, column = 30 // stride, 20 // stride
    # The twin: a map that is 1 in one cell alone, for every cell; what arrives at the pixel.
    every = torch.eye(h * w).reshape(1, h * w, h, w)
    walked = random_walk(every, torch.from_numpy(affinity)[None], beta=2, steps=7, radius=radius)[0]
    spread = walked[row * w + column].clamp(min=0).numpy()
    assert np.allclose(reach, spread / spread.max(), atol=1e-4)
    one = random_walk(every, torch.from_numpy(affinity)[None], beta=2, steps=1, radius=radius)[0]
    weights = one[:, row, column].reshape(h, w).numpy()  # proportional to the affinities
    assert np.allclose(near / near.sum(), weights, atol=1e-4)
    assert near[row, column] == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gamma": 1}, "does not have"),
        ({"keep": []}, "does not have"),
        ({"crf": {"color": 1}}, "does not have"),
        ({"crf": 3}, "does not have"),
        ({"beta": 0}, "beta: Input should be greater than 0"),
        ({"steps": 10**6}, "at most 100,000"),
    ],
)
def test_wrong_settings_are_refused(viewed: Viewed, changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Decider(viewed).settings(changes)


def test_a_pixel_outside_is_refused(viewed: Viewed) -> None:
    with pytest.raises(UserError, match="outside of 64 x 64"):
        Decider(viewed).spread(train(viewed)[0], 64, 0, viewed.recipe.walk)
