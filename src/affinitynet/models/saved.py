"""A network on disk: `weights.safetensors` beside `model.json`, from which alone it is built."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from affinitynet.errors import UserError
from affinitynet.run_folder.artifacts import DESCRIPTION, WEIGHTS
from affinitynet.run_folder.folder import atomic_write, read_json, write_json
from affinitynet.run_folder.settings import BackboneSettings

CHECKSUM = "weights_sha256"  # in the description; earlier versions wrote none


class Description(BaseModel):
    """What it takes to build a network; `stage` names the stage that makes it."""

    # A later version may write keys of which this one knows nothing.
    model_config = ConfigDict(extra="ignore", frozen=True)

    stage: ClassVar[str]


class SavedBackbone(BackboneSettings):
    """The recipe's `backbone` as it was, with unknown keys ignored likewise."""

    model_config = ConfigDict(extra="ignore")

    # Required: a description that does not say them must not get the recipe's defaults.
    name: str
    weights: str


AnyDescription = TypeVar("AnyDescription", bound=Description)
AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


def save_model(folder: Path, model: nn.Module, description: Description) -> None:
    """Write the network's weights and, after them, what it takes to build it again.

    The latter holds the SHA-256 of the former, which is looked at when they are loaded.
    """
    tensors = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        # Not `save_file`: its files are the owner's alone, and its errors don't say their cause.
        content = save(tensors)
        temporary.write_bytes(content)
    checksum = {CHECKSUM: hashlib.sha256(content).hexdigest()}
    # Last, so that a folder with a description has its weights.
    write_json(folder / DESCRIPTION, description.model_dump(mode="json") | checksum)


def load_model(
    folder: Path, kind: type[AnyDescription], build: Callable[[AnyDescription], AnyNetwork]
) -> tuple[AnyNetwork, AnyDescription]:
    """Build the network that a folder describes, in eval mode and with its weights.

    Raises:
        UserError: the folder holds no network, another kind of network, or a damaged one.
    """
    description = read_description(folder, kind)
    try:
        model = build(description)
    except UserError as error:
        raise UserError(
            f"{folder / DESCRIPTION}: {error}; make it again with --redo {kind.stage}"
        ) from error
    # Before they are loaded: a flipped bit in a weight is no error to any loader.
    _check_weights(folder, kind.stage)
    _load_weights(model, folder / WEIGHTS, kind.stage)
    return model.eval(), description


def read_description(folder: Path, kind: type[AnyDescription]) -> AnyDescription:
    """Return what `save_model` wrote beside the weights.

    Raises:
        UserError: the folder holds no network, or describes none of this kind.
    """
    file = folder / DESCRIPTION
    if not file.is_file():
        raise UserError(f"{folder}: holds no trained model ({DESCRIPTION} is missing)")
    try:
        return kind.model_validate(read_json(file, kind.stage))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        network = kind.stage.removeprefix("train_")
        raise UserError(
            f"{file}: describes no {network} network that this version can build ({reason}); "
            f"make it again with --redo {kind.stage}"
        ) from error


def _check_weights(folder: Path, stage: str) -> None:
    expected = read_json(folder / DESCRIPTION, stage).get(CHECKSUM)
    file = folder / WEIGHTS
    if expected is None or not file.is_file():
        return
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != expected:
        raise UserError(
            f"{file}: can't be loaded (its content is not what was written: the SHA-256 in "
            f"{DESCRIPTION} is another); make it again with --redo {stage}"
        )


def _load_weights(model: nn.Module, file: Path, stage: str) -> None:
    try:
        model.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        # PyTorch lists every key that does not fit, over hundreds of lines.
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file}: can't be loaded ({reason}); make it again with --redo {stage}"
        ) from error
