"""What can go wrong in a training: diverged weights, bad images, a full disk, old checkpoints."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.models.saved import load_weights_into, save_model
from affinitynet.run_folder.settings import TrainingSettings
from affinitynet.training import CHECKPOINT, Hardware, fit


class Noise:
    """Eight random points a batch norm can learn from; one may be unreadable."""

    def __init__(self, length: int = 8, broken: int | None = None) -> None:
        self.epoch, self.length, self.broken = 0, length, broken

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        if index == self.broken:
            raise UserError(f"image {index} can't be read")
        return torch.randn(3, generator=torch.Generator().manual_seed(100 * self.epoch + index))


def train(folder: Path, data: Noise | None = None, workers: int = 0, **changes: Any) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    fit(
        "train",
        model,
        data or Noise(),
        changes.pop("losses", lambda model, batch: {"loss": model(batch).square().mean()}),
        TrainingSettings(**{"epochs": 2, "batch_size": 4, **changes}),
        folder=folder,
        seed=3,
        hardware=Hardware("cpu", workers=workers),
    )
    return model


@pytest.mark.parametrize("workers", [1, 2])
def test_loading_processes_change_no_byte(tmp_path: Path, workers: int) -> None:
    for name, count in (("none", 0), ("some", workers)):
        save_model(tmp_path / name, train(tmp_path / name, workers=count), {})
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("none", "some")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_clean_line(tmp_path: Path, workers: int) -> None:
    with pytest.raises(UserError) as caught:
        train(tmp_path, Noise(broken=5), workers)
    assert str(caught.value) == "image 5 can't be read"


def test_weights_that_are_not_finite_are_refused_and_not_kept(tmp_path: Path) -> None:
    """The loss of the last step is finite: it was measured before the step."""

    def exploding(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        weight = model.get_parameter("3.weight")
        return {"loss": (weight - weight.detach()).sum() * torch.finfo().max}

    with pytest.raises(UserError, match=r"weights are not finite in epoch 1; lower learning_rate"):
        train(tmp_path, batch_size=8, learning_rate=10.0, losses=exploding)
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("damage", [b"", b"PK" + b"0" * 5000, b"x" * 100])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / CHECKPOINT).write_bytes(damage)
    with pytest.raises(UserError, match=r"checkpoint\.pt: is no checkpoint .* delete it"):
        train(tmp_path)


def test_a_checkpoint_of_something_else_says_what_to_do(tmp_path: Path) -> None:
    for content in ({}, [1], {"model": {}, "optimizer": {}, "epochs": 1, "means": {}}):
        torch.save(content, tmp_path / CHECKPOINT)
        with pytest.raises(UserError, match="delete it"):
            train(tmp_path)


def test_a_batch_of_one_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train: .*batch_size 2 or more"):
        train(tmp_path, batch_size=1)
    with pytest.raises(UserError, match="as many training images"):
        train(tmp_path, Noise(1))


def full(*_: Any) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


class FullDisk:
    """A file that takes 100 bytes and no more."""

    left = 100

    def write(self, content: bytes) -> int:
        self.left -= len(content)
        return full() if self.left < 0 else len(content)


def test_a_full_disk_while_saving_is_a_users_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch makes of it, which is no system error, with a file that fills up."""
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda state, _: save(state, FullDisk()))
    with pytest.raises(UserError, match=r"checkpoint\.pt: cannot be written \(No space left"):
        train(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_saving_weights_is_a_users_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"weights\.safetensors: cannot be written"):
        save_model(tmp_path, nn.Linear(1, 1), {})


def test_saved_weights_come_back(tmp_path: Path) -> None:
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    save_model(tmp_path, one, {})
    load_weights_into(two, tmp_path, "train_x")
    assert torch.equal(one.weight, two.weight)
