"""A run of an earlier version, which did not know all settings of this one, goes on."""

import json
from pathlib import Path

import pytest

import affinitynet as an
from affinitynet.pipeline import Run
from affinitynet.run_folder.folder import fingerprint


def forget(home: Path, *settings: str) -> None:
    """Rewrite the records of a run as a version without these settings would have written them."""
    run = Run.open(home / "run")
    renamed: dict[str, str] = {}
    for stage in run.stages:
        for file in ("plan.json", "stage.json"):
            path = home / "run" / stage.folder / file
            record = json.loads(path.read_text())
            kept = {k: v for k, v in record["settings"].items() if k not in settings}
            kept = {k: renamed.get(str(v), v) for k, v in kept.items()}
            record["settings"], old = kept, record["fingerprint"]
            record["fingerprint"] = fingerprint([stage.name, kept])
            path.write_text(json.dumps(record))
        renamed[old] = record["fingerprint"]


def states(home: Path, **changes: object) -> dict[str, str]:
    recipe = an.Recipe.load(
        home / "tiny.yaml", **{"data": home / "data", "out": home / "run"} | changes
    )
    return {status.name: str(status) for status in Run.create(recipe).status(verify=True)}


@pytest.mark.parametrize(
    "settings",
    [
        ("classifier.pooling",),
        ("walk.guard", "relabel.crf.bilateral_sxy"),
        ("segmenter.loss", "segmenter.crops", "classifier.warmup", "affinity.scale"),
    ],
)
def test_a_setting_that_came_in_later_makes_nothing_stale(
    home: Path, settings: tuple[str, ...]
) -> None:
    forget(home, *settings)
    assert set(states(home).values()) == {"done"}
    assert {str(state) for state in Run.open(home / "run").status()} == {"done"}


def test_it_does_where_it_is_set(home: Path) -> None:
    forget(home, "classifier.pooling")
    found = states(home, **{"classifier.pooling": "top"})
    assert found["train_classifier"] == 'stale (classifier.pooling was null, is "top")'
    assert found["compute_cams"] == "stale (an earlier stage changed)"


def test_a_setting_that_was_known_counts_at_its_default_too(home: Path) -> None:
    found = states(home, **{"classifier.crop": 448})
    assert found["train_classifier"].startswith("stale (classifier.crop was 64")
