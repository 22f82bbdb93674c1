"""What can go wrong in a training: diverged weights, bad images, a full disk, old checkpoints."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import save
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.hardware import Hardware
from affinitynet.run_folder.records import CHECKPOINT
from affinitynet.run_folder.settings import TrainingSettings
from affinitynet.training import fit


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


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))


def square(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    return {"loss": model(batch).square().mean()}


def train(
    folder: Path,
    data: Noise | None = None,
    workers: int = 0,
    *,
    model: nn.Module | None = None,
    precision: str = "float32",
    losses: Callable[[nn.Module, Tensor], dict[str, Tensor]] = square,
    **changes: Any,
) -> nn.Module:
    model = model or network()
    fit(
        "train",
        model,
        data or Noise(),
        losses,
        TrainingSettings(**{"epochs": 2, "batch_size": 4, **changes}),
        folder=folder,
        seed=3,
        hardware=Hardware("cpu", precision, workers),
    )
    return model


def weights(model: nn.Module) -> bytes:
    return save(model.state_dict())


@pytest.mark.parametrize("workers", [1, 2])
def test_loading_processes_change_no_byte(tmp_path: Path, workers: int) -> None:
    alone, others = train(tmp_path / "a"), train(tmp_path / "b", workers=workers)
    assert weights(alone) == weights(others)


# One process: what it trained before and its environment change nothing.


def test_two_precisions_in_one_process(tmp_path: Path) -> None:
    """Each as if it were alone: the second float32 training ends as the first."""
    seen: list[torch.dtype] = []

    def watched(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        seen.append(model.get_submodule("0")(batch).dtype)
        return square(model, batch)

    trained = {
        name: train(tmp_path / name, precision=precision, losses=watched)
        for name, precision in (("a", "float32"), ("b", "bf16"), ("c", "float32"))
    }
    assert seen == 4 * [torch.float32] + 4 * [torch.bfloat16] + 4 * [torch.float32]
    assert weights(trained["a"]) == weights(trained["c"]) != weights(trained["b"])


def test_a_network_trained_in_bf16_is_its_own_again(tmp_path: Path) -> None:
    """Its forward is no longer in bf16, and it can be trained on in another precision."""
    model = train(tmp_path / "a", precision="bf16")
    batch = torch.randn(2, 3)
    assert torch.equal(model(batch), nn.Sequential.forward(model, batch))
    copy = network()
    copy.load_state_dict(model.state_dict())
    train(tmp_path / "b", model=model)
    train(tmp_path / "c", model=copy)
    assert weights(model) == weights(copy)


def test_a_training_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    model, before = network(), train(tmp_path / "a")
    environment = dict(os.environ)
    with pytest.raises(UserError, match="can't be read"):
        train(tmp_path / "b", Noise(broken=5), model=model, precision="bf16")
    assert dict(os.environ) == environment
    assert model(torch.zeros(2, 3)).dtype == torch.float32
    assert weights(train(tmp_path / "c")) == weights(before)


def test_an_accelerator_of_the_users_lives_on(tmp_path: Path) -> None:
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    try:
        train(tmp_path)
        assert accelerator.mixed_precision == Accelerator().mixed_precision == "bf16"
        assert accelerator.device == torch.device("cpu")
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


# Where accelerate sees them, the first changes the weights and the next five stop the training;
# the others it reads too.
SETTINGS = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_USE_MEGATRON_LM": "true",
    "ACCELERATE_USE_CPU": "maybe",
    "ACCELERATE_DEBUG_MODE": "maybe",
    "ACCELERATE_TORCH_DEVICE": "meta",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DYNAMO_BACKEND": "EAGER",
    "ACCELERATE_SPLIT_BATCHES": "true",
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_OFFLOAD_PARAMS": "true",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
    "PARALLELISM_CONFIG_TP_SIZE": "2",
}


@pytest.mark.parametrize("names", [list(SETTINGS)[:1], list(SETTINGS)[6:], list(SETTINGS)])
def test_accelerates_variables_change_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    plain = train(tmp_path / "plain")
    for name in names:
        monkeypatch.setenv(name, SETTINGS[name])
    environment = dict(os.environ)
    assert weights(train(tmp_path / "set")) == weights(plain)
    assert dict(os.environ) == environment


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
    with pytest.raises(UserError, match=r"checkpoint\.pt: can't be written \(No space left"):
        train(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["history.csv"]
