"""Time and memory of functions that run side by side.

Time is the processor time of the calling thread: everything here runs on one thread, and other
work on the machine then stretches the figures far less than it stretches the clock on the wall.
"""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch


def one_thread() -> None:
    """Keep torch on one thread, with subnormal numbers flushed to zero for both sides."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def seconds(function: Callable[[], object]) -> float:
    """Answer what one call costs."""
    start = time.thread_time()
    function()
    return time.thread_time() - start


def alternate(
    functions: dict[str, Callable[[], object]], repeats: dict[str, int]
) -> dict[str, list[float]]:
    """Call the functions in turn, each as often as asked, and answer their times."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for round_ in range(max(repeats.values())):
        for name, function in functions.items():
            # Few calls of one are spread evenly over the many of the other.
            if round_ * repeats[name] // max(repeats.values()) >= len(times[name]):
                times[name].append(seconds(function))
    return times


def in_words(times: list[float]) -> str:
    """Write the median and the range of some times."""
    unit, scale = ("s", 1) if statistics.median(times) >= 1 else ("ms", 1e3)
    low, middle, high = (scale * f(times) for f in (min, statistics.median, max))
    return f"{middle:.3g} {unit} ({low:.3g} to {high:.3g})"


def peak_memory(function: Callable[[], object]) -> int:
    """Answer the bytes that a call takes at its height beyond those held before it (Linux)."""
    gc.collect()
    # Hand freed memory back first, or the call would take that without being seen.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    result = function()
    peak = _status("VmHWM") - before
    del result
    return peak


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")
