"""One training loop for all three networks: SGD with poly decay, resumable to the same weights."""

import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from affinitynet.errors import UserError
from affinitynet.progress import task
from affinitynet.run_folder.folder import atomic_write
from affinitynet.run_folder.settings import TrainingSettings

CHECKPOINT = "checkpoint.pt"

# What torch raises on a damaged checkpoint.
_DAMAGE = (OSError, RuntimeError, ValueError, LookupError, TypeError, EOFError, pickle.PickleError)


class EpochDataset(Protocol):
    """A data set whose random augmentation depends on (seed, epoch, index) alone."""

    epoch: int

    def __len__(self) -> int:
        """Count the samples."""

    def __getitem__(self, index: int) -> Any:
        """Return one augmented sample."""


@dataclass(frozen=True)
class Hardware:
    """Where and how a network runs; `workers` counts processes that load and CPU threads."""

    device: str = "auto"
    precision: str = "float32"
    workers: int = 2

    def place(self) -> torch.device:
        """Return the device.

        Raises:
            UserError: CUDA was asked for and is not there.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("device = 'cuda': no CUDA device is usable here; use auto or cpu")
        device: torch.device = PartialState(cpu=self.device == "cpu").device
        return device

    def accelerator(self) -> Accelerator:
        """Return the Accelerator that moves models and batches.

        Raises:
            UserError: as `place`.
        """
        self.place()
        mixed = {"float32": "no"}.get(self.chosen_precision, self.chosen_precision)
        return Accelerator(mixed_precision=mixed, cpu=self.device == "cpu")

    @property
    def chosen_precision(self) -> str:
        """The precision; for `auto` bf16 where the device has units for it, else float32.

        Without such units bfloat16 is emulated, and slower than float32.
        """
        if self.precision != "auto":
            return self.precision
        if self.device != "cpu" and torch.cuda.is_available():
            found = torch.cuda.is_bf16_supported(including_emulation=False)
        elif hasattr(torch.cpu, "get_capabilities"):  # older torch cannot tell
            units = torch.cpu.get_capabilities()
            found = any(units.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
        else:
            found = False
        return "bf16" if found else "float32"


def poly_learning_rate(base: float, step: int, steps: int, power: float = 0.9) -> float:
    """Return base * (1 - step / steps) ** power, the schedule of the paper's code."""
    return float(base * (1 - step / steps) ** power)


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Split trainable parameters as the paper's code: new layers learn faster, biases undecayed.

    Pretrained weights 1x the rate with decay, pretrained biases 2x without; new layers `head_rate`
    times that. Pretrained is a `backbone`, or a segmentation network's `encoder`; the group
    normalisation of VGG-16's affinity head counts with them, as in the published code.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            new = not name.startswith(("backbone.", "network.encoder.", "head.norm."))
            groups.setdefault((new, name.endswith("bias")), []).append(parameter)
    return [
        {
            "params": parameters,
            "rate": (settings.head_rate if new else 1.0) * (2.0 if bias else 1.0),
            "weight_decay": 0.0 if bias else settings.weight_decay,
        }
        for (new, bias), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def fit(
    name: str,
    model: nn.Module,
    dataset: EpochDataset,
    losses: Callable[[nn.Module, Any], dict[str, Tensor]],
    settings: TrainingSettings,
    *,
    folder: Path,
    seed: int,
    hardware: Hardware,
) -> dict[str, float]:
    """Train `model` in place; return the last epoch's mean losses and the number of steps.

    `losses(model, batch)` returns named scalars, of which `loss` is descended. After every epoch
    `folder/checkpoint.pt` is replaced; started again, training goes on behind it and ends with the
    weights an uninterrupted run ends with, as order, augmentation and dropout depend on
    (seed, epoch) alone.

    Raises:
        UserError: loss or weights are no longer finite, a batch of one is too small for the
            network, an image can't be read, the checkpoint is damaged, or CUDA is missing.
    """
    accelerator = hardware.accelerator()
    optimizer = torch.optim.SGD(
        parameter_groups(model, settings),
        lr=settings.learning_rate,
        momentum=settings.momentum,
    )
    model.to(memory_format=torch.channels_last)
    model, optimizer = accelerator.prepare(model, optimizer)
    first, means = _resume(folder / CHECKPOINT, model, optimizer, accelerator.device)
    per_epoch = _steps_per_epoch(dataset, settings)
    total = per_epoch * settings.epochs
    with task(name, total, first * per_epoch) as progress:
        for epoch in range(first, settings.epochs):
            torch.manual_seed(_epoch_seed(seed, epoch))  # of dropout
            loader = accelerator.prepare(_loader(dataset, settings, seed, epoch, hardware.workers))
            model.train()
            sums: dict[str, float] = {}
            for index, batch in enumerate(loader):
                if isinstance(batch, UserError):
                    raise batch
                _set_rate(optimizer, settings, epoch * per_epoch + index, total)
                optimizer.zero_grad()
                with accelerator.autocast(), needs_larger_batch(name):
                    parts = losses(model, batch)
                value = float(parts["loss"].detach())
                if not math.isfinite(value):
                    raise _diverged(name, f"loss is {value}", epoch, settings)
                accelerator.backward(parts["loss"])
                optimizer.step()
                for key, part in parts.items():
                    sums[key] = sums.get(key, 0.0) + float(part.detach())
                progress.advance(f"epoch {epoch + 1}/{settings.epochs} loss {value:.3f}")
            means = {key: total_ / per_epoch for key, total_ in sums.items()}
            if not all(value.isfinite().all() for value in model.state_dict().values()):
                raise _diverged(name, "weights are not finite", epoch, settings)
            _save(folder / CHECKPOINT, model, optimizer, epoch + 1, means)
    model.eval()
    return {**means, "steps": total}


def discard_checkpoint(folder: Path) -> None:
    """Delete the checkpoint of a finished training."""
    (folder / CHECKPOINT).unlink(missing_ok=True)


@contextmanager
def needs_larger_batch(name: str) -> Iterator[None]:
    """Say in words that batch normalisation has a single value to average over.

    It happens to a batch of one image where a network pools all positions into one.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"{name}: this network's batch normalisation can't learn from one image a step; "
            "give it batch_size 2 or more, and as many training images"
        ) from error


@contextmanager
def inference(model: nn.Module, hardware: Hardware) -> Iterator[torch.device]:
    """Run `model` in eval mode on the device, without gradients, in the precision asked for."""
    # Not Accelerate's autocast: a process has one, and the trainings' precision may be another.
    device = hardware.place()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(hardware.chosen_precision)
    model.to(memory_format=torch.channels_last).to(device).eval()
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
        yield device


def compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Compile a network's function for images of all sizes, to be called in `inference`.

    What follows a convolution, as batch normalisation and activation, becomes a part of it, and
    the weights are fixed with the first call, which takes about half a minute.

    Raises:
        UserError: from the compiled function, where torch can't compile, as without a C++ compiler.
    """
    # Here, since it takes seconds to load.
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import config

    fast = torch.compile(function, dynamic=True)

    def call(images: Tensor) -> Tensor:
        try:
            with config.patch(freezing=True):
                return fast(images)
        except TorchDynamoException as error:
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"torch can't compile the network here ({reason}); set cams.compile to false (on a "
                "CPU it needs a C++ compiler, such as g++)"
            ) from error

    return call


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 1_000_003 + epoch


