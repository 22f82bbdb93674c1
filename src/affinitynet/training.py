"""One training loop for all three networks, resumable to the same weights."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from affinitynet.accelerator import accelerator_for, tracked
from affinitynet.checkpoint import (
    State,
    load_state,
    random_state,
    restore_random,
    save_state,
)
from affinitynet.dilated import faster_dilated
from affinitynet.engine.linked import Team, find_team
from affinitynet.engine.shards import Helped
from affinitynet.engine.stopping import MESSAGE, Stopped, stop_asked
from affinitynet.errors import NotFiniteError, UserError
from affinitynet.hardware import Hardware
from affinitynet.loading import EpochDataset, Order, epoch_seed, loading
from affinitynet.progress import say, task
from affinitynet.run_folder.history import History
from affinitynet.run_folder.records import CHECKPOINT
from affinitynet.run_folder.settings import TrainingSettings

LOGS = "logs"  # in a run folder: what trackers write


def poly_learning_rate(base: float, step: int, steps: int, power: float = 0.9) -> float:
    """Return base * (1 - step / steps) ** power, the schedule of the paper's code."""
    return float(base * (1 - step / steps) ** power)


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """Return the rate of a step: poly decay, in the warm-up times a factor that rises to 1.

    Trained normalization and AdamW's first estimates are both wild in the first steps.
    """
    rate = poly_learning_rate(settings.learning_rate, step, steps, settings.power)
    warm = round(settings.warmup * steps)
    return rate * (step + 1) / warm if step < warm else rate


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Split trainable parameters as the paper's code: new layers learn faster, biases undecayed.

    Pretrained weights 1x the rate with decay, pretrained biases 2x without; new layers `head_rate`
    times that. Pretrained is a `backbone`, or a segmentation network's `encoder`; the group
    normalization of VGG-16's affinity head counts with them, as in the published code.

    With AdamW, whose steps don't depend on a gradient's size, biases have no rate of their own, and
    norms no decay either: it would pull their scales to zero.

    With `layer_decay` d a pretrained layer learns d^k times as fast, k layers before the last.
    """
    adamw = settings.optimizer == "adamw"
    before = layers_before_the_last(model) if settings.layer_decay < 1 else {}
    groups: dict[tuple[bool, bool, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            new = not is_pretrained(name)
            bare = name.endswith("bias") or (adamw and parameter.ndim < 2)
            groups.setdefault((new, bare, before.get(name, 0)), []).append(parameter)
    return [
        {
            "params": parameters,
            "rate": (settings.head_rate if new else 1.0)
            * (2.0 if bare and not adamw else 1.0)
            * settings.layer_decay**layers,
            "weight_decay": 0.0 if bare else settings.weight_decay,
        }
        for (new, bare, layers), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def is_pretrained(name: str) -> bool:
    """Tell by a parameter's name whether it comes from pretraining, or counts with what does."""
    return name.startswith(("backbone.", "network.encoder.", "head.norm."))


def layers_before_the_last(model: nn.Module) -> dict[str, int]:
    """Count for each parameter of the timm network in a model the layers behind it there.

    Raises:
        UserError: there is no network that says which parameters make a layer.
    """
    for path, module in model.named_modules():
        if hasattr(module, "group_matcher"):
            # As timm groups them: a block, or what stands before the first one or behind the last.
            ids: dict[str, int] = group_parameters(
                module, module.group_matcher(coarse=False), reverse=True
            )
            last = max(ids.values())
            return {f"{path}.{name}": last - int(layer) for name, layer in ids.items()}
    raise UserError(
        "layer_decay: this network does not say which of its parameters make a layer; set "
        "layer_decay to 1"
    )


