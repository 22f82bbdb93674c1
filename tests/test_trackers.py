"""Trackers are told the losses of each training step, and change no weight."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.tracking import GeneralTracker
from torch import Tensor, nn

import affinitynet as an
from affinitynet.errors import UserError
from affinitynet.hardware import Hardware
from affinitynet.run_folder.history import HISTORY
from affinitynet.run_folder.settings import TrainingSettings
from affinitynet.run_folder.tables import read_table
from affinitynet.training import fit


class Told(GeneralTracker):
    """A tracker that keeps what it is told."""

    name = "told"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, dict[str, float]]] = []
        self.ended = False

    @property
    def tracker(self) -> list[Any]:
        return self.found

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        raise AssertionError("nothing was to be stored")

    def log(self, values: dict[str, float], step: int | None, **more: Any) -> None:
        assert step is not None
        self.found.append((step, values))

    def finish(self) -> None:
        self.ended = True


class Points:
    epoch = 0

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((2,), float(index))


def train(folder: Path, *trackers: Any) -> Tensor:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    fit(
        "train_classifier",
        model,
        Points(),
        lambda net, batch: {"loss": net(batch).square().mean()},
        TrainingSettings(epochs=2, batch_size=2, learning_rate=0.01),
        folder=folder / "classifier",
        seed=0,
        hardware=Hardware("cpu", "float32", 0),
        trackers=trackers,
    )
    return model.weight.detach()


def test_a_tracker_is_told_each_step(tmp_path: Path) -> None:
    tracker = Told()
    weight = train(tmp_path / "told", tracker)
    assert [step for step, _ in tracker.found] == list(range(6))
    assert all(values.keys() == {"loss", "learning_rate"} for _, values in tracker.found)
    assert tracker.ended
    assert torch.equal(weight, train(tmp_path / "untold"))


def test_a_tracker_that_is_not_installed_is_said_before_the_run(
    toy: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("affinitynet.preflight.find_spec", lambda name: None)
    recipe = an.Recipe.load(tiny_recipe, data=toy, out=tmp_path / "run", trackers=["aim"])
    with pytest.raises(UserError, match="trackers: aim is not installed; pip install aim"):
        an.run(recipe)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorBoard's own imports
def test_tensorboard_reads_what_a_run_told_it(toy: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = an.Recipe.load(tiny_recipe, data=toy, out=tmp_path / "run", trackers=["tensorboard"])
    an.run(recipe, until="train_classifier")
    events = EventAccumulator(str(tmp_path / "run" / "logs" / "train_classifier"))
    events.Reload()
    steps = read_table(tmp_path / "run" / "classifier" / HISTORY)  # five digits of each
    for key in ("loss", "learning_rate"):
        told = events.Scalars(key)
        assert [event.step + 1 for event in told] == steps["step"]
        assert [event.value for event in told] == pytest.approx(steps[key], rel=1e-4)
