"""Layers of a timm network that keep their ImageNet weights: the first, up to stride 4."""

from typing import Any

FROZEN_STRIDE = 4  # as the first layers of the paper's networks


def freeze_shallow(net: Any) -> None:
    """Let the layers up to stride 4 keep weights and normalization's scale and shift.

    Edges and colors are the same in all images, and half of a training step's work is at these
    strides. Normalization that is trained still takes mean and deviation from each batch.
    """
    shallow = [stage["module"] for stage in net.feature_info if stage["reduction"] <= FROZEN_STRIDE]
    if not shallow:
        return
    # timm's feature networks call `stages.0` `stages_0`.
    starts = (f"{shallow[-1]}.", f"{shallow[-1].replace('.', '_')}.")
    # In order of the forward pass: all up to the last shallow layer, the stem included.
    parameters = list(net.named_parameters())
    last = max((i for i, (name, _) in enumerate(parameters) if name.startswith(starts)), default=-1)
    for _, parameter in parameters[: last + 1]:
        parameter.requires_grad_(False)
