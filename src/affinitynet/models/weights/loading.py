"""From a weights file to a network, with a report of what fitted."""

import pickle
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.models.weights.caffe import read_caffe
from affinitynet.models.weights.layouts import (
    PLAIN,
    Weights,
    expected_shapes,
    recognize,
    shapes_of,
)
from affinitynet.models.weights.mxnet import read_mxnet, resnet38_name
from affinitynet.run_folder.folder import atomic_write

_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".ckpt")
_WRAPPERS = ("state_dict", "model", "model_state")  # what training scripts put a state dict in
_SHOWN = 8


@dataclass(frozen=True)
class ConversionReport:
    """What became of a weights file.

    ``kind`` says what it is; ``recognised`` lists the tensors that were used, by our names,
    ``dropped`` those of the file that were not, by the file's names, ``missing`` those that the
    network has and the file lacks, by our names.
    """

    kind: str
    recognised: tuple[str, ...]
    dropped: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        """Format the report for a terminal."""
        return "\n".join(
            (
                f"kind: {self.kind}",
                f"recognised: {len(self.recognised)} tensors",
                f"dropped: {_listed(self.dropped)}",
                f"missing: {_listed(self.missing)}",
            )
        )


def _listed(names: tuple[str, ...]) -> str:
    if not names:
        return "nothing"
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def load_weights(path: str | Path) -> Weights:
    """Read a weights file and find out what it is.

    Read are ``.safetensors``, PyTorch's ``.pth`` / ``.pt`` / ``.bin`` / ``.tar`` / ``.ckpt``
    (tensors only, never code), MXNet's ``.params`` and ``.caffemodel``. Known are our own files,
    the classifiers and affinity networks of the paper's public code ("psa ResNet38 classifier"),
    the ResNet-38 of MXNet ("MXNet ResNet38") and the VGG-16 of Caffe ("Caffe VGG16"), the last
    two without their ImageNet layer; any other state dict is "plain state dict". Floating-point
    tensors come as float32.

    Raises:
        UserError: no such file, an unknown suffix, a damaged file, or a tensor of a known network
            with a shape that this network does not have.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; correct the path")
    suffix = path.suffix.lower()
    if suffix == ".params":
        weights = _recognize_mxnet(read_mxnet(path))
    elif suffix == ".caffemodel":
        weights = recognize(read_caffe(path), "Caffe", heads=False)
    elif suffix == ".safetensors":
        weights = recognize(_read_safetensors(path), "psa")
    elif suffix in _TORCH_SUFFIXES:
        weights = recognize(_read_torch(path), "psa")
    else:
        known = ", ".join((".safetensors", *_TORCH_SUFFIXES, ".params", ".caffemodel"))
        raise UserError(f"{path}: not a weights file by its name; known endings are {known}")
    _check_shapes(path, weights, expected_shapes(weights.tensors) or {})
    return weights


def _recognize_mxnet(arrays: Mapping[str, Tensor]) -> Weights:
    names = {name: resnet38_name(name) for name in arrays}
    known = {ours: _float32(arrays[name]) for name, ours in names.items() if ours is not None}
    # Names that are none of ResNet-38's: they are reported as dropped.
    unknown = tuple(name for name, ours in names.items() if ours is None)
    if not known:
        return recognize({name: _float32(array) for name, array in arrays.items()}, "MXNet")
    weights = recognize(known, "MXNet", heads=False)
    in_file = {ours: name for name, ours in names.items() if ours is not None}
    return Weights(
        kind=weights.kind,
        tensors=weights.tensors,
        sources={name: in_file[source] for name, source in weights.sources.items()},
        dropped=unknown + tuple(in_file[name] for name in weights.dropped),
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return {name: _float32(tensor) for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}); get it again"
        ) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        # weights_only: a checkpoint from elsewhere may build tensors but run no code.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: holds more than tensors, or is no PyTorch file; save its state_dict() alone"
        ) from error
    except Exception as error:  # a damaged pickle or archive can raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a readable PyTorch file ({reason}); get it again") from error
    # Checkpoints may be wrapped more than once.
    while isinstance(content, dict) and (key := _wrapper(content)) is not None:
        content = content[key]
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: holds no state dict; save a model's state_dict()")
    tensors = {
        str(name).removeprefix("module."): _float32(value)  # DataParallel's prefix
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise UserError(f"{path}: holds no tensors under names; save a model's state_dict()")
    return tensors


def _wrapper(content: Mapping[object, object]) -> str | None:
    return next((key for key in _WRAPPERS if isinstance(content.get(key), dict)), None)


def _float32(tensor: Tensor) -> Tensor:
    # Half precision is for storing; counters keep their integers.
    return tensor.float() if tensor.is_floating_point() else tensor


def _check_shapes(path: Path, weights: Weights, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, tensor in weights.tensors.items():
        if name in shapes and tuple(tensor.shape) != shapes[name]:
            raise UserError(
                f"{path}: {weights.sources[name]} has the shape {tuple(tensor.shape)} where the "
                f"network has {shapes[name]}; give this network's file"
            )


def _missing(shapes: Iterable[str], tensors: Container[str]) -> tuple[str, ...]:
    # BatchNorm's counter of batches is no weight, and only PyTorch has it.
    return tuple(
        name for name in shapes if name not in tensors and not name.endswith("num_batches_tracked")
    )


def _load(module: nn.Module, path: Path, weights: Weights) -> ConversionReport:
    """Copy what `module` has names for; `weights` are already under the module's names."""
    shapes = shapes_of(module)
    if not shapes.keys() & weights.tensors.keys():
        in_file = _listed(tuple(weights.sources.values()))
        raise UserError(
            f"{path} ({weights.kind}) fits nowhere in this network: the file has {in_file}; "
            f"the network has {_listed(tuple(shapes))}"
        )
    _check_shapes(path, weights, shapes)
    # Not strict: heads that differ are reported, not refused.
    module.load_state_dict(weights.tensors, strict=False)
    used = tuple(name for name in weights.tensors if name in shapes)
    unused = tuple(source for name, source in weights.sources.items() if name not in shapes)
    return ConversionReport(
        weights.kind, used, weights.dropped + unused, _missing(shapes, weights.tensors)
    )