def training_length(images: int, settings: TrainingSettings) -> tuple[int, int]:
    """Return the steps of an epoch over so many images, and of the whole training."""
    # A set below one batch is one small batch.
    per_epoch = images // settings.batch_size or 1
    return per_epoch, settings.steps or per_epoch * settings.epochs


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
    weights: Sequence[float] | None = None,
    trackers: Sequence[str] = (),
    ema: float = 0.0,
) -> dict[str, float]:
    """Train `model` in place; return the last epoch's mean losses and the number of steps.

    `losses(model, batch)` returns named scalars, of which `loss` is descended. After every epoch
    their curve, `folder/history.csv`, and `folder/checkpoint.pt` are replaced; started again,
    training goes on behind it and ends with the weights an uninterrupted run ends with, as order,
    augmentation and dropout depend on (seed, epoch) alone. With `settings.steps` the last epoch
    ends early. `weights` draws each image with a chance in proportion to its own; without, an epoch
    has each image once. With `ema` above 0 the model ends as the moving average of its weights.
    `trackers` are told each step's losses and learning rate, those that write files in `logs/`
    beside `folder`.

    Processes that are linked (torchrun) train together: each takes its part of every batch, which
    is as large as the settings say, and the steps are those of one process but for rounding. The
    one of rank 0 writes, and it alone returns.

    Raises:
        Stopped: SIGTERM came; the step is finished, and training goes on behind it.
        Helped: in the processes of other ranks, at the end.
        UserError: loss or weights are no longer finite, a batch of one is too small for the
            network, an image can't be read, the checkpoint is damaged, or the device is missing;
            there are more processes than images in a batch, or one of them has ended.
    """
    if settings.learns == "head":
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and not is_pretrained(key))
    team = find_team(hardware.place())
    team.check_batch(name, min(settings.batch_size, len(dataset)))
    told = tuple(trackers) if team.leads else ()
    with (
        accelerator_for(
            hardware.place(), hardware.chosen_precision, told, folder.parent / LOGS
        ) as accelerator,
        _prepared(model, settings, accelerator) as ready,
        tracked(name, accelerator),
    ):
        length = training_length(len(dataset), settings)
        state = load_state(folder / CHECKPOINT, *ready, accelerator.device)
        history = History(folder, state.epochs, length[1])
        history.go_on(state.history)
        size = min(settings.batch_size, len(dataset))
        loop = _Loop(name, *ready, losses, settings, accelerator, *length, history, team, size, ema)
        say(loop.describe())
        order = Order(
            len(dataset),
            settings.batch_size,
            seed,
            range(state.epochs, loop.epochs),
            loop.steps_in,
            weights,
            team,
            state.step,
        )
        done = min(state.epochs * loop.per_epoch + state.step, loop.total)
        with (
            task(name, loop.total, done) as progress,
            loading(name, dataset, order, hardware.workers, accelerator.device) as batches,
        ):
            for epoch in order.epochs:
                torch.manual_seed(epoch_seed(seed, epoch))  # of dropout
                restore_random(state.random, accelerator.device)
                left = islice(batches, loop.steps_in(epoch) - state.step)
                stops = loop.train_epoch(state, left, progress)
                if team.leads:
                    save_state(folder / CHECKPOINT, *ready, state)
                if stops:
                    raise Stopped(MESSAGE)
        if state.average:
            ready[0].load_state_dict(state.average)
    if not team.leads:
        raise Helped
    model.eval()
    return {**state.means, "steps": loop.total}


