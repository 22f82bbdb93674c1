"""What a figure was measured on, and a mark for the end of all queued work."""

import os
import platform
from pathlib import Path

import torch


def machine_line(device: torch.device | str = "cpu") -> str:
    """Say processor, cores, torch threads, vector units, accelerator and versions in one line."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.device(device).type == "cuda" else ""
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads, "
        f"{torch.backends.cpu.get_cpu_capability()}{gpu}; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def processor_flags() -> set[str]:
    """Answer the features that Linux lists for the processor, none elsewhere."""
    return set(_cpuinfo().get("flags", "").split())


def settle() -> None:
    """Wait until the accelerator, if there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _processor() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _cpuinfo() -> dict[str, str]:
    """Read the first processor's entries."""
    file = Path("/proc/cpuinfo")
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    pairs = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
