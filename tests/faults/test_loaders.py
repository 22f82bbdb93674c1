"""A process that loads images is ended from outside, or left by the one it hands batches to."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import reduction
from multiprocessing.resource_sharer import _ResourceSharer
from pathlib import Path
from typing import Any

import pytest
import torch

from affinitynet import loading as loading_module
from affinitynet.errors import UserError
from affinitynet.loading import Order, loading

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")


ROOT = Path(__file__).parents[2]


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
        next(batches), next(batches)  # one of each
        os.kill(multiprocessing.active_children()[0].pid or 0, number)
        for _ in batches:
            pass


# Of a temporary file of torch's, in whose opening its own error may come.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGBUS"])
def test_a_loader_that_is_ended_is_one_line(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        UserError, match=r"train: a process that loads images was ended .*--workers"
    ):
        go_on_without(getattr(signal, name))
    assert not multiprocessing.active_children()
    capfd.readouterr()  # what torch says of it


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loader_that_died_with_torchs_event_locked_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    begun, start = [], loading_module._start
    monkeypatch.setattr(
        loading_module, "_start", lambda *words: begun.append(start(*words)) or begun[-1]
    )

    def go_on() -> None:
        order = Order(4, 2, 0, range(200), lambda epoch: 2)
        with loading("train", Numbers(), order, 2, torch.device("cpu")) as batches:
            next(batches)
            lock.append(begun[0]._workers_done_event._cond)
            lock[0].acquire()  # as the one that dies has it
            late.start()
            os.kill(begun[0]._workers[0].pid, signal.SIGKILL)
            for _ in batches:
                pass

    lock: list[Any] = []
    late = threading.Timer(20, lambda: lock.pop().release())
    with pytest.raises(UserError, match=r"a process that loads images was ended"):
        go_on()
    assert lock  # nobody had to wait for it
    late.cancel()
    assert not multiprocessing.active_children()
    capfd.readouterr()


def test_sigterm_is_for_the_one_that_is_handed_batches() -> None:
    """SLURM sends it to all processes of a step, systemd to all of a service."""
    go_on_without(signal.SIGTERM)
    assert not multiprocessing.active_children()


def test_a_hand_over_that_ctrl_c_breaks_off_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    connect, hand = _ResourceSharer.get_connection, reduction.send_handle

    def hang_up(ident: object) -> None:
        """As Ctrl-C does between asking for a batch's memory and getting it."""
        connect(ident).close()
        time.sleep(0.3)  # the other one is still there when it has nobody to send to
        raise KeyboardInterrupt

    def hand_late(*words: object) -> None:
        time.sleep(0.1)
        hand(*words)

    monkeypatch.setattr(reduction, "send_handle", hand_late)  # where it is loaded: a fork has this
    monkeypatch.setattr(_ResourceSharer, "get_connection", staticmethod(hang_up))
    order = Order(4, 2, 0, range(200), lambda epoch: 2)
    with (
        pytest.raises(KeyboardInterrupt),
        loading("train", Numbers(), order, 2, torch.device("cpu")) as batches,
    ):
        next(batches)
    assert not multiprocessing.active_children()
    assert capfd.readouterr().err == ""


# The usual two, on one core.
ONE_CORE = """
import os, torch
from tests.faults.test_loaders import Numbers
from affinitynet.loading import Order, loading
os.sched_getaffinity, os.cpu_count = lambda process: {0}, lambda: 1
order = Order(4, 2, 0, range(1), lambda epoch: 2)
with loading("train", Numbers(), order, 2, torch.device("cpu")) as batches:
    print(len(list(batches)))
"""


def test_more_processes_than_cores_are_no_warning() -> None:
    """In a program of its own, as pytest has filters of its own."""
    command = [sys.executable, "-c", ONE_CORE]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("2\n", "")
