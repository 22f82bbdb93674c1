"""Final masks: the segmenter's probabilities restricted to the tags, unless it unlearnt a class."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import affinitynet as an
from affinitynet.data import read_labels
from affinitynet.export import export_run
from affinitynet.ops.final_scores import restrict
from affinitynet.report import write_report
from affinitynet.run_folder.artifacts import PSEUDO
from affinitynet.stages import relabel
from affinitynet.stages.context import Context


@pytest.fixture(scope="module")
def relabelled(
    tmp_path_factory: pytest.TempPathFactory,
    toy: Path,
    tiny_text: str,
    finished: an.Run,
    begin: Callable[[an.Run, Path, str], None],
) -> an.Run:
    folder = tmp_path_factory.mktemp("relabelled")
    text = tiny_text + "relabel: {enabled: true, refine: false}\n"
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    begin(finished, folder / "run", "evaluate")
    return an.run(an.Recipe.load(folder / "tiny.yaml", data=toy, out=folder / "run"))


def test_every_training_image_has_a_final_mask_of_its_tags(relabelled: an.Run) -> None:
    assert [str(status) for status in relabelled.status()] == ["done"] * 8
    for sample in relabelled.manifest.split("train"):
        labels = read_labels(relabelled.recipe.out / "masks" / f"{sample.id}.png")
        assert set(np.unique(labels).tolist()) <= {0, *(tag + 1 for tag in sample.tags)}
    row = next(row for row in relabelled.figures() if row["stage"] == "masks")
    assert (row["tags_given"], row["crf"]) == (True, False)


def test_final_masks_are_what_is_shown_and_exported(relabelled: an.Run, tmp_path: Path) -> None:
    first = relabelled.manifest.split("train")[0].id
    out = export_run(relabelled.recipe.out, tmp_path / "out", format="png")
    final = relabelled.recipe.out / "masks" / f"{first}.png"
    assert (out / f"{first}.png").read_bytes() == final.read_bytes()
    page = write_report(relabelled.recipe.out).read_text(encoding="utf-8")
    assert f"Final mask of {first}" in page
    assert "IoU of the final mask" in page


def test_images_of_an_unlearnt_class_keep_their_pseudo_masks(
    relabelled: an.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = range(1, len(relabelled.manifest.classes) + 1)
    monkeypatch.setattr(relabel, "_judge", lambda *_: dict.fromkeys(classes, 0.1))
    an.run(relabelled.recipe, until="relabel", redo="relabel")
    for sample in relabelled.manifest.split("train"):
        names = (
            relabelled.recipe.out / folder / f"{sample.id}.png" for folder in ("masks", "pseudo")
        )
        masks, pseudo = (read_labels(name) for name in names)
        if sample.tags:
            np.testing.assert_array_equal(masks, pseudo)
    warnings = relabelled.metrics("relabel")["warnings"]
    assert "keep their pseudo masks" in warnings[0]


def test_images_of_a_failed_class_keep_their_pseudo_masks(
    relabelled: an.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segmenter never saw a label of it, and would say background."""
    failed = relabelled.manifest.split("train")[0].tags[0]
    classes = range(1, len(relabelled.manifest.classes) + 1)
    monkeypatch.setattr(relabel, "_judge", lambda *_: dict.fromkeys(classes, 1.0))
    monkeypatch.setattr(Context, "failed", (failed,))
    an.run(relabelled.recipe, until="relabel", redo="relabel")
    differing = 0
    for sample in relabelled.manifest.split("train"):
        masks, pseudo = (
            read_labels(relabelled.recipe.out / folder / f"{sample.id}.png")
            for folder in ("masks", "pseudo")
        )
        if failed in sample.tags:
            np.testing.assert_array_equal(masks, pseudo)
        else:
            differing += not np.array_equal(masks, pseudo)
    assert differing
    counted = {row["class"] for row in relabelled.metrics("relabel")["empty"]["classes"]}
    assert counted
    assert relabelled.manifest.classes[failed] not in counted


def test_the_judge_counts_images_that_lose_a_class(
    relabelled: an.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segmenter that says background everywhere finds no class that the labels have."""
    context = relabelled.context
    nothing = torch.cat([torch.ones(1, 64, 64), torch.zeros(4, 64, 64)])

    def compute(sample: an.Sample, image: torch.Tensor) -> relabel.Scored:
        return relabel.Scored(image, restrict(nothing, sample.tags))

    found = relabel._judge(context, "relabel", context.samples("train"), compute, PSEUDO)
    assert set(found.values()) <= {0.0}


def test_at_high_odds_the_masks_that_taught_stay(relabelled: an.Run) -> None:
    settings = relabelled.recipe.relabel.model_copy(update={"odds": 1000.0})
    recipe = relabelled.recipe.model_copy(update={"relabel": settings})
    an.run(recipe, until="relabel", redo="relabel")
    for sample in relabelled.manifest.split("train"):
        masks, pseudo = (
            read_labels(recipe.out / folder / f"{sample.id}.png") for folder in ("masks", "pseudo")
        )
        known = pseudo != relabelled.manifest.ignore_index
        assert np.mean(masks[known] == pseudo[known]) > 0.95
