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


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGBUS"])
def test_a_loader_that_is_ended_is_one_line(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    order = Order(4, 2, 0, range(200), lambda epoch: 2)
    device = torch.device("cpu")
    with (
        pytest.raises(UserError, match=r"train: a process that loads images was ended .*--workers"),
        loading("train", Numbers(), order, 2, device) as batches,
    ):
        next(batches)
        os.kill(multiprocessing.active_children()[0].pid or 0, getattr(signal, name))
        for _ in batches:
            pass
    assert not multiprocessing.active_children()
    capfd.readouterr()  # what torch says of it
