"""A model on disk: `weights.safetensors` beside `model.json`, which says how to build it."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from affinitynet.errors import UserError
from affinitynet.run_folder import atomic_write, read_json

WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"


def save_model(folder: Path, model: nn.Module, description: dict[str, Any]) -> None:
    """Write the model's weights and, after them, what it takes to build it again."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary)
    with atomic_write(folder / DESCRIPTION) as temporary:
        temporary.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def read_description(folder: Path) -> dict[str, Any]:
    """Return what `save_model` wrote beside the weights.

    Raises:
        UserError: the folder holds no model.
    """
    file = folder / DESCRIPTION
    if not file.is_file():
        raise UserError(f"{folder}: holds no trained model ({DESCRIPTION} is missing)")
    return dict(read_json(file))


def load_weights_into(model: nn.Module, folder: Path) -> None:
    """Load the folder's weights into a model built from its description.

    Raises:
        UserError: the file is missing, damaged or of another model.
    """
    file = folder / WEIGHTS
    try:
        model.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file}: cannot be loaded ({reason}); redo the stage") from error
