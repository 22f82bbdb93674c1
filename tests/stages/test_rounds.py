"""Rounds: each further training of the segmenter learns from the masks of the one before."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import affinitynet as an
from affinitynet.data import read_labels
from affinitynet.data.corrections import write_correction
from affinitynet.errors import UserError
from affinitynet.ops.segmentation_loss import clamp_to_patches
from affinitynet.run_folder.stages import stages_of
from affinitynet.stages import relabel
from affinitynet.training import move_average

Begin = Callable[[an.Run, Path, str], None]

ROUNDS = {"relabel.enabled": True, "relabel.rounds": 2, "segmenter.start": "backbone"}
AGAINST_NOISE = {
    "relabel.confidence": 0.3,
    "relabel.agreement": True,
    "segmenter.scales": [0.75, 1.0],
    "segmenter.ema": 0.5,
    "segmenter.clamp": 10.0,
}


def test_the_last_round_has_the_folders_that_people_use() -> None:
    recipe = an.Recipe.model_validate({"relabel": {"enabled": True, "rounds": 3}})
    stages = {stage.name: stage for stage in stages_of(recipe)}
    made = {name: [a.folder for a in stage.artifacts] for name, stage in stages.items()}
    assert list(made)[-7:] == [
        "train_segmenter_1",
        "relabel_1",
        "train_segmenter_2",
        "relabel_2",
        "train_segmenter",
        "relabel",
        "evaluate",
    ]
    assert made["train_segmenter_2"] == ["segmenter_2", "predictions_2"]
    assert made["relabel_2"] == ["masks_2", "uncorrected_2"]
    assert made["relabel"] == ["masks", "uncorrected"]
    assert stages["train_segmenter"].reads[0] == "relabel_2"
    assert stages["train_segmenter_1"].reads[0] == "propagate"
    assert stages["relabel_2"].work == "relabel"
    assert stages["evaluate"].work == "evaluate"


def test_what_rounds_cannot_do_is_refused_in_one_line(tiny_recipe: Path) -> None:
    with pytest.raises(UserError, match=r"set relabel\.enabled = true"):
        an.Recipe.load(tiny_recipe, **{"relabel.rounds": 2})
    with pytest.raises(UserError, match=r"give segmenter\.scales two or more"):
        an.Recipe.load(tiny_recipe, **{"relabel.agreement": True})


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory,
    toy: Path,
    tiny_text: str,
    finished: an.Run,
    begin: Begin,
) -> an.Run:
    folder = tmp_path_factory.mktemp("rounds")
    begin(finished, folder / "run", "train_segmenter")
    (folder / "tiny.yaml").write_text(tiny_text, encoding="utf-8")
    recipe = an.Recipe.load(folder / "tiny.yaml", data=toy, out=folder / "run", **ROUNDS)
    with pytest.MonkeyPatch.context() as patch:
        # So short a training unlearns all classes; its masks are to be its own all the same.
        patch.setattr(relabel, "_judge", lambda *_: {})
        return an.run(recipe)


def test_a_second_round_is_a_training_on_the_masks_of_the_first(
    plain: an.Run, tiny_recipe: Path, toy: Path, tmp_path: Path
) -> None:
    root = plain.recipe.out
    assert {str(status) for status in plain.status()} == {"done"}
    alone = an.Recipe.load(
        tiny_recipe,
        data=toy,
        out=tmp_path / "alone",
        **{"pseudo.source": f"files:{root / 'masks_1'}", "segmenter.start": "backbone"},
    )
    an.run(alone, until="train_segmenter")
    weights = "segmenter/weights.safetensors"
    assert (root / weights).read_bytes() == (tmp_path / "alone" / weights).read_bytes()
    first = root / "segmenter_1/weights.safetensors"
    assert first.read_bytes() != (root / weights).read_bytes()


def test_each_round_is_measured_and_the_last_is_predicted_with(plain: an.Run) -> None:
    rows = [row["stage"] for row in plain.figures() if row["split"] == "train"]
    assert rows[-2:] == ["masks_1", "masks"]
    assert {"segmenter_1", "segmenter"} <= {row["stage"] for row in plain.figures()}
    assert {"segmenter", "segmenter_1"} <= set(plain.history)
    an.Segmenter.load(plain.recipe.out / "segmenter_1")


def test_more_rounds_go_on_behind_those_there_are(plain: an.Run) -> None:
    """Only the last, whose folder becomes another one's, is out of date."""
    relabel = plain.recipe.relabel.model_copy(update={"rounds": 3})
    more = an.Run(plain.recipe.model_copy(update={"relabel": relabel}))
    states = {status.name: status.state for status in more.status()}
    assert states["relabel_1"] == "done"
    assert states["train_segmenter_2"] == "to do"
    assert states["train_segmenter"] == "stale"


