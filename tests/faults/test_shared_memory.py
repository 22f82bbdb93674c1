"""Shared memory as containers have it: 64 MB, less, or none."""

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from affinitynet import loading
from affinitynet.errors import UserError
from affinitynet.loading import Order

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")

ROOT = Path(__file__).parents[2]
SIDE = 1200  # an image of 17 MB, a batch of 35


class Images:
    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, object]:
        pixels = torch.full((3, SIDE, SIDE), 10.0 * self.epoch + index)
        return {"image": pixels, "tags": (torch.ones(2, dtype=torch.bool), index), "id": str(index)}


@contextmanager
def batches(workers: int) -> Iterator[Iterator[dict[str, torch.Tensor]]]:
    order = Order(4, 2, 0, range(2), lambda epoch: 2)
    with loading.loading("train", Images(), order, workers, torch.device("cpu")) as given:
        yield given


def told() -> list[tuple[object, ...]]:
    """What is in the batches, in short."""
    found = []
    with batches(2) as given:
        for batch in given:
            image, (tags, number) = batch["image"], batch["tags"]
            assert image.shape == (2, 3, SIDE, SIDE)
            assert tags.all()
            found.append((*image.amax((1, 2, 3)).tolist(), *number.tolist(), *batch["id"]))
    return found


@pytest.mark.parametrize("megabytes", [0, 64, 100])
def test_batches_too_large_for_shared_memory_go_through_a_pipe(
    monkeypatch: pytest.MonkeyPatch, megabytes: int
) -> None:
    usual = told()
    room = namedtuple("room", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room(megabytes << 20))
    used: list[object] = []
    monkeypatch.setattr(loading, "default_collate", lambda samples: used.append(samples))
    with batches(2) as given:
        assert next(given) is None
    assert len(used) == 1, "collated where it is loaded"
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room(megabytes << 20))
    assert told() == usual


SMALL = """
set -e
mount -t tmpfs -o size=64m tmpfs /dev/shm
exec "$@"
"""


def test_a_container_of_64_megabytes_trains() -> None:
    """Where a namespace with a /dev/shm of its own can be made: as Docker's default."""
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SMALL, "sh"]
    if os.geteuid() == 0:
        words = [word for word in words if "user" not in word]
    try:
        possible = subprocess.run([*words, "true"], capture_output=True, check=False).returncode
    except FileNotFoundError:
        possible = 1
    if possible:
        pytest.skip("no namespace can be made here")
    code = "from tests.faults.test_shared_memory import told; print(len(told()))"
    command = [*words, sys.executable, "-W", "error", "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.stdout.strip() == "4", ended.stderr


@pytest.mark.parametrize("code", [12, 28, 38])  # ENOMEM, ENOSPC, ENOSYS
def test_no_room_for_processes_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(loading.DataLoader, "__iter__", refuse)
    with pytest.raises(UserError, match=r"train: no processes that load .*--workers 0"), batches(2):
        pass
