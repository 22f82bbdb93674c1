"""Triton's forms of the walk and the dense CRF, without a GPU: interpreted, compiled, chosen."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from affinitynet.ops import (
    _choice,
    _crf_choice,
    _walk_choice,
    crf,
    dense_crf,
    neighbor_offsets,
    random_walk,
)
from affinitynet.ops._choice import Choice
from affinitynet.ops._mean_field import mean_field
from affinitynet.ops._walk_tensors import walk_torch

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="no triton")


@needs_triton
def test_the_kernels_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(HERE / "triton_interpreted.py")],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@needs_triton
def test_the_kernels_compile_for_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As they are called; the interpreter takes much that the compiler refuses."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from affinitynet.ops import _crf_triton, _walk_triton

    types = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int32: "*i32"}
    compiled: dict[str, Any] = {}

    def compile_only(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        constants = {n: options.pop(n) for n in kernel.arg_names if n in options}
        names = [n for n in kernel.arg_names if n not in constants]
        signature = {
            name: types[part.dtype] if isinstance(part, Tensor) else "i32"
            for name, part in zip(names, arguments, strict=True)
        }
        key = f"{kernel.__name__} {signature} {constants}"
        if key not in compiled:
            signature |= dict.fromkeys(constants, "constexpr")
            compiled[key] = compile(
                ASTSource(kernel, signature, constants),
                target=GPUTarget("cuda", 90, 32),
                options={"enable_fp_fusion": True, **options},
            )

    for module in (_walk_triton, _crf_triton):
        monkeypatch.setattr(module, "launch", compile_only)
    cpu = torch.device("cpu")
    _walk_triton.walk(*_walk_choice._example(cpu))
    _crf_triton.mean_field(*_crf_choice._example(cpu))
    assert {key.split()[0] for key in compiled} == {"_step", "_splat", "_blur", "_slice"}
    for kernel in compiled.values():
        assert ".target sm_90" in kernel.asm["ptx"]


class Operations(TorchDispatchMode):
    """Count torch's operations that move data."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        still = ("empty", "detach", "_local_scalar", "lift_fresh")
        self.count += not func.is_view and not any(name in str(func) for name in still)
        return func(*args, **(kwargs or {}))


@needs_triton
def test_launches_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of docs/performance.md: Triton's, torch's beside them, and all in tensors."""
    from affinitynet.ops import _crf_triton, _walk_triton

    launched: list[Any] = []
    for module in (_walk_triton, _crf_triton):
        monkeypatch.setattr(module, "launch", lambda kernel, *_, **__: launched.append(kernel))
    offsets, walk_module = neighbor_offsets(5), sys.modules["affinitynet.ops.random_walk"]
    maps, affinity = torch.rand(1, 3, 9, 8), torch.rand(1, len(offsets), 9, 8)
    image, scores = torch.rand(24, 32, 3) * 255, torch.rand(3, 24, 32)
    found = []
    for walk, field in (
        (_walk_triton.walk, _crf_triton.mean_field),
        (walk_torch, mean_field),
    ):
        monkeypatch.setattr(walk_module, "walk_numba", walk)
        monkeypatch.setattr(crf, "mean_field_cpu", field)
        for call in (partial(random_walk, maps, affinity), partial(dense_crf, image, scores)):
            launched.clear()
            with torch.no_grad(), Operations() as operations:
                call()
            found.append((len(launched), operations.count))
    (walk, beside_walk), (field, beside_field), *in_tensors = found
    assert (walk, field) == (70, 88)
    # Versions of torch differ by some.
    assert beside_walk == pytest.approx(17, abs=5)
    assert beside_field == pytest.approx(220, rel=0.1)
    assert in_tensors == [(0, pytest.approx(1594, rel=0.1)), (0, pytest.approx(1420, rel=0.1))]


CASES = {
    "walk": (_walk_choice, "_walk_triton", "walk", "walk_cuda"),
    "crf": (_crf_choice, "_crf_triton", "mean_field", "mean_field_cuda"),
}


def wrong(*arguments: Any) -> Tensor:
    return arguments[0].new_tensor(torch.nan)


def slightly_wrong(maps: Tensor, pairs: Tensor, offsets: Any, terms: Any) -> Tensor:
    return walk_torch(maps, pairs, offsets, terms) + 0.01


def failing(*_: Any) -> Tensor:
    raise RuntimeError("no such instruction\nand this is the second line")


@pytest.mark.parametrize(
    ("op", "form", "reason"),
    [
        ("walk", failing, "RuntimeError: no such instruction"),
        ("walk", wrong, "ArithmeticError: an answer is wrong by nan"),
        ("walk", slightly_wrong, "ArithmeticError: an answer is wrong by 0.01"),
        ("crf", failing, "RuntimeError: no such instruction"),
        ("crf", wrong, "ArithmeticError: an answer is wrong by nan"),
    ],
)
def test_kernels_that_fail_their_example_are_warned_of_once(
    op: str,
    form: Callable[..., Tensor],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    choices, module, function, name = CASES[op]
    stub = SimpleNamespace(**{function: form})
    monkeypatch.setitem(sys.modules, f"affinitynet.ops.{module}", stub)
    monkeypatch.setattr(_choice, "find_spec", lambda _: True)
    kept = getattr(choices, name)
    choice = Choice(kept.plain, kept._load, kept._problem, kept._advice, kept._example)
    example = choices._example(torch.device("cpu"))
    for _ in range(2):
        assert torch.equal(choice(*example), choice.plain(*example))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"Triton kernels do not work here ({reason}" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_without_triton_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for choices, _, _, name in CASES.values():
        monkeypatch.setattr(_choice, "find_spec", lambda _: None)
        kept = getattr(choices, name)
        choice = Choice(kept.plain, kept._load, kept._problem, kept._advice, kept._example)
        example = choices._example(torch.device("cpu"))
        assert torch.equal(choice(*example), choice.plain(*example))
    assert caplog.records == []
