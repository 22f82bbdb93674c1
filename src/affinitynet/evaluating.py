"""Masks held against ground truth: a run's own, or those of any folder."""

from pathlib import Path
from typing import Any

from affinitynet.errors import UserError
from affinitynet.pipeline import Run


def evaluate_run(
    opened: Run | str | Path, masks: str | Path | None = None, split: str | None = None
) -> list[dict[str, Any]]:
    """Measure a run's masks, or any folder of masks, against ground truth; returns rows.

    masks: a folder of mask PNGs by image name; None measures the run's own (`Run.evaluate`).
    split: that `masks` are measured on; None takes the recipe's split for figures.

    Raises:
        UserError: no run, unknown split, no ground truth, masks that don't fit, or a split without
            `masks`: a run's own are measured on its splits.
    """
    opened = opened if isinstance(opened, Run) else Run.open(opened)
    if masks is None and split:
        raise UserError(
            f"--split {split}: goes with --masks; a run's own are measured on its splits"
        )
    if masks is None:
        return opened.evaluate()
    from affinitynet.stages.evaluate import measure_folder

    dataset = opened.recipe.dataset
    name = split or dataset.figures or dataset.train
    return [measure_folder(opened.manifest, name, Path(masks))]
