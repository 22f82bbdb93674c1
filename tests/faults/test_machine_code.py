"""numba's machine code on disk: a file that is damaged is made again, and none is no error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

KERNEL = """
import sys
import numpy as np
from affinitynet.ops._numba import call, compiled
@compiled
def double(a):
    return a * 2.0
@compiled
def add(a):
    total = 0.0
    for i in range(len(a)):
        total += double(a[i])
    return total
print(call(add, np.arange(4.0)), sum(add.stats.cache_hits.values()))
"""


def run(folder: Path) -> str:
    file = folder / "kernel.py"
    file.write_text(KERNEL)
    source = str(Path(__file__).parents[2] / "src")
    known = {"PYTHONPATH": source, "NUMBA_CACHE_DIR": str(folder / "code")}
    ended = subprocess.run(
        [sys.executable, str(file)], env={**os.environ, **known}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.parametrize(
    ("kind", "content"), [("*.nbi", b""), ("*.nbc", b""), ("*.nb?", b"\x80\x04garbage")]
)
def test_damaged_code_is_made_again(tmp_path: Path, kind: str, content: bytes) -> None:
    assert run(tmp_path) == "12.0 0"
    files = list((tmp_path / "code").rglob(kind))
    assert files
    for file in files:
        file.write_bytes(content)
    assert run(tmp_path) == "12.0 0"
    assert run(tmp_path) == "12.0 1"


def test_a_folder_that_can_not_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("no folder")
    assert run(tmp_path).startswith("12.0 ")
