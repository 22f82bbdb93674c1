"""Ctrl-C ends a training at any moment: at once, with one line and exit code 130."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals of POSIX")

# SIGINT as a terminal leaves it: where the tests run in the background, it is ignored.
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from affinitynet.cli import main
main()
"""
SAID = "affinitynet: interrupted; give the same command again to continue"


class End(NamedTuple):
    code: int
    seconds: float
    lines: list[str]
    left: bool  # some process of the run is still there


@pytest.fixture
def interrupt(
    toy: Path, tiny_recipe: Path, tmp_path: Path, stays: Callable[[int], bool]
) -> Iterator[Callable[..., End]]:
    """Start a long training and press Ctrl-C, so many seconds after a line that says a word."""
    started: list[subprocess.Popen[str]] = []

    def begin(seconds: float, word: str = "steps of", times: int = 1) -> End:
        out = tmp_path / str(len(started))
        flags = ["--classifier.epochs", "100000", "--workers", "2", "--out", str(out)]
        words = ["run", str(tiny_recipe), "--data", str(toy), *flags]
        process = subprocess.Popen(
            [sys.executable, "-c", START, *words],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # a group of its own, to which a terminal would send Ctrl-C
        )
        started.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if word in line:
                break
        time.sleep(seconds)
        began = time.monotonic()
        for _ in range(times):
            os.killpg(process.pid, signal.SIGINT)
        lines = process.communicate(timeout=30)[1].splitlines()
        taken = time.monotonic() - began
        return End(process.returncode, taken, lines, stays(process.pid))

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def check(end: End) -> None:
    assert end.code == 130
    assert end.lines[-1:] == [SAID]
    assert not [line for line in end.lines if "Traceback" in line or "Exception" in line]
    # A second, and what a busy machine adds; torch left to itself takes five.
    assert end.seconds < 4.5
    assert not end.left


@pytest.fixture
def interrupt_again(
    template: Any, toy: Path, tiny_recipe: Path, tmp_path: Path, stays: Callable[[int], bool]
) -> Callable[..., End]:
    """As `interrupt`, of processes that have imported everything: in a tenth of the time."""
    said = tmp_path / "said"
    os.mkfifo(said)

    def begin(number: int, seconds: float, times: int = 1) -> End:
        out = tmp_path / f"again{number}"
        flags = ["--classifier.epochs", "100000", "--workers", "2", "--out", str(out)]
        words = ["run", str(tiny_recipe), "--data", str(toy), *flags]
        process = template.start(START, *words, said=said)
        with said.open() as lines:
            heard = []
            for line in lines:
                heard.append(line)
                if "steps of" in line:
                    break
            else:
                raise AssertionError(f"ended too early, {template.wait()}: {heard}")
            time.sleep(seconds)
            began = time.monotonic()
            for _ in range(times):
                os.killpg(process, signal.SIGINT)
            code = template.wait()
            taken = time.monotonic() - began
            return End(code, taken, lines.read().splitlines(), stays(process))

    return begin


@pytest.mark.parametrize("seconds", [0.0, 0.03, 0.3])
def test_ctrl_c_in_the_first_moments_of_a_training(
    interrupt_again: Callable[..., End], seconds: float
) -> None:
    """Where processes are forked, have just been, and are at work."""
    check(interrupt_again(0, seconds))


@pytest.mark.slow
def test_ctrl_c_fifty_times(
    interrupt: Callable[..., End], interrupt_again: Callable[..., End]
) -> None:
    for number, seconds in enumerate(np.geomspace(0.001, 1.0, 47)):
        check(interrupt_again(number, float(seconds)))
    check(interrupt_again(47, 0.0, times=2))
    check(interrupt_again(48, 0.5, times=3))
    check(interrupt(0.2, word="[1/7]"))  # while torch is loaded
