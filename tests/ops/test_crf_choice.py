"""Where the kernels cannot be had, the dense CRF says so once and goes on; their bounds checks."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import pytest
import torch
from torch import Tensor

from affinitynet.ops import _numba, crf, dense_crf
from affinitynet.ops._choice import Choice
from affinitynet.ops._crf_choice import cpu_choice
from affinitynet.ops.crf import Settings

LAZY = ("_crf_cpu", "_crf_kernels", "_lattice_kernels", "_vectors")
SOURCE = Path(__file__).parents[2] / "src"


def case(seed: int = 0, size: tuple[int, int] = (23, 31), labels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)
    image[: size[0] // 2] //= 4
    return image, torch.rand(labels, *size, generator=generator)


@pytest.fixture
def choice(monkeypatch: pytest.MonkeyPatch) -> Choice:
    """A process that has run no CRF yet."""
    new = cpu_choice()
    monkeypatch.setattr(crf, "mean_field_cpu", new)
    return new


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "affinitynet"]


def refuse(*_: Any, **__: Any) -> None:
    raise AttributeError("LLVM has no vectors today\nand this is the second line")


def close(result: Tensor, expected: Tensor) -> None:
    assert (result.argmax(0) == expected.argmax(0)).float().mean() >= 0.999
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("module", LAZY)
def test_a_failing_import_takes_the_tensor_path_with_one_warning(
    module: str,
    choice: Choice,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = dense_crf(*case())
    monkeypatch.setattr(crf, "mean_field_cpu", cpu_choice())
    for name in LAZY:
        monkeypatch.delitem(sys.modules, f"affinitynet.ops.{name}", raising=False)
        monkeypatch.delattr(f"affinitynet.ops.{name}", raising=False)
    monkeypatch.setitem(sys.modules, f"affinitynet.ops.{module}", None)
    assert warnings(caplog) == []
    close(dense_crf(*case()), expected)
    dense_crf(*case(1))
    assert len(warnings(caplog)) == 1
    assert "do not compile here (ModuleNotFoundError: import of affinitynet.ops" in caplog.text
    assert "install the version of numba" in caplog.text


@pytest.mark.parametrize("failing", ["embed", "connect", "normalize", "mean_field"])
def test_a_kernel_that_does_not_compile_takes_the_tensor_path_with_one_warning(
    failing: str,
    choice: Choice,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from affinitynet.ops import _crf_cpu, _crf_kernels, _lattice_kernels

    expected = dense_crf(*case())
    _crf_cpu._layout.cache_clear()
    module = _crf_kernels if hasattr(_crf_kernels, failing) else _lattice_kernels
    monkeypatch.setattr(getattr(module, failing), "compile", refuse)
    # A failure has the machine code on disk made anew: not that of all tests after this one.
    monkeypatch.setattr(_numba, "_kernels", [])
    monkeypatch.setattr(_numba, "_mended", set())
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: dense_crf(*case()), range(8)))
    for result in results:
        close(result, expected)
    reason = (
        "the dense CRF's kernels do not compile here (AttributeError: LLVM has no vectors today)"
    )
    (message,) = warnings(caplog)
    assert message.startswith(reason)
    assert "\n" not in message
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize("where", ["compile", "run", "import"])
def test_memory_errors_stay_memory_errors(
    where: str, choice: Choice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from affinitynet.ops import _crf_cpu, _crf_kernels

    def full(*_: Any, **__: Any) -> None:
        raise MemoryError("full")

    if where == "compile":
        monkeypatch.setattr(_crf_kernels.mean_field, "compile", full)
    elif where == "run":
        monkeypatch.setattr(_crf_cpu._memory, "new", full)
    else:
        monkeypatch.setattr("builtins.__import__", full)
    with pytest.raises(MemoryError, match="full"):
        choice(case()[0].float(), case()[1].reshape(1, 3, -1), Settings(1, 3, 3, 80, 13, 10))
    monkeypatch.undo()
    assert warnings(caplog) == []


def test_a_mistake_of_the_caller_is_none_of_the_compiler(
    choice: Choice, caplog: pytest.LogCaptureFixture
) -> None:
    image, probabilities = case()
    with pytest.raises(ValueError, match="do not fit"):
        dense_crf(image, probabilities[:, :4])
    with pytest.raises(ValueError, match="deviations"):
        dense_crf(image, probabilities, bilateral_srgb=1e-5)
    assert warnings(caplog) == []


def test_machine_code_is_not_kept_where_no_folder_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    njit, caches = numba.njit, []

    def without_folder(**options: Any) -> Any:
        caches.append(options["cache"])
        if options["cache"]:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", without_folder)
    assert _numba.compiled(lambda x: x + 1)(1) == 2
    assert _numba.fused(lambda x: x + 1)(1) == 2
    assert caches == [True, False] * 2


def python(code: str, cache: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(SOURCE),
            "OMP_NUM_THREADS": "1",
            "NUMBA_CACHE_DIR": str(cache),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_of_the_operations_loads_no_kernel_of_the_crf(tmp_path: Path) -> None:
    code = "import sys, affinitynet.ops as ops; print(*(m for m in sys.modules if 'ops._' in m))"
    loaded = python(code, tmp_path).split()
    assert "affinitynet.ops._mean_field" in loaded
    lazy = {*LAZY, "_walk_triton", "_crf_triton"}
    assert not {f"affinitynet.ops.{name}" for name in lazy} & set(loaded)


# Odd sizes, one pixel, and two label sets; the channels decide which widths are compiled.
SIZES = [(1, 2, 23, 31), (1, 3, 1, 1), (1, 3, 9, 64)]
MORE = [(1, 4, 37, 15), (2, 4, 17, 33), (1, 10, 9, 64)]

LABELS = """
import hashlib, torch
from affinitynet.ops import dense_crf
answers = []
for sets, labels, H, W in sizes:
    generator = torch.Generator().manual_seed(H)
    image = torch.randint(0, 256, (H, W, 3), dtype=torch.uint8, generator=generator)
    p = torch.rand(sets, labels, H, W, generator=generator)
    labels = dense_crf(image, p, iterations=3).argmax(1)
    answers.append(hashlib.sha256(labels.numpy().tobytes()).hexdigest())
