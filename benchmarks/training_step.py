"""What makes a training step on the CPU as fast as it is: each measure added to those before.

    python benchmarks/training_step.py

Steps of the two large trainings of own_images (MobileNetV2, random weights, random images), with
wall-clock time on all cores, the variants in turn. `plain` is torch as it is, with all of trained
normalization learning and, in the segmentation network, the shallow layers too.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from machine import machine_line
from torch import Tensor, nn

from affinitynet.dilated import faster_dilated
from affinitynet.memory import kept_memory
from affinitynet.models.backbone import build_backbone
from affinitynet.models.classifier import Classifier
from affinitynet.models.segmenter import build_segmentation_net
from affinitynet.run_folder.recipe import Recipe

CLASSES = 4


class Variant(NamedTuple):
    """What is added to torch as it is."""

    name: str
    memory: bool = False
    dilated: bool = False
    shallow: bool = False
    bf16: bool = False


VARIANTS = (
    Variant("plain"),
    Variant("memory kept", memory=True),
    Variant("dilation undone backward", memory=True, dilated=True),
    Variant("shallow layers don't learn", memory=True, dilated=True, shallow=True),
    Variant("bf16, not taken", memory=True, dilated=True, shallow=True, bf16=True),
)


class Cost(NamedTuple):
    """One step: seconds on the wall, pages taken from the system."""

    seconds: float
    pages: int


def step_of(network: nn.Module, crop: int, batch: int, bf16: bool) -> Callable[[], None]:
    """Return a function that takes one step with AdamW on random images."""
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(p for p in network.parameters() if p.requires_grad)
    images = torch.randn(batch, 3, crop, crop).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output: Tensor = network(images)
        output.float().square().mean().backward()
        optimizer.step()

    return step


@contextmanager
def applied(variant: Variant, network: nn.Module) -> Iterator[None]:
    """Put the variant's measures into force."""
    learns = {parameter: parameter.requires_grad for parameter in network.parameters()}
    with ExitStack() as stack:
        if variant.memory:
            stack.enter_context(kept_memory())
        if variant.dilated:
            stack.enter_context(faster_dilated(network))
        if not variant.shallow:
            for parameter in learns:
                parameter.requires_grad_(True)
        try:
            yield
        finally:
            for parameter, value in learns.items():
                parameter.requires_grad_(value)


def costs_of(variant: Variant, name: str) -> list[Cost]:
    """Take four steps of a network, of which the first is to warm up."""
    torch.manual_seed(0)
    network, crop, batch = NETWORKS[name]()
    with applied(variant, network):
        step = step_of(network, crop, batch, variant.bf16)
        step()
        return [_cost(step) for _ in range(3)]


def _cost(step: Callable[[], None]) -> Cost:
    pages, began = _pages(), time.perf_counter()
    step()
    return Cost(time.perf_counter() - began, _pages() - pages)


def _classifier() -> tuple[nn.Module, int, int]:
    recipe = _recipe()
    settings = recipe.classifier
    # "imagenet", though nothing is loaded: random weights would learn throughout.
    backbone = build_backbone(
        recipe.backbone, settings.output_stride, pretrained=False, norm=settings.norm
    )
    return Classifier(backbone, CLASSES), 384, settings.batch_size


def _segmenter() -> tuple[nn.Module, int, int]:
    recipe = _recipe()
    settings = recipe.segmenter
    network = build_segmentation_net(settings, recipe.backbone, CLASSES + 1, pretrained=False)
    return network, settings.crop, settings.batch_size


def _recipe() -> Any:
    return Recipe.load("own_images", data=".", out="none")


NETWORKS = {"classifier": _classifier, "segmenter": _segmenter}


def _pages() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(machine_line())
    for name in NETWORKS:
        costs: dict[str, list[Cost]] = {variant.name: [] for variant in VARIANTS}
        for _ in range(arguments.rounds):
            for variant in VARIANTS:
                # In a process of its own: what malloc learned of one would help the next.
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    costs[variant.name] += pool.submit(costs_of, variant, name).result()
        print(f"\n{name}\n\n| | a step | of plain | pages taken |\n|---|---|---|---|")
        plain = statistics.median(cost.seconds for cost in costs["plain"])
        for variant, found in costs.items():
            seconds = sorted(cost.seconds for cost in found)
            middle = statistics.median(seconds)
            pages = statistics.median(cost.pages for cost in found)
            print(
                f"| {variant} | {middle:.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f}) "
                f"| {middle / plain:.2f} | {pages:,.0f} |"
            )


if __name__ == "__main__":
    main()
