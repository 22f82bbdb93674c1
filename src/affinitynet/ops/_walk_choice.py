"""The walk on a GPU: Triton's kernels, or tensors where there are none."""

from collections.abc import Sequence
from typing import Any

import torch

from affinitynet.ops._choice import Form, triton_choice
from affinitynet.ops._walk_tensors import walk_torch
from affinitynet.ops.affinity import displacements


def _load_triton() -> Form:
    from affinitynet.ops._walk_triton import walk

    return walk


def _example(device: torch.device) -> Sequence[Any]:
    offsets = displacements(2)
    numbers = torch.rand(1, 3 + len(offsets), 9, 11, generator=torch.Generator().manual_seed(0))
    maps, pairs = numbers[:, :3].to(device), numbers[:, 3:].to(device) ** 2
    return maps, pairs, offsets, (0.25, 0.25, 0.25, 0.25)


walk_cuda = triton_choice(walk_torch, _load_triton, "the random walk's", _example)