"""

NO_OTHER_WAY = """
from affinitynet.ops import _choice, _numba
def give_up(self, device, reason): raise reason
_choice.Choice._give_up = give_up
assert _numba.CHECKED
"""

OUTSIDE = """
import numpy as np
from affinitynet.ops._numba import CHECKED, compiled
from affinitynet.ops._vectors import count, element, load, store, transpose
LANES = count(4)
@compiled
def read(a, at):
    store(a, 0, load(a, at, LANES))
@compiled
def write(a, at):
    store(a, at, load(a, 0, LANES))
@compiled
def one(a, at):
    return element(a, at)
@compiled
def turn(a, at):
    transpose(a, 0, 4, a, at, 4, LANES)
@compiled
def index(a, at):
    return a[at]
answers = []
for kernel, size, last in ((read, 9, 5), (write, 9, 5), (one, 9, 8), (turn, 40, 24), (index, 9, 8)):
    a = np.zeros(size + 64, np.float32)[32 : 32 + size]  # what is beside the array is ours as well
    kernel(a, 0)
    kernel(a, last)
    for at in (last + 1, -1 if kernel is not index else -10, 2**62, -2**63) if CHECKED else ():
        try:
            kernel(a, at)
            answers.append(f"{kernel.__name__} {at} read")
        except IndexError as error:
            assert "outside" in str(error) or kernel is index, error
for kernel in (read, write) if CHECKED else ():
    try:
        kernel(np.zeros(3, np.float32), 0)
        answers.append(f"{kernel.__name__} of an array shorter than a vector")
    except IndexError:
        pass
print(CHECKED, answers)
"""


@pytest.mark.parametrize("sizes", [SIZES, pytest.param(MORE, marks=pytest.mark.slow)])
def test_checks_of_bounds_find_nothing_in_the_crf_and_change_no_label(
    sizes: list[tuple[int, ...]], tmp_path: Path
) -> None:
    here: dict[str, Any] = {"sizes": sizes}
    exec(LABELS, here)
    code = f"{NO_OTHER_WAY}\nsizes = {sizes}\n{LABELS}\nprint(*answers)"
    assert python(code, tmp_path, AFFINITYNET_CHECK_BOUNDS="1").split() == here["answers"]
    assert not list(tmp_path.rglob("*.nb?"))


def test_checks_of_bounds_find_what_lies_outside_and_share_no_machine_code(tmp_path: Path) -> None:
    file = tmp_path / "outside.py"
    file.write_text(OUTSIDE, encoding="utf-8")
    code = f"import runpy; runpy.run_path({str(file)!r})"
    assert python(code, tmp_path).strip() == "False []"
    kept = {f: f.read_bytes() for f in tmp_path.rglob("*.nb?")}
    assert len(kept) >= 5
    # With the same code kept on disk, unchecked, for the same arguments.
    assert python(code, tmp_path, AFFINITYNET_CHECK_BOUNDS="1").strip() == "True []"
    assert {f: f.read_bytes() for f in tmp_path.rglob("*.nb?")} == kept
