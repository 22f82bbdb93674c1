"""A model on disk: `weights.safetensors` beside `model.json`, which says how to build it."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from affinitynet.errors import UserError
from affinitynet.run_folder.folder import atomic_write, read_json, write_json

WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"


def save_model(folder: Path, model: nn.Module, description: dict[str, Any]) -> None:
    """Write the model's weights and, after them, what it takes to build it again."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        # Not `save_file`: its files are the owner's alone, and its errors don't say their cause.
        temporary.write_bytes(save(tensors))
    write_json(folder / DESCRIPTION, description)


def read_description(folder: Path, stage: str) -> dict[str, Any]:
    """Return what `save_model` wrote beside the weights, in the folder of `stage`.

    Raises:
        UserError: the folder holds no model, or its description is damaged.
    """
    file = folder / DESCRIPTION
    if not file.is_file():
        raise UserError(f"{folder}: holds no trained model ({DESCRIPTION} is missing)")
    description = read_json(file, stage)
    if not isinstance(description, dict):
        raise UserError(f"{file}: describes no model; make it anew with --redo {stage}")
    return description


def load_weights_into(model: nn.Module, folder: Path, stage: str) -> None:
    """Load the folder's weights, which `stage` made, into a model built from its description.

    Raises:
        UserError: the file is missing, damaged or of another model.
    """
    file = folder / WEIGHTS
    try:
        model.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file}: cannot be loaded ({reason}); make it anew with --redo {stage}"
        ) from error
