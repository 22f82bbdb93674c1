"""Batch normalization as a part of the convolution before it, where a network only predicts."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]


@contextmanager
def folded(network: nn.Module) -> Iterator[None]:
    """Let the convolutions of a network in eval mode do their normalization's work, within.

        g (w * x - m) / s + b = (g w / s) * x + (b - g m / s)

    with mean m, deviation s, scale g and shift b of each channel: the same but for rounding, and
    one pass over each map less. The network's own weights stay as they are.
    """
    pairs = _pairs(network)
    for conv, norm in pairs:
        vars(conv)["forward"] = fuse_conv_bn_eval(conv, norm).forward
        vars(norm)["forward"] = _rest_of(norm)
    try:
        yield
    finally:
        for pair in pairs:
            for module in pair:
                del vars(module)["forward"]


def _rest_of(norm: nn.BatchNorm2d) -> Callable[[Tensor], Tensor]:
    # timm's norms hold the activation behind them.
    behind = (norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else ()
    return nn.Sequential(*behind).forward


def _pairs(network: nn.Module) -> list[Pair]:
    """Find the convolutions whose output goes to one norm and nowhere else, by a small image.

    Not by their order in the network, which does not tell what else reads an output.
    """
    # Not of classes made from these, which may compute something else.
    convs = {id(m.weight): m for m in network.modules() if type(m) is nn.Conv2d}
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
        and type(module) in (nn.BatchNorm2d, BatchNormAct2d)
        and module.running_mean is not None
    ]
    if not convs or not norms:
        return []
    first = next(iter(convs.values()))
    image = first.weight.new_zeros(1, first.in_channels, 96, 96)
    with torch.no_grad(), _Calls() as calls:
        network(image)
    pairs = []
    for norm in norms:
        reads = calls.readers[id(norm.running_mean)]
        if len(reads) != 1:  # not in use, or in two places
            continue
        maps = reads[0][0]
        made_of = calls.made_of.get(id(maps), ())
        conv = convs.get(id(made_of[1])) if len(made_of) > 1 else None
        if conv is not None and calls.once(maps) and calls.once(conv.weight):
            pairs.append((conv, norm))
    return pairs


class _Calls(TorchFunctionMode):
    """What each tensor was made of, and who read it, as arguments of torch's functions."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[int, list[Any]] = defaultdict(list)
        self.made_of: dict[int, Any] = {}
        self._kept: list[Any] = []  # so that no two tensors share an id

    def once(self, tensor: Tensor) -> bool:
        """Tell whether one function alone read a tensor."""
        return len(self.readers[id(tensor)]) == 1

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        # What answers no tensor asked for a size or a type.
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(answer)):
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor):
                    self.readers[id(leaf)].append(args)
            self.made_of.setdefault(id(answer), args)  # what works in place answers its input
            self._kept.append((args, kwargs, answer))
        return answer
