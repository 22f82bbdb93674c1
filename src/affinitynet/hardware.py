"""Where a network runs and in which precision: devices by name, inference, compilation."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from affinitynet.engine.place import here, local_number
from affinitynet.errors import UserError
from affinitynet.folded import folded

_CUDA = re.compile(r"cuda(?::([0-9]{1,3}))?")


def find_device(name: str) -> torch.device:
    """Return the device called `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    `auto` is CUDA where there is one, else MPS (Apple's GPU), else the CPU.

    Raises:
        UserError: there is no device of that name here, or anywhere.
    """
    if name == "auto":
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        return _own_card() if torch.cuda.is_available() else torch.device(mps)
    if match := _CUDA.fullmatch(name):
        _check_cuda(name, int(match[1] or 0))
        if match[1] is None:
            return _own_card()
    elif name == "mps" and not torch.backends.mps.is_available():
        raise UserError("device = 'mps': no Apple GPU is usable here; use auto or cpu")
    elif name not in ("cpu", "mps"):
        raise UserError(
            f"device = {name!r}: not the name of a device; use auto, cpu, cuda, cuda:N or mps"
        )
    return torch.device(name)


def _own_card() -> torch.device:
    """Return CUDA's device; of several processes on a machine each has another, while they last."""
    number = local_number() if here().count > 1 else None
    return torch.device("cuda" if number is None else f"cuda:{number % torch.cuda.device_count()}")


def _check_cuda(name: str, index: int) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise UserError(f"device = {name!r}: no CUDA device is usable here; use auto or cpu")
    if index >= count:
        there = ", ".join(f"cuda:{i}" for i in range(count))
        raise UserError(f"device = {name!r}: this machine has no such CUDA device; use {there}")


@dataclass(frozen=True)
class Hardware:
    """Where and how a network runs; `workers` counts processes that load and CPU threads.

    With `fold` inference is faster, and the same but for rounding (`folded`).
    """

    device: str = "auto"
    precision: str = "float32"
    workers: int = 2
    fold: bool = False

    def place(self) -> torch.device:
        """Return the device.

        Raises:
            UserError: as `find_device`.
        """
        return find_device(self.device)

    @property
    def chosen_precision(self) -> str:
        """The precision; for `auto` bf16 where the device has units for it, else float32.

        Without such units bfloat16 is emulated, and slower than float32.

        Raises:
            UserError: as `find_device`, for `auto`.
        """
        if self.precision != "auto":
            return self.precision
        return "bf16" if _multiplies_bf16(self.place()) else "float32"


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        # torch answers for the current device.
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # older torch cannot tell
        units = torch.cpu.get_capabilities()
        return any(units.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


@contextmanager
def inference(model: nn.Module, hardware: Hardware) -> Iterator[torch.device]:
    """Run `model` in eval mode on the device, without gradients, in the precision asked for.

    Raises:
        UserError: as `find_device`.
    """
    device = hardware.place()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(hardware.chosen_precision)
    # channels_last: the layout in which convolutions run fastest.
    model.to(memory_format=torch.channels_last).to(device).eval()
    with (
        folded(model) if hardware.fold else nullcontext(),
        torch.inference_mode(),
        torch.autocast(device.type, dtype, enabled=dtype is not None),
    ):
        yield device


def compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Compile a network's function for images of all sizes, to be called in `inference`.

    What follows a convolution, as batch normalization and activation, becomes a part of it, and
    the weights are fixed with the first call, which takes about half a minute.

    Raises:
        UserError: from the compiled function, where torch can't compile, as without a C++ compiler.
    """
    # Here, since it takes seconds to load.
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import config

    # dynamic: compiled once, not for each size of image.
    fast = torch.compile(function, dynamic=True)

    def call(images: Tensor) -> Tensor:
        try:
            # Only frozen weights let batch normalization be folded into the convolutions.
            with config.patch(freezing=True):
                return fast(images)
        except TorchDynamoException as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"torch can't compile the network here ({reason}); set cams.compile to false (on a "
                "CPU it needs a C++ compiler, such as g++)"
            ) from error

    return call
