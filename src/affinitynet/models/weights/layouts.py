"""Which network a file's tensors belong to, and what they are called here.

Our own layout names every tensor ``backbone.*`` or ``head.*``, for classifiers (whose head is a
:class:`~affinitynet.models.heads.CamHead`) and affinity networks
(:class:`~affinitynet.models.heads.AffinityHead`) alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from affinitynet.models.heads import AffinityHead, CamHead
from affinitynet.models.resnet38 import ResNet38
from affinitynet.models.vgg16 import VGG16

Shapes = dict[str, tuple[int, ...]]

OURS = "affinitynet"
PLAIN = "plain state dict"

_CLASSIFIER_HEAD = {"fc8": "head.fc"}
_AFFINITY_HEAD = {
    "f8_3": "head.reduce.0",
    "f8_4": "head.reduce.1",
    "f8_5": "head.reduce.2",
    "gn8_3": "head.norm.0",
    "gn8_4": "head.norm.1",
    "gn8_5": "head.norm.2",
    "f9": "head.mix",
}


@dataclass(frozen=True)
class Weights:
    """A file's tensors under our names, and what the file turned out to be.

    ``tensors`` are in our layout unless ``kind`` is "plain state dict": then they keep their
    names, and only a network can say whether they fit. ``sources`` gives the name in the file of
    each tensor, ``dropped`` the names that have no place in our layout.
    """

    kind: str
    tensors: dict[str, Tensor]
    sources: dict[str, str]
    dropped: tuple[str, ...] = ()


def _paper_backbone(tensors: Mapping[str, Tensor], prefix: str) -> ResNet38 | VGG16 | None:
    """Build, without memory, the paper's backbone that has these tensors, at their width."""
    networks: tuple[tuple[str, Callable[[float], ResNet38 | VGG16]], ...] = (
        # The first layer has 64 channels at full width: the rest follows from how many it has here.
        ("conv1a.weight", lambda width: ResNet38(width)),
        ("conv1_1.weight", lambda width: VGG16(width=width)),
    )
    for first_layer, build in networks:
        first = tensors.get(prefix + first_layer)
        if first is not None and first.ndim > 0:
            with torch.device("meta"):
                return build(first.shape[0] / 64)
    return None


def _paper_head(tensors: Mapping[str, Tensor], channels: Sequence[int]) -> nn.Module | None:
    """Build, without memory, the head that these tensors (in our layout) belong to."""
    with torch.device("meta"):
        if "head.fc.weight" in tensors:
            return CamHead(channels[-1], len(tensors["head.fc.weight"]))
        reductions = [f"head.reduce.{index}.weight" for index in range(len(channels))]
        if all(name in tensors for name in reductions):
            widths = [len(tensors[name]) for name in reductions]
            group_norm = any(name.startswith("head.norm.") for name in tensors)
            return AffinityHead(channels, widths, group_norm)
    return None


def shapes_of(module: nn.Module) -> Shapes:
    """List a module's tensors and their shapes."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def recognize(tensors: Mapping[str, Tensor], origin: str, heads: bool = True) -> Weights:
    """Find out whose tensors these are and give them our names.

    ``origin`` begins the kind's name ("psa", "MXNet", "Caffe"); without ``heads``, the last layer
    is dropped (ImageNet's classes are of no use here).
    """
    # First, since our own files need no renaming whatever network they hold.
    if all(name.startswith(("backbone.", "head.")) for name in tensors):
        return Weights(OURS, dict(tensors), {name: name for name in tensors})
    found = _paper_backbone(tensors, "")
    if found is None:
        return Weights(PLAIN, dict(tensors), {name: name for name in tensors})
    backbone = shapes_of(found)
    head: dict[str, str] = {}
    kind = f"{origin} {type(found).__name__}"
    # The affinity network before the classifier: both have the backbone's layers.
    if heads and all(f"{name}.weight" in tensors for name in ("f8_3", "f8_4", "f8_5", "f9")):
        head, kind = _AFFINITY_HEAD, f"{kind} affinity"
    elif heads and "fc8.weight" in tensors:
        head, kind = _CLASSIFIER_HEAD, f"{kind} classifier"

    renamed: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    dropped = []
    for name, tensor in tensors.items():
        layer, _, value = name.rpartition(".")
        if name in backbone:
            ours = f"backbone.{name}"
        elif layer in head:
            ours = f"{head[layer]}.{value}"
        else:
            dropped.append(name)
            continue
        renamed[ours] = tensor
        sources[ours] = name
    return Weights(kind, renamed, sources, tuple(dropped))


def expected_shapes(tensors: Mapping[str, Tensor]) -> Shapes | None:
    """List what the paper's network that these tensors (in our layout) belong to consists of.

    The width, the number of classes and the head are read from the tensors themselves; None where
    the backbone is none of the paper's. A file without a head expects none.
    """
    backbone = _paper_backbone(tensors, "backbone.")
    if backbone is None:
        return None
    shapes = {f"backbone.{name}": shape for name, shape in shapes_of(backbone).items()}
    head = _paper_head(tensors, backbone.channels)
    if head is not None:
        shapes.update({f"head.{name}": shape for name, shape in shapes_of(head).items()})
    return shapes
