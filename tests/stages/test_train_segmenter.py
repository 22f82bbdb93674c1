"""What the segmenter's training makes of small objects and rare classes."""

from pathlib import Path

import numpy as np
import pytest

import affinitynet as an
from affinitynet.data import read_labels


@pytest.mark.parametrize("loss", ["dice", "lovasz"])
def test_a_run_with_all_settings_for_small_objects(
    toy: Path, tiny_recipe: Path, tmp_path: Path, loss: str
) -> None:
    out = tmp_path / "run"
    settings = {
        "segmenter.loss": loss,
        "segmenter.class_weights": "root",
        "segmenter.crops": "objects",
        "segmenter.balance": True,
        "segmenter.norm": "trained",
        "pseudo.source": f"files:{toy / 'masks'}",
    }
    recipe = an.Recipe.load(tiny_recipe, data=toy, out=out, **settings)
    figures = an.run(recipe, until="train_segmenter").metrics("train_segmenter")
    assert figures["loss"] == pytest.approx(figures["entropy"] + figures[loss], rel=1e-5)

    counts: dict[int, int] = {}
    for file in (out / "pseudo").glob("*.png"):
        for label, count in zip(*np.unique(read_labels(file), return_counts=True), strict=True):
            counts[int(label)] = counts.get(int(label), 0) + int(count)
    weights = list(figures["class_weights"].values())
    pixels = sum(counts.get(label, 0) for label in range(len(weights)))
    expected = [
        min(10.0, max(1.0, (0.1 * pixels / counts[label]) ** 0.5)) if label in counts else 1.0
        for label in range(len(weights))
    ]
    assert weights == pytest.approx(expected, rel=1e-5)
    assert next(iter(figures["class_weights"])) == "background"
