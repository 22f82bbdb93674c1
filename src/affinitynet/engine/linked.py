"""Processes that train one network together: each has a part of every batch, all the same weights.

The network runs over a process's own part. What it returns is gathered, so that every process has
the loss of the whole batch, whatever that is a mean over; dropout and batch normalization are those
of the whole batch too. So any number of processes takes the steps that one would take, but for the
rounding of sums. These are taken in an order that depends on nothing but the number of processes:
with as many of them a training ends with the same bytes, killed or not. That is why no
DistributedDataParallel adds the gradients up: it groups them by the order in which they came in
its first step, and does that again in a training that goes on.
"""

import atexit
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from affinitynet.engine.place import LAUNCHER, Place, here, local_count
from affinitynet.errors import UserError

Part = TypeVar("Part", Tensor, list[Any])
PATIENCE = timedelta(minutes=10)  # for a process that loads its first images


@dataclass(frozen=True)
class Team:
    """The processes that train together; this one by its number. One alone talks to nobody."""

    index: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Tell whether this process writes what is written."""
        return self.index == 0

    def part(self, batch: Part) -> Part:
        """Return this process's part of a batch, of consecutive samples."""
        return batch[self.bounds(len(batch))]

    def bounds(self, size: int) -> slice:
        """Return where this process's part of a batch of so many images lies."""
        return slice(size * self.index // self.count, size * (self.index + 1) // self.count)

    def check_batch(self, name: str, size: int) -> None:
        """Refuse batches of which a process would have nothing.

        Raises:
            UserError: there are more processes than images in a batch.
        """
        if size < self.count:
            raise UserError(
                f"{name}: a batch of {size} images can't be cut among {self.count} processes; "
                f"start at most {size}, or raise batch_size (and there must be as many images)"
            )

    def any(self, said: bool) -> bool:
        """Tell all processes whether one of them says so."""
        return said if self.count == 1 else bool(_reduced(torch.tensor(int(said))).item())

    def whole(self, part: Any, size: int) -> Any:
        """Gather the parts of a batch of `size` samples: tensors (B, ...), or nested ones."""
        if self.count == 1:
            return part
        if isinstance(part, Tensor):
            return cast(Tensor, _Gather.apply(part, self, size))
        if isinstance(part, dict):
            return {key: self.whole(value, size) for key, value in part.items()}
        if isinstance(part, list | tuple):
            found = [self.whole(value, size) for value in part]
            return type(part)(*found) if hasattr(part, "_fields") else type(part)(found)
        return part

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes; one that none has stays none."""
        if self.count == 1:
            return
        learned = [parameter for parameter in parameters if parameter.requires_grad]
        if not learned:
            return
        # One long vector: where a number stands in it decides in which order it is added up.
        flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in learned]
        has = torch.tensor([p.grad is not None for p in learned]).to(flat[0])
        total = _reduced(torch.cat([has, *(gradient.reshape(-1) for gradient in flat)]))
        place = len(learned)
        for number, parameter in enumerate(learned):
            if total[number]:
                part = total[place : place + parameter.numel()]
                parameter.grad = part.view_as(parameter).clone()
            place += parameter.numel()

    @contextmanager
    def together(self, name: str, model: nn.Module, size: int) -> Iterator[None]:
        """Take steps: `model` is given whole batches of `size`, runs over a part, returns whole.

        Raises:
            UserError: another process has ended, or does not answer.
        """
        if self.count == 1:
            yield
            return
        hooks = (
            model.register_forward_pre_hook(lambda _, given: tuple(map(self.part, given))),
            model.register_forward_hook(lambda _, given, made: self.whole(made, size)),
        )
        try:
            with _WholeBatches(self, size):
                yield
        except RuntimeError as error:
            if not _is_of_the_link(error):
                raise
            raise UserError(
                f"{name}: another process of this training has ended or does not answer; its own "
                "message says why; give the same command again to go on"
            ) from error
        finally:
            for hook in hooks:
                hook.remove()


ALONE = Team()


def find_team(device: torch.device) -> Team:
    """Return the processes to train with, and connect this one with them, if they are linked.

    Raises:
        UserError: they can't be reached.
    """
    place = here()
    if not place.linked:
        return ALONE
    if not dist.is_initialized():
        _connect(place, device)
    return Team(dist.get_rank(), dist.get_world_size())


@contextmanager
def hidden_launcher() -> Iterator[None]:
    """Hide from accelerate that there are several processes: it would join those it must not."""
    found = {name: os.environ.pop(name) for name in LAUNCHER if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(found)


def _connect(place: Place, device: torch.device) -> None:
    # NCCL wants a card for each process; gloo serves processors, and cards that are shared.
    own_card = device.type == "cuda" and local_count(place.count) <= torch.cuda.device_count()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if own_card else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(
            f"process {place.index} of {place.count} can't meet the others at {address} ({reason})"
        ) from error
    atexit.register(_disconnect)


def _disconnect() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _is_of_the_link(error: RuntimeError) -> bool:
    words = ("Connection", "connection", "Broken pipe", "Timed out", "timed out", "gloo", "NCCL")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


def _reduced(values: Tensor) -> Tensor:
    """Add a tensor up over the processes."""
    if dist.get_backend() == "nccl":
        total = values.to(torch.cuda.current_device(), copy=True)
        dist.all_reduce(total)
        return total.to(values.device)
    total = values.to("cpu", copy=True)
    dist.all_reduce(total)
    return total.to(values.device)


class _Gather(torch.autograd.Function):
    """The whole batch, of which each process has a part; so has each the gradient of its own."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, team: Team, size: int) -> Tensor:
        ctx.bounds = team.bounds(size)
        # Zeros elsewhere: adding them rounds nothing.
        whole = part.new_zeros((size, *part.shape[1:]))
        whole[ctx.bounds] = part
        return _reduced(whole)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.bounds], None, None


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the processes; so is that of its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _reduced(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _reduced(gradients[0].contiguous())


def whole_batch_norm(
    team: Team,
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize a part of a batch (B, C, ...) by mean and variance of the whole batch.

    From the parts' counts n_i, means m_i and sums of squares S_i about them: m = sum n_i m_i / n,
    v = (sum S_i + n_i (m_i - m)^2) / n, which loses no digits as E[x^2] - m^2 would.

    Raises:
        ValueError: there is one value to average over, as torch says it.
    """
    with torch.autocast(x.device.type, enabled=False):
        dims = [0, *range(2, x.ndim)]
        values = x.float()
        mean = values.mean(dims)
        spread = (values - _over_channels(mean, x)).square().sum(dims)
        own = torch.cat([mean, spread, mean.new_full((1,), x.numel() / x.shape[1])])
        # Each process's numbers in a row of their own: adding zeros rounds nothing.
        rows = torch.stack([own if i == team.index else own * 0 for i in range(team.count)])
        means, spreads, counts = _Sum.apply(rows).split([len(mean), len(mean), 1], dim=1)
        total = counts.sum().detach()
        if total <= 1:
            raise ValueError("Expected more than 1 value per channel when training")
        mean = (counts.detach() * means).sum(0) / total
        spread = (spreads + counts.detach() * (means - mean).square()).sum(0)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean), momentum)
                running_var.lerp_((spread / (total - 1)).to(running_var), momentum)
        scale = (spread / total + eps).rsqrt()
        if weight is not None:
            scale = scale * weight.float()
        normal = (values - _over_channels(mean, x)) * _over_channels(scale, x)
        return (normal if bias is None else normal + _over_channels(bias.float(), x)).to(x.dtype)


def _over_channels(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *([1] * (x.ndim - 2)))


class _WholeBatches(TorchFunctionMode):
    """Has what looks at a batch as a whole, normalization and dropout, see it, whoever calls it.

    torch's own SyncBatchNorm is for cards alone, and replaces modules, of which some (timm's) do
    more than to normalize.
    """

    def __init__(self, team: Team, size: int) -> None:
        super().__init__()
        self._team, self._size = team, size

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is F.batch_norm:
            return self._normalize(*args, **(kwargs or {}))
        if func is F.dropout or func is F.dropout2d:
            return self._drop(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _normalize(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        given = (input, running_mean, running_var, weight, bias)
        if not training:
            return F.batch_norm(*given, False, momentum, eps)
        return whole_batch_norm(self._team, *given, momentum, eps)

    def _drop(
        self,
        func: Callable[..., Tensor],
        input: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Tensor:
        if not training or not p:
            return func(input, p, training, inplace)
        # All processes draw for the whole batch, in the order in which one would, and drop a part.
        last = input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last)
        form = torch.channels_last if last else torch.contiguous_format
        whole = input.new_ones((self._size, *input.shape[1:])).contiguous(memory_format=form)
        return input * self._team.part(func(whole, p, True))
