"""numba's machine code on disk: a file that is damaged is made again, and none is no error."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

numba = pytest.importorskip("numba")
_numba: Any = pytest.importorskip("affinitynet.ops._numba")

KERNEL = """
from affinitynet.ops._numba import compiled
@compiled
def double(a):
    return a * 2.0
@compiled
def add(a):
    total = 0.0
    for i in range(len(a)):
        total += double(a[i])
    return total
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[float, int]]:
    """Run the kernel as a new process does: its sum, and how often its code was found on disk.

    Its module is made anew each time, so that all numba knows of it is what the folder holds.
    """
    file = tmp_path / "kernel.py"
    file.write_text(KERNEL)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "code"))

    def run() -> tuple[float, int]:
        monkeypatch.setattr(_numba, "_kernels", [])
        monkeypatch.setattr(_numba, "_mended", set())
        spec = importlib.util.spec_from_file_location("kernel", file)
        assert spec is not None
        assert spec.loader is not None
        kernel = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(kernel)
        total = _numba.call(kernel.add, np.arange(4.0))
        return total, sum(kernel.add.stats.cache_hits.values())

    return run


@pytest.mark.parametrize(
    ("kind", "content"), [("*.nbi", b""), ("*.nbc", b""), ("*.nb?", b"\x80\x04garbage")]
)
def test_damaged_code_is_made_again(
    run: Callable[[], tuple[float, int]], tmp_path: Path, kind: str, content: bytes
) -> None:
    assert run() == (12.0, 0)
    files = list((tmp_path / "code").rglob(kind))
    assert files
    for file in files:
        file.write_bytes(content)
    assert run() == (12.0, 0)
    assert run() == (12.0, 1)


def test_a_folder_that_can_not_be_written_is_no_error(
    run: Callable[[], tuple[float, int]], tmp_path: Path
) -> None:
    (tmp_path / "code").write_text("no folder")
    assert run()[0] == 12.0