def test_uncertain_pixels_do_not_teach(
    tiny_recipe: Path, toy: Path, tmp_path: Path, plain: an.Run, finished: an.Run, begin: Begin
) -> None:
    begin(finished, tmp_path / "run", "train_segmenter")
    recipe = an.Recipe.load(tiny_recipe, data=toy, out=tmp_path / "run", **ROUNDS | AGAINST_NOISE)
    run = an.run(recipe, until="relabel_1")
    sample = run.manifest.split("train")[0]
    drawn = np.full(read_labels(tmp_path / "run/pseudo" / f"{sample.id}.png").shape, 255, np.uint8)
    drawn[:10] = 1
    left_out = 0
    for each in run.manifest.split("train"):
        masks = read_labels(recipe.out / "masks_1" / f"{each.id}.png")
        certain = read_labels(recipe.out / "certain_1" / f"{each.id}.png")
        assert (masks != 255).all()
        np.testing.assert_array_equal(certain[certain != 255], masks[certain != 255])
        left_out += int((certain == 255).sum())
    assert left_out > 0
    run = an.run(recipe)
    assert {str(status) for status in run.status()} == {"done"}
    row = next(row for row in run.figures() if row["stage"] == "certain_1")
    assert 0 < row["coverage"] < 1
    # The average of the weights is another network than the last ones.
    names = "segmenter_1/weights.safetensors"
    assert (recipe.out / names).read_bytes() != (plain.recipe.out / names).read_bytes()
    # Settings of no effect on the last round don't make it again.
    write_correction(recipe.out, run.manifest, sample, drawn)
    states = {status.name: status.state for status in run.status()}
    assert (states["propagate"], states["train_segmenter_1"]) == ("done", "stale")


def test_the_average_of_weights_by_hand() -> None:
    weights = [torch.tensor([float(n)]) for n in (4, 8, 2)]
    average: dict[str, Tensor] = {}
    for step, value in enumerate(weights):
        move_average(average, {"w": value, "count": torch.tensor(step)}, step, 0.2)
    second = 2 / 11 * 4 + 9 / 11 * 8  # the first steps have less than the decay asked for
    assert average["w"].item() == pytest.approx(0.2 * second + 0.8 * 2, rel=1e-6)
    assert average["count"].item() == 2


def test_clamped_losses_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(2, 7, 10, generator=generator)
    losses[0, 1, 1] = losses[1, 6, 9] = 30.0
    labelled = torch.rand(2, 7, 10, generator=generator) > 0.3
    labelled[0, 1, 1] = labelled[1, 6, 9] = True
    labelled[1, :4, :4] = False  # a patch of which nothing is known
    mean = losses[labelled].mean()
    expected = losses.clone()
    for b in range(2):
        for y in range(7):
            for x in range(10):
                rows = slice(y // 4 * 4, y // 4 * 4 + 4)
                columns = slice(x // 4 * 4, x // 4 * 4 + 4)
                known = losses[b, rows, columns][labelled[b, rows, columns]]
                around = known.mean() if len(known) else torch.tensor(0.0)
                expected[b, y, x] = min(losses[b, y, x], max(around, mean))
    found = clamp_to_patches(losses, labelled, start=2.0, patch=4)
    torch.testing.assert_close(found, expected)
    assert found[0, 1, 1] < 30
    # A network that knows nothing yet is not clamped.
    torch.testing.assert_close(clamp_to_patches(losses, labelled, start=0.1, patch=4), losses)


def test_clamped_pixels_have_no_gradient() -> None:
    losses = torch.full((1, 4, 4), 0.1)
    losses[0, 0, 0] = 5.0
    losses.requires_grad_()
    clamp_to_patches(losses, torch.ones(1, 4, 4, dtype=torch.bool), start=2.0).sum().backward()
    assert losses.grad is not None
    assert losses.grad[0, 0, 0] == 0
    assert (losses.grad.flatten()[1:] == 1).all()
