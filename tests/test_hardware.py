"""Devices by name, precision, inference and compilation."""

import os
import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from affinitynet.errors import UserError
from affinitynet.hardware import Hardware, compiled, find_device, inference

CPU = Hardware("cpu", workers=0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make torch see so many CUDA devices, and an Apple GPU or none."""

    def make(cuda: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return make


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"), [(0, False, "cpu"), (0, True, "mps"), (2, True, "cuda")]
)
def test_auto_takes_cuda_then_mps_then_the_cpu(
    machine: Any, cuda: int, mps: bool, chosen: str
) -> None:
    machine(cuda, mps)
    assert find_device("auto") == torch.device(chosen)


def test_devices_that_are_there_are_found_by_name(machine: Any) -> None:
    machine(2, True)
    for name in ("cpu", "cuda", "cuda:0", "cuda:1", "mps"):
        assert find_device(name) == torch.device(name)
        assert Hardware(name).place() == torch.device(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "device = 'cuda': no CUDA device is usable here; use auto or cpu"),
        ("cuda:1", "device = 'cuda:1': no CUDA device is usable here; use auto or cpu"),
        ("mps", "device = 'mps': no Apple GPU is usable here; use auto or cpu"),
    ],
)
def test_devices_that_are_not_there_are_said(machine: Any, name: str, message: str) -> None:
    machine()
    with pytest.raises(UserError) as caught:
        find_device(name)
    assert str(caught.value) == message


def test_a_number_that_is_too_high_gets_those_there_are(machine: Any) -> None:
    machine(2)
    with pytest.raises(UserError, match=r"'cuda:2': .* no such CUDA device; use cuda:0, cuda:1$"):
        find_device("cuda:2")


@pytest.mark.parametrize(
    "name", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:0 ", "cpu:0", "meta"]
)
def test_what_names_no_device_is_said(machine: Any, name: str) -> None:
    machine(2, True)
    with pytest.raises(UserError, match="not the name of a device; use auto, cpu, cuda, cuda:N"):
        find_device(name)


def wait_policy(**variables: str) -> list[str]:
    """What a process that imports the package, and one that it starts, find in the environment."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    show = "import os; print(os.environ.get('OMP_WAIT_POLICY'))"
    code = (
        f"import affinitynet, subprocess, sys; exec({show!r}); sys.stdout.flush(); "
        f"subprocess.run([sys.executable, '-c', {show!r}], check=True)"
    )
    clean = {name: value for name, value in os.environ.items() if name not in names}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=clean | variables, check=True, capture_output=True
    )
    return answer.stdout.decode().split()


def test_openmp_waits_passively_unless_the_user_has_chosen() -> None:
    assert wait_policy() == ["PASSIVE", "PASSIVE"]
    assert wait_policy(OMP_WAIT_POLICY="ACTIVE") == ["ACTIVE", "ACTIVE"]
    assert wait_policy(GOMP_SPINCOUNT="100") == wait_policy(KMP_BLOCKTIME="1") == ["None", "None"]


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")
def test_torchs_openmp_heeds_the_policy() -> None:
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    answer = subprocess.run(
        [sys.executable, "-c", "import affinitynet, torch"],
        env=clean | {"OMP_DISPLAY_ENV": "VERBOSE"},
        check=True,
        capture_output=True,
    )
    assert b"GOMP_SPINCOUNT = '0'" in answer.stderr


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        nn.init.uniform_(self.layers[1].running_mean)
        nn.init.uniform_(self.layers[1].running_var, 0.5, 2)

    def cams(self, images: Tensor) -> Tensor:
        answer: Tensor = self.layers(images).sqrt()
        return answer


@pytest.mark.skipif(not shutil.which("g++"), reason="compiling needs g++")
def test_a_compiled_network_gives_the_same_for_images_of_all_sizes() -> None:
    torch.manual_seed(0)
    net = Convolutions().eval()
    fast = compiled(net.cams)
    with inference(net, CPU):
        for height, width in ((32, 40), (25, 61), (64, 64), (17, 18)):
            images = torch.rand(2, 3, height, width).contiguous(memory_format=torch.channels_last)
            # Squared, since the root is steep at 0, where sums in another order differ most.
            torch.testing.assert_close(fast(images).square(), net.cams(images).square())


def test_a_compiler_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(function: Any, dynamic: bool) -> Any:
        def fails(images: Tensor) -> Tensor:
            raise TorchDynamoException("No working C++ compiler found\nSet TORCH_LOGS for more")

        return fails

    monkeypatch.setattr(torch, "compile", compile_)
    with pytest.raises(
        UserError, match=r"\(No working C\+\+ compiler found\); set cams.compile to false"
    ):
        compiled(Convolutions().cams)(torch.rand(1, 3, 8, 8))


def test_inference_is_in_eval_mode_and_without_gradients() -> None:
    model = nn.Sequential(nn.Linear(4, 1), nn.Dropout(0.5)).train()
    with inference(model, CPU) as device:
        assert device.type == "cpu"
        assert not model.training
        assert not model(torch.zeros(1, 4)).requires_grad


@pytest.mark.parametrize(
    ("units", "chosen"),
    [
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ({"avx2": True}, "float32"),
        (None, "float32"),
    ],
)
def test_auto_takes_bf16_where_there_are_units_for_it(
    units: dict[str, bool] | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if units is None:  # a torch that cannot tell
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
    assert Hardware("cpu", "auto").chosen_precision == chosen
    assert Hardware("cpu", "float32").chosen_precision == "float32"


def test_bf16_is_what_the_network_computes_in() -> None:
    with inference(nn.Linear(1, 1), Hardware("cpu", "bf16")), torch.inference_mode():
        layer = nn.Linear(4, 4)
        assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
