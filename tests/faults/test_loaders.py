"""A process that loads images is ended from outside, as the system does where memory is full."""

import multiprocessing
import os
import signal
import sys

import pytest
import torch

from affinitynet.errors import UserError
from affinitynet.loading import Order, loading

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")


class Numbers:
    epoch = 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(index)


def go_on_without(number: int) -> None:
    """Take batches after one of the processes that load them was sent a signal."""
    order = Order(4, 2, 0, range(200), lambda epoch: 2)
    with loading("train", Numbers(), order, 2, torch.device("cpu")) as batches:
        next(batches)
        os.kill(multiprocessing.active_children()[0].pid or 0, number)
        for _ in batches:
            pass


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGBUS"])
def test_a_loader_that_is_ended_is_one_line(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        UserError, match=r"train: a process that loads images was ended .*--workers"
    ):
        go_on_without(getattr(signal, name))
    assert not multiprocessing.active_children()
    capfd.readouterr()  # what torch says of it