def _diverged(name: str, what: str, epoch: int, settings: TrainingSettings) -> UserError:
    return UserError(
        f"{name}: the {what} in epoch {epoch + 1}; "
        f"lower learning_rate (now {settings.learning_rate})"
    )


def _steps_per_epoch(dataset: EpochDataset, settings: TrainingSettings) -> int:
    return len(dataset) // settings.batch_size or 1  # a set below one batch is one small batch


@dataclass(frozen=True)
class _Handing:
    """Hands a user's error on as a value: a loading process would dress it in a traceback."""

    dataset: EpochDataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except UserError as error:
            return error


def _collate(samples: list[Any]) -> Any:
    error = next((sample for sample in samples if isinstance(sample, UserError)), None)
    return error or default_collate(samples)


def _loader(
    dataset: EpochDataset, settings: TrainingSettings, seed: int, epoch: int, workers: int
) -> DataLoader[Any]:
    dataset.epoch = epoch
    order = torch.Generator().manual_seed(_epoch_seed(seed, epoch))
    source: Dataset[Any] = _Handing(dataset)  # type: ignore[assignment]
    return DataLoader(
        source,
        batch_size=settings.batch_size,
        shuffle=True,
        drop_last=len(dataset) >= settings.batch_size,
        generator=order,
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


def _set_rate(optimizer: Any, settings: TrainingSettings, step: int, steps: int) -> None:
    rate = poly_learning_rate(settings.learning_rate, step, steps, settings.power)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]


def _save(path: Path, model: nn.Module, optimizer: Any, epochs: int, means: dict[str, Any]) -> None:
    state = {
        "epochs": epochs,
        "means": means,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    # Given a file, torch keeps the reason of a failed write; given a path, it loses it.
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def _resume(
    path: Path, model: nn.Module, optimizer: Any, device: torch.device
) -> tuple[int, dict[str, float]]:
    if not path.is_file():
        return 0, {}
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["epochs"]), dict(state["means"])
    except _DAMAGE as error:
        # Not torch's reason: it is long, and advises to load the file without its safeguard.
        raise UserError(
            f"{path}: is no checkpoint of this training, or damaged; delete it: the training then "
            "starts again"
        ) from error
