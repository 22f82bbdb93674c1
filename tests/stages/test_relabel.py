"""Final masks: the segmenter's probabilities restricted to the tags, unless it unlearnt a class."""

from pathlib import Path

import numpy as np
import pytest
import torch

import affinitynet as an
from affinitynet.data import read_labels
from affinitynet.export import export_run
from affinitynet.report import write_report
from affinitynet.run_folder.artifacts import PSEUDO
from affinitynet.stages import relabel
from affinitynet.stages.context import Context
from affinitynet.stages.relabel import restrict


def test_only_tags_and_background_are_left_and_sum_to_one() -> None:
    probabilities = torch.rand(5, 3, 4).softmax(0)
    kept = restrict(probabilities, (0, 3))
    assert kept.shape == (3, 3, 4)
    torch.testing.assert_close(kept.sum(0), torch.ones(3, 4))
    torch.testing.assert_close(kept[1] / kept[0], probabilities[1] / probabilities[0])
    torch.testing.assert_close(kept[2] / kept[1], probabilities[4] / probabilities[1])
    torch.testing.assert_close(restrict(probabilities, ()), torch.ones(1, 3, 4))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, toy: Path, tiny_text: str) -> an.Run:
    folder = tmp_path_factory.mktemp("relabelled")
    text = tiny_text + "relabel: {enabled: true, refine: false}\n"
    (folder / "tiny.yaml").write_text(text, encoding="utf-8")
    return an.run(an.Recipe.load(folder / "tiny.yaml", data=toy, out=folder / "run"))


def test_every_training_image_has_a_final_mask_of_its_tags(finished: an.Run) -> None:
    assert [str(status) for status in finished.status()] == ["done"] * 8
    for sample in finished.manifest.split("train"):
        labels = read_labels(finished.recipe.out / "masks" / f"{sample.id}.png")
        assert set(np.unique(labels).tolist()) <= {0, *(tag + 1 for tag in sample.tags)}
    row = next(row for row in finished.figures() if row["stage"] == "masks")
    assert (row["tags_given"], row["crf"]) == (True, False)


def test_final_masks_are_what_is_shown_and_exported(finished: an.Run, tmp_path: Path) -> None:
    first = finished.manifest.split("train")[0].id
    out = export_run(finished.recipe.out, tmp_path / "out", format="png")
    final = finished.recipe.out / "masks" / f"{first}.png"
    assert (out / f"{first}.png").read_bytes() == final.read_bytes()
    page = write_report(finished.recipe.out).read_text(encoding="utf-8")
    assert f"Final mask of {first}" in page
    assert "IoU of the final mask" in page


def test_images_of_an_unlearnt_class_keep_their_pseudo_masks(
    finished: an.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = range(1, len(finished.manifest.classes) + 1)
    monkeypatch.setattr(relabel, "_judge", lambda *_: dict.fromkeys(classes, 0.1))
    an.run(finished.recipe, until="relabel", redo="relabel")
    for sample in finished.manifest.split("train"):
        names = (
            finished.recipe.out / folder / f"{sample.id}.png" for folder in ("masks", "pseudo")
        )
        masks, pseudo = (read_labels(name) for name in names)
        if sample.tags:
            np.testing.assert_array_equal(masks, pseudo)
    warnings = finished.metrics("relabel")["warnings"]
    assert "keep their pseudo masks" in warnings[0]


def test_images_of_a_failed_class_keep_their_pseudo_masks(
    finished: an.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segmenter never saw a label of it, and would say background."""
    failed = finished.manifest.split("train")[0].tags[0]
    classes = range(1, len(finished.manifest.classes) + 1)
    monkeypatch.setattr(relabel, "_judge", lambda *_: dict.fromkeys(classes, 1.0))
    monkeypatch.setattr(Context, "failed", (failed,))
    an.run(finished.recipe, until="relabel", redo="relabel")
    differing = 0
    for sample in finished.manifest.split("train"):
        masks, pseudo = (
            read_labels(finished.recipe.out / folder / f"{sample.id}.png")
            for folder in ("masks", "pseudo")
        )
        if failed in sample.tags:
            np.testing.assert_array_equal(masks, pseudo)
        else:
            differing += not np.array_equal(masks, pseudo)
    assert differing
    counted = {row["class"] for row in finished.metrics("relabel")["empty"]["classes"]}
    assert counted
    assert finished.manifest.classes[failed] not in counted


def test_the_judge_counts_images_that_lose_a_class(
    finished: an.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segmenter that says background everywhere finds no class that the labels have."""
    context = finished.context
    nothing = torch.cat([torch.ones(1, 64, 64), torch.zeros(4, 64, 64)])

    def compute(sample: an.Sample, image: torch.Tensor) -> relabel.Scored:
        return relabel.Scored(image, restrict(nothing, sample.tags))

    found = relabel._judge(context, context.samples("train"), compute, PSEUDO)
    assert set(found.values()) <= {0.0}
