"""Whoever decides masks again decides them as the stage does, by every setting of the walk."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import affinitynet as an
from affinitynet.data.labels import read_labels
from affinitynet.run_folder.settings import WalkSettings
from affinitynet.tuning.decide import decide, in_data_set, load_case
from affinitynet.view.deciding import Decider
from affinitynet.view.viewed import Viewed
from affinitynet.walking import SCORED, score_key

SETTINGS: dict[str, dict[str, Any]] = {
    "restarts": {"walk.method": "restart", "walk.restart": 0.2, "walk.guard": True},
    "constant background": {"walk.background": "constant", "walk.background_score": 0.3},
    "relative background": {"walk.background": "relative", "walk.background_score": 0.3},
    "background by the maps": {
        "cams.source": "auto",
        "contrast.long_side": 64,
        "walk.background": "auto",
        "walk.background_score": 0.3,
    },
    "blocks": {"walk.block": 64, "walk.crf.bilateral_sxy": 2, "walk.crf.gaussian_sxy": 1},
}


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_tune_and_page_decide_as_the_stage_does(
    toy: Path, tiny_recipe: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    out = tmp_path / "run"
    fast = {"classifier.steps": 2, "affinity.epochs": 1}
    run = an.run(
        an.Recipe.load(tiny_recipe, data=toy, out=out, **fast, **changes), until="propagate"
    )
    walk, viewed = run.context.walk, Viewed(out)
    decider = Decider(viewed)
    shown = set()
    for index, sample in enumerate(viewed.samples):
        if not viewed.has_affinities(sample):
            continue
        made = read_labels(out / "pseudo" / f"{sample.id}.png")
        shown.update(np.unique(made).tolist())
        case = load_case(run.recipe, run.manifest, sample)
        np.testing.assert_array_equal(in_data_set(case, decide(case, walk).mask), made)
        own = decider.decide(index, run.recipe.walk, draft=False)
        np.testing.assert_array_equal(own, made)
    assert len(shown) > 1


def test_walks_are_told_apart_by_all_that_their_scores_depend_on() -> None:
    # What comes after the scores: guard, CRF and what is kept.
    after = {"refine", "guard", "keep", "precision", "crf", "block"}
    assert set(WalkSettings.model_fields) - after == set(SCORED)
    assert score_key(WalkSettings()) != score_key(WalkSettings(method="restart"))


@pytest.mark.parametrize(
    ("own", "unread"),
    [
        ({}, {"background_score": 0.9, "restart": 0.9}),
        ({"background": "constant"}, {"alpha": 99.0}),
        ({"method": "restart"}, {"steps": 3}),
    ],
)
def test_what_a_walk_does_not_read_tells_none_apart(
    own: dict[str, Any], unread: dict[str, Any]
) -> None:
    walk = WalkSettings(**own)
    for name, value in unread.items():
        other = walk.model_copy(update={name: value})
        assert score_key(other) == score_key(walk)
        switched = {"background": "relative"} if name == "background_score" else {}
        switched |= {"background": "alpha"} if name == "alpha" else {}
        switched |= {"method": "restart" if name == "restart" else "power"}
        both = [one.model_copy(update=switched) for one in (walk, other)]
        assert score_key(both[0]) != score_key(both[1])
