"""The ops with the bytes that each can't help moving, for `gpu.py`."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from affinitynet import ops
from affinitynet.ops._mean_field import mean_field
from affinitynet.ops._walk_tensors import walk_torch

CLASSES, MAPS, PAIRS = 20, 3, 34
PRODUCTS = 69  # of the weights with the maps, in 256 steps of the walk
Call = Callable[[], object]
IN_TENSORS = ", in tensors"
# What an operation calls by the device, and its twin in whole-tensor operations.
TWINS = {
    "random_walk": (("walk_numba", "walk_cuda"), walk_torch),
    "crf": (("mean_field_cpu", "mean_field_cuda"), mean_field),
}


def cases_of_ops(
    height: int, width: int, device: torch.device
) -> Iterator[tuple[str, int, Callable[[], Call]]]:
    """Yield each op with the bytes that it can't help moving and what makes its inputs."""
    h, w = -(-height // 8), -(-width // 8)
    cells, pixels = h * w, height * width

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=torch.Generator().manual_seed(0)).to(device)

    def cams() -> Call:
        features, weight = random(1, 2048, h, w), random(CLASSES, 2048)
        return lambda: ops.class_activation_maps(features, weight)

    yield "class_activation_maps", 4 * ((2048 + CLASSES) * cells + 2048 * CLASSES), cams

    def forward() -> Call:
        features = random(1, 448, h, w)
        return lambda: ops.pairwise_affinity(features)

    def backward() -> Call:
        features = random(1, 448, h, w).requires_grad_()
        pairs = ops.pairwise_affinity(features)
        slope = torch.rand_like(pairs)
        return lambda: torch.autograd.grad(pairs, features, slope, retain_graph=True)

    # Features in, affinities out; back: features, affinities and their gradient in, one out.
    yield "pairwise_affinity, forward", 4 * (448 + PAIRS) * cells, forward
    yield "pairwise_affinity, backward", 4 * (2 * 448 + 2 * PAIRS) * cells, backward

    def walk() -> Call:
        maps, affinity = random(1, MAPS, h, w), random(1, PAIRS, h, w)
        return lambda: ops.random_walk(maps, affinity)

    # Every product reads all weights and maps. Where a cache holds them the bound is too high.
    walk_bytes = 4 * PRODUCTS * (PAIRS + 2 * MAPS) * cells
    yield "random_walk, 256 steps, 3 maps", walk_bytes, walk
    yield f"random_walk, 256 steps, 3 maps{IN_TENSORS}", walk_bytes, lambda: in_tensors(walk())

    def picture() -> Tensor:
        coarse = random(1, 3, height // 16 + 1, width // 16 + 1)
        smooth = F.interpolate(coarse, (height, width), mode="bilinear")[0]
        return (255 * smooth).permute(1, 2, 0).to(torch.uint8).contiguous()

    def crf_bytes(labels: int) -> int:
        # In each of 10 iterations the 3 + 6 corners of a pixel, a number and a weight each, and
        # the scores in and out.
        return 10 * pixels * (9 * 8 + 2 * 4 * labels)

    def crf() -> Call:
        image, scores = picture(), random(MAPS, height, width)
        return lambda: ops.dense_crf(image, scores)

    def confident() -> Call:
        image, scores = picture(), random(MAPS - 1, height, width) ** 3
        return lambda: ops.confident_labels(image, scores)

    yield "dense_crf, 3 labels", crf_bytes(MAPS), crf
    yield f"dense_crf, 3 labels{IN_TENSORS}", crf_bytes(MAPS), lambda: in_tensors(crf())
    # Two sets of labels over the same corners.
    yield "confident_labels, 2 classes", crf_bytes(2 * MAPS), confident


def in_tensors(call: Call) -> Call:
    """Let a call take the walk and the mean field without kernels, Triton's or the CPU's."""

    def called() -> object:
        with ExitStack() as stack:
            for name, (functions, twin) in TWINS.items():
                module = importlib.import_module(f"affinitynet.ops.{name}")
                for function in functions:
                    stack.enter_context(patch.object(module, function, twin))
            return call()

    return called
