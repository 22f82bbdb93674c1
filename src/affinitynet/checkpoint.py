"""What a training that was stopped goes on from: `checkpoint.pt`."""

import hashlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.run_folder.folder import atomic_write

_MARK = b"affinitynet sha256 "  # begins the last bytes of a checkpoint


@dataclass
class State:
    """How far a training is.

    epochs: how many are finished. means: of the last one's losses. step: how many steps are done of
    the epoch behind them. sums: of their losses. random: torch's generators there, alike in all
    processes. history: what the curve's file doesn't hold of it. average: of the weights, where one
    is asked for.
    """

    epochs: int = 0
    means: dict[str, float] = field(default_factory=dict)
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    random: list[Tensor] = field(default_factory=list)
    history: dict[str, list[Any]] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)

    def add(self, losses: dict[str, float]) -> None:
        """Count a step."""
        self.step += 1
        for key, loss in losses.items():
            self.sums[key] = self.sums.get(key, 0.0) + loss

    def end_epoch(self) -> None:
        """Count an epoch, whose steps are all done."""
        self.means = {key: total / self.step for key, total in self.sums.items()}
        self.epochs, self.step, self.sums = self.epochs + 1, 0, {}
        self.random, self.history = [], {}


def random_state(device: torch.device) -> list[Tensor]:
    """Return the state of torch's generators, which dropout draws from: the CPU's, the device's."""
    device_state = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *device_state]


def restore_random(states: list[Tensor], device: torch.device) -> None:
    """Go on with the generators of an epoch that was begun; where none is given leave them."""
    if states:
        torch.set_rng_state(states[0].cpu())
    if len(states) > 1 and device.type == "cuda":
        torch.cuda.set_rng_state(states[1].cpu(), device)


def save_state(path: Path, model: nn.Module, optimizer: Any, state: State) -> None:
    """Write a checkpoint, with its checksum at the end.

    Raises:
        UserError: it can't be written.
    """
    content = {
        **vars(state),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    # Given a file, torch keeps the reason of a failed write; given a path, it loses it.
    with atomic_write(path) as temporary:
        with temporary.open("wb") as file:
            torch.save(content, file)
        with temporary.open("r+b") as file:
            checksum = hashlib.file_digest(file, "sha256").digest()
            file.write(_MARK + checksum)  # behind a zip file's end, where its readers look past it


def load_state(path: Path, model: nn.Module, optimizer: Any, device: torch.device) -> State:
    """Load a checkpoint into model and optimizer; without one the training is at its beginning.

    Raises:
        UserError: it is damaged, or none of this training.
    """
    if not path.is_file():
        return State()
    try:
        _check(path)
        # weights_only: a file from elsewhere can't run code here.
        found = torch.load(path, map_location=device, weights_only=True)
        if not all(tensor.isfinite().all() for tensor in found["model"].values()):
            raise ValueError("weights are not finite")  # which no lower rate would mend
        model.load_state_dict(found["model"])
        optimizer.load_state_dict(found["optimizer"])
        # A checkpoint of an earlier version lacks what lies inside an epoch.
        kept = {entry.name: found[entry.name] for entry in fields(State) if entry.name in found}
        return State(**{**kept, "epochs": int(found["epochs"]), "means": dict(found["means"])})
    except Exception as error:  # a damaged pickle or archive can raise anything
        # Not torch's reason: it is long, and advises to load the file without its safeguard.
        raise UserError(
            f"{path}: is no checkpoint of this training, or damaged; delete it: the training then "
            "starts again"
        ) from error


def _check(path: Path) -> None:
    """Compare a checkpoint with the checksum at its end: torch takes flipped bits for weights.

    Raises:
        ValueError: it differs, or there is none.
    """
    end = len(_MARK) + hashlib.sha256().digest_size
    whole = hashlib.sha256()
    with path.open("rb") as file:
        left = path.stat().st_size - end
        while left > 0 and (part := file.read(min(left, 1 << 20))):
            whole.update(part)
            left -= len(part)
        if file.read() != _MARK + whole.digest():
            raise ValueError("the checksum differs")