@dataclass(frozen=True)
class _Loop:
    """What stays the same from epoch to epoch of one training."""

    name: str
    model: nn.Module
    optimizer: Any
    losses: Callable[[nn.Module, Any], dict[str, Tensor]]
    settings: TrainingSettings
    accelerator: Any
    per_epoch: int
    total: int
    history: History
    team: Team
    size: int  # images of a batch, of which each process of the team has a part
    ema: float = 0.0

    @property
    def epochs(self) -> int:
        return math.ceil(self.total / self.per_epoch)

    def steps_in(self, epoch: int) -> int:
        return min(self.per_epoch, self.total - epoch * self.per_epoch)

    def describe(self) -> str:
        epochs, images = self.total / self.per_epoch, self.settings.batch_size
        return (
            f"{self.name}: {self.total} step{'s' * (self.total > 1)} of {images} images, "
            f"{epochs:.3g} epoch{'s' * (epochs != 1)}"
        )

    def train_epoch(self, state: State, batches: Iterable[Any], progress: Any) -> bool:
        """Train an epoch on the batches that are left of it; tell whether SIGTERM ended it early.

        The mean of each loss goes into `state`, and the curve into its file.
        """
        self.model.train()
        epoch, stops = state.epochs, False
        for batch in batches:
            step = epoch * self.per_epoch + state.step
            rate = learning_rate(self.settings, step, self.total)
            _set_rate(self.optimizer, rate)
            with self.team.together(self.name, self.model, self.size):
                parts, stops = self._step(batch, epoch)
            if self.ema:
                move_average(state.average, self.model.state_dict(), step, self.ema)
            self.history.add(step, epoch, parts, rate)
            self.accelerator.log({**parts, "learning_rate": rate}, step=step)
            state.add(parts)
            progress.advance(f"epoch {epoch + 1}/{self.epochs} loss {parts['loss']:.3f}")
            if stops:
                break
        if not all(value.isfinite().all() for value in self.model.state_dict().values()):
            raise _diverged(self.name, "weights are not finite", epoch, self.settings)
        if state.step < self.steps_in(epoch):
            state.random = random_state(self.accelerator.device)
            state.history = self.history.begun(epoch)
            return stops
        if self.team.leads:
            self.history.end_epoch(step, epoch, rate)
        state.end_epoch()
        return stops

    def _step(self, batch: Any, epoch: int) -> tuple[dict[str, float], bool]:
        """Take one step; return its losses, and whether a process was asked to stop."""
        batch = self.team.whole(batch, self.size)
        self.optimizer.zero_grad()
        with self.accelerator.autocast(), needs_larger_batch(self.name):
            try:
                parts = self.losses(self.model, batch)
            except NotFiniteError as error:
                what = "network's output is not finite"
                raise _diverged(self.name, what, epoch, self.settings) from error
        values = {key: float(part.detach()) for key, part in parts.items()}
        # Before the step: after it the weights would be NaN as well.
        if not math.isfinite(values["loss"]):
            raise _diverged(self.name, f"loss is {values['loss']}", epoch, self.settings)
        self.accelerator.backward(parts["loss"])
        self.team.add_gradients(self.model.parameters())
        self.optimizer.step()
        return values, self.team.any(stop_asked())


def move_average(
    average: dict[str, Tensor], weights: Mapping[str, Tensor], step: int, decay: float
) -> None:
    """Move an average of weights on by one step, in place: a' = d a + (1 - d) w.

    d = min(decay, (1 + step) / (10 + step)), step counted from 0, so that the first weights, which
    know nothing, are soon forgotten. Statistics of norms are averaged too; counters are taken over.

    Source: Tarvainen & Valpola, NeurIPS 2017 (mean teacher); the rising decay is TensorFlow's.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in weights.items():
        if name in average and value.is_floating_point():
            average[name].lerp_(value.detach(), 1 - decay)
        else:
            average[name] = value.detach().clone()


@contextmanager
def _prepared(
    model: nn.Module, settings: TrainingSettings, accelerator: Any
) -> Iterator[tuple[nn.Module, Any]]:
    """Put a model on the device with its optimizer; afterwards its forward is its own again.

    In mixed precision accelerate replaces `model.forward`, and it passes over a model that was
    prepared before: trained again, it would keep the old device and precision.
    """
    groups, rate = parameter_groups(model, settings), settings.learning_rate
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(groups, lr=rate)
        if settings.optimizer == "adamw"
        else torch.optim.SGD(groups, lr=rate, momentum=settings.momentum)
    )
    model.to(memory_format=torch.channels_last)
    try:
        with faster_dilated(model):
            yield accelerator.prepare(model, optimizer)
    finally:
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        vars(model).pop("_is_accelerate_prepared", None)


@contextmanager
def needs_larger_batch(name: str) -> Iterator[None]:
    """Say in words that batch normalization has a single value to average over.

    It happens to a batch of one image where a network pools all positions into one.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"{name}: this network's batch normalization can't learn from one image a step; "
            "give it batch_size 2 or more, and as many training images"
        ) from error


def _diverged(name: str, what: str, epoch: int, settings: TrainingSettings) -> UserError:
    return UserError(
        f"{name}: the {what} in epoch {epoch + 1}; "
        f"lower learning_rate (now {settings.learning_rate})"
    )


def _set_rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]