def load_backbone(backbone: nn.Module, path: str | Path) -> ConversionReport:
    """Load whatever fits from any known weights file into a backbone.

    A state dict that is none of the known ones is taken for that of the network inside: a timm
    file goes into ``backbone.net``, whose names it has.
    Heads are reported as dropped; what the file lacks keeps its value and is reported as missing.

    Raises:
        UserError: as :func:`load_weights`, or nothing in the file fits, or a shape does not.
    """
    path = Path(path)
    weights = load_weights(path)
    # Only the network itself can say whether these names are its own.
    if weights.kind == PLAIN:
        return _load(backbone, path, _as_named_in(backbone, weights))
    own = {
        name.removeprefix("backbone."): tensor
        for name, tensor in weights.tensors.items()
        if name.startswith("backbone.")
    }
    sources = {name: weights.sources[f"backbone.{name}"] for name in own}
    heads = tuple(
        source for name, source in weights.sources.items() if not name.startswith("backbone.")
    )
    return _load(backbone, path, Weights(weights.kind, own, sources, weights.dropped + heads))


def _as_named_in(backbone: nn.Module, weights: Weights) -> Weights:
    """Put a plain state dict under ``net.`` where that is what the backbone calls its network."""
    own = backbone.state_dict()
    names = {name: f"net.{name}" if f"net.{name}" in own else name for name in weights.tensors}
    return Weights(
        kind="timm" if any(f"net.{name}" in own for name in names) else PLAIN,
        tensors={names[name]: tensor for name, tensor in weights.tensors.items()},
        sources={ours: name for name, ours in names.items()},
    )


def convert_weights(path_in: str | Path, path_out: str | Path) -> ConversionReport:
    """Rewrite a weights file of the paper's networks as safetensors in our layout.

    Raises:
        UserError: as :func:`load_weights`; the file is none of the paper's networks; or
            ``path_out`` does not end in ``.safetensors`` or is there already.
    """
    path_in, path_out = Path(path_in), Path(path_out)
    if path_out.suffix != ".safetensors":
        raise UserError(f"{path_out}: give the converted file a name ending in .safetensors")
    if path_out.exists():  # it may be the source itself
        raise UserError(f"{path_out}: is there already; name a new file")
    weights = load_weights(path_in)
    shapes = expected_shapes(weights.tensors)
    if shapes is None:
        raise UserError(
            f"{path_in}: none of the paper's networks; a timm network's own weights need no "
            "conversion, give the file as it is"
        )
    kept = {name: tensor for name, tensor in weights.tensors.items() if name in shapes}
    with atomic_write(path_out) as temporary:
        save_file(
            # Cloned, because safetensors refuses tensors that share their memory.
            {
                name: tensor.clone(memory_format=torch.contiguous_format)
                for name, tensor in kept.items()
            },
            temporary,
            metadata={"format": "pt", "kind": weights.kind},
        )
    unknown = tuple(weights.sources[name] for name in weights.tensors if name not in shapes)
    return ConversionReport(
        weights.kind, tuple(kept), weights.dropped + unknown, _missing(shapes, kept)
    )
