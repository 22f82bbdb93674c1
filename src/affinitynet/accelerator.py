"""Accelerate's Accelerator for one training, apart from what else there is in the process."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from affinitynet.engine.linked import hidden_launcher


@contextmanager
def accelerator_for(
    device: torch.device, precision: str, trackers: Sequence[str], logs: Path
) -> Iterator[Any]:
    """Make an Accelerator for one training, and leave the process as it was found.

    Results must follow from the recipe, whose fingerprint knows neither the environment nor what
    this process trained before. But accelerate takes settings from variables (the steps over which
    gradients are accumulated even against an explicit argument) and keeps its device and precision
    for the life of the process. So both are put aside during a training.
    """
    mixed = {"float32": "no"}.get(precision, precision)
    with _without_settings(device), hidden_launcher():
        # Here, because accelerate reads some variables when it is imported.
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState, GradientState, PartialState

        shared = [state._shared_state for state in (PartialState, AcceleratorState, GradientState)]
        found = [dict(state) for state in shared]
        for state in shared:
            state.clear()
        try:
            tracking = {"log_with": list(trackers), "project_dir": logs} if trackers else {}
            yield Accelerator(mixed_precision=mixed, cpu=device.type == "cpu", **tracking)
        finally:
            for state, before in zip(shared, found, strict=True):
                state.clear()
                state.update(before)


@contextmanager
def tracked(name: str, accelerator: Any) -> Iterator[None]:
    """Have the accelerator's trackers begin, and end what they write."""
    if not accelerator.log_with:
        yield
        return
    accelerator.init_trackers(name)
    try:
        yield
    finally:
        # Not end_training(), which would take linked processes apart.
        for tracker in accelerator.trackers:
            tracker.finish()


@contextmanager
def _without_settings(device: torch.device) -> Iterator[None]:
    """Hide accelerate's settings in the environment, and name it the device there.

    FSDP_*, MEGATRON_LM_* and the like count only where an ACCELERATE_USE_* asks for them.
    """
    found = _settings_of_accelerate()
    for name in found:
        del os.environ[name]
    os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)  # the only way to ask for cuda:1
    try:
        yield
    finally:
        for name in _settings_of_accelerate():
            del os.environ[name]
        os.environ.update(found)


def _settings_of_accelerate() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if name.startswith("ACCELERATE_")}
