"""Trainings over several processes that are linked by gloo take the steps of one."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from affinitynet.engine.linked import Team
from affinitynet.errors import UserError
from affinitynet.run_folder.history import HISTORY
from affinitynet.run_folder.records import CHECKPOINT

# A network with all that looks at a batch as a whole; a loss that is no mean over images; batches
# of 5 out of 11 images, which no two processes can halve.
CODE = """
import os, signal, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from torch import nn
from affinitynet.cli import report_error
from affinitynet.engine.shards import Helped
from affinitynet.engine.stopping import watch_termination
from affinitynet.hardware import Hardware
from affinitynet.run_folder.settings import TrainingSettings
from affinitynet.training import fit

class Noise:
    epoch = 0
    def __len__(self):
        return 11
    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(99 * self.epoch + index)
        return torch.randn(3, 6, 6, generator=generator)

own_rank = os.environ.get("RANK", "0")  # which a training hides
steps = 0
def loss(model, batch):
    global steps
    steps += 1
    out = model(batch)
    if own_rank == event_rank and steps == event_step:
        os.kill(os.getpid(), getattr(signal, event))
    return {"loss": (out.square().sum() / (out > 0).sum().clamp(min=1))}

folder, event, event_rank, event_step = sys.argv[1:]
folder, event_step = Path(folder), int(event_step)
torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.3), nn.Dropout(0.3),
    nn.Conv2d(4, 2, 3),
)
watch_termination()
settings = TrainingSettings(epochs=3, batch_size=5, learning_rate=0.05)
hardware = Hardware("cpu", "float32", 0)
try:
    fit("train", model, Noise(), loss, settings, folder=folder, seed=3, hardware=hardware)
    found = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(found, folder / "weights.safetensors")
except Helped:
    pass
except Exception as error:
    sys.exit(report_error(error))
"""


def start(folder: Path, ranks: int, event: str = "SIGCONT", rank: int = 0, step: int = 0) -> str:
    """Train in so many processes; one may send itself a signal. Return codes and messages."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for number in range(ranks):
        place = {"RANK": str(number), "WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    CODE,
                    str(folder),
                    event,
                    str(rank),
                    str(step),
                ],
                env={**os.environ, **place, **meeting},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate(timeout=200)[1] for process in processes]
    codes = [process.returncode for process in processes]
    return "\n".join(f"{code}: {text}" for code, text in zip(codes, said, strict=True))


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    assert start(folder, 1).startswith("0:")
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    said = start(folder, 2)
    assert said.count("0: ") == 2, said
    return folder


def check_same_training(one: Path, other: Path) -> None:
    """The losses agree to the 5 digits that the curve has, weights to 1e-5."""
    assert (one / HISTORY).read_text() == (other / HISTORY).read_text()
    found = load_file(other / "weights.safetensors")
    for name, value in load_file(one / "weights.safetensors").items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)


def test_two_processes_take_the_steps_of_one(one: Path, two: Path) -> None:
    check_same_training(one, two)


@pytest.mark.slow
def test_as_many_processes_end_with_the_same_bytes(two: Path, tmp_path: Path) -> None:
    start(tmp_path / "again", 2)
    assert weights(tmp_path / "again") == weights(two)
    first, second = tmp_path / "a", tmp_path / "b"
    start(first, 4)
    start(second, 4)
    assert weights(first) == weights(second)
    check_same_training(two, first)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 3])
def test_sigterm_saves_inside_the_epoch_and_a_rerun_goes_on(
    one: Path, two: Path, tmp_path: Path, step: int
) -> None:
    """One process hears it, both stop behind the same step, and the end has the same bytes."""
    said = start(tmp_path, 2, "SIGTERM", 1, step)
    assert said.count("75: ") == 2, said
    assert "stopped by SIGTERM" in said
    begun = torch.load(tmp_path / CHECKPOINT)
    assert (begun["epochs"], begun["step"]) == divmod(step, 2)
    start(tmp_path, 2)
    assert weights(tmp_path) == weights(two)
    # Begun by two, gone on with by one.
    other = tmp_path / "other"
    start(other, 2, "SIGTERM", 0, step)
    start(other, 1)
    check_same_training(one, other)


@pytest.mark.slow
def test_a_rank_that_dies_ends_all_and_a_rerun_goes_on(two: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    said = start(tmp_path, 2, "SIGKILL", 1, 4)
    assert time.monotonic() - began < 60
    assert f"{-signal.SIGKILL}: " in said
    assert "train: another process of this training has ended or does not answer" in said
    start(tmp_path, 2)
    assert weights(tmp_path) == weights(two)


def test_a_batch_is_cut_into_consecutive_parts() -> None:
    parts = [Team(index, 4).part(list(range(10))) for index in range(4)]
    assert parts == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]


def test_more_processes_than_images_of_a_batch_are_refused() -> None:
    with pytest.raises(UserError, match="train: a batch of 3 images can't be cut among 4 proc"):
        Team(0, 4).check_batch("train", 3)


def test_one_process_alone_changes_nothing() -> None:
    parameter = nn.Parameter(torch.ones(2))
    batch = [torch.ones(2), {"labels": torch.zeros(1)}]
    team = Team()
    team.add_gradients([parameter])
    assert parameter.grad is None
    assert team.whole(batch, 2) is batch
