"""What a figure depends on besides settings and data: library versions and the machine."""

import importlib.metadata
import os
import platform
import sys

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "numba", "segmentation-models-pytorch")


def versions() -> dict[str, str]:
    """Return the versions of Python and the libraries, and a line on the machine."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {_gpu()}"
    return {"python": platform.python_version(), **found, "machine": machine}


def _gpu() -> str:
    torch = sys.modules.get("torch")  # not loaded: no stage used a GPU
    return torch.cuda.get_device_name() if torch and torch.cuda.is_available() else "no GPU"
