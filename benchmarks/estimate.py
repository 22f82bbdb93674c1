"""What the full PASCAL VOC 2012 run costs, by calculation: operations, bytes, memory, hours.

    python benchmarks/estimate.py                                   recipes/voc12_resnet38.yaml
    python benchmarks/estimate.py --backbone vgg16 --tflops 60 --utilization 0.5
    python benchmarks/estimate.py --backbone resnet50               the first with another backbone

An estimate, not a measurement. Operations (two a multiply-add) and bytes of the networks are
counted on tensors without storage at the recipe's own sizes, forward and, for trainings, backward;
bytes are those that every operation reads and writes, without any fusion. A network's time is the
larger of operations over (peak x utilization) and bytes over bandwidth. The CPU kernels are timed
here, one thread, on one image of 375 x 500 with two tags (a smooth synthetic one, or --image: a
real one takes longer), and divided by --cores. The memory of a training is its parameters,
gradients and momentum, and what the forward pass keeps for the backward pass, all in float32;
mixed precision about halves the activations. Libraries and the allocator come on top.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import machine_line
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from affinitynet.data import load_image
from affinitynet.data.grids import half_disc
from affinitynet.models.affinity_net import build_affinity_net
from affinitynet.models.classifier import build_classifier
from affinitynet.models.segmenter import build_segmentation_net
from affinitynet.ops import (
    confident_labels,
    dense_crf,
    enlarge_scores,
    pairwise_affinity,
    refine_scores,
)
from affinitynet.run_folder.recipe import Recipe
from affinitynet.walking import walked

IMAGES = {"train_aug": 10_582, "train": 1_464, "val": 1_449, "trainval": 2_913}
CLASSES = 20
TAGS_ON_AVERAGE = 1.555
CAM_BYTES = 51e3  # an image's file, as measured (data/cams.py)
TAGS = 2  # an image has 1.5 classes on average, and two is what most kernels are measured with
SIZE = (375, 500)
GIGA, TERA = 1e9, 1e12


class Traffic(TorchDispatchMode):
    """Count the bytes that operations read and write; views move none."""

    def __init__(self) -> None:
        """Start at nothing."""
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and count its tensors."""
        answer = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, answer)) if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return answer


@dataclass(frozen=True)
class Cost:
    """Of one call: operations, bytes moved, bytes of memory at its height."""

    flops: float
    bytes: float
    memory: float = 0.0


def training_cost(model: nn.Module, images: Tensor) -> Cost:
    """Count one step: forward, backward, and the update with momentum."""
    model.train()
    kept: dict[int, Tensor] = {}
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter, Traffic() as traffic:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            answer = model(images)
        answer.sum().backward()
    activations = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    trained = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    whole = 4 * sum(p.numel() for p in model.parameters())
    # The update reads and writes weight and momentum, and reads the gradient.
    memory = whole + 2 * trained + activations
    return Cost(counter.get_total_flops(), traffic.bytes + 5 * trained, memory)


def inference_cost(model: nn.Module, function: Callable[[Tensor], Any], images: Tensor) -> Cost:
    """Count one forward pass; its memory is that of the parameters and the largest layer."""
    model.eval()
    largest = 0

    def see(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal largest
        largest = max(largest, 4 * (inputs[0].numel() + output.numel()))

    hooks = [m.register_forward_hook(see) for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad(), FlopCounterMode(display=False) as counter, Traffic() as traffic:
        function(images)
    for hook in hooks:
        hook.remove()
    whole = 4 * sum(p.numel() for p in model.parameters())
    return Cost(counter.get_total_flops(), traffic.bytes, whole + largest)


def batch(count: int, height: int, width: int) -> Tensor:
    """Give a batch of images without storage."""
    return torch.empty(count, 3, height, width, device="meta")


def summed(costs: list[Cost]) -> Cost:
    """Add calls that follow each other."""
    return Cost(
        sum(cost.flops for cost in costs),
        sum(cost.bytes for cost in costs),
        max(cost.memory for cost in costs),
    )


def scaled_sizes(scales: tuple[float, ...]) -> list[tuple[int, int]]:
    return [(round(SIZE[0] * scale), round(SIZE[1] * scale)) for scale in scales]


def network_costs(recipe: Recipe) -> dict[str, tuple[str, int, Cost]]:
    """Count the stages with a network: what is counted, how many calls, cost of one."""
    train, val = (IMAGES[name or ""] for name in (recipe.dataset.train, recipe.dataset.val))
    backbone = recipe.backbone.model_copy(update={"weights": "none"})
    with torch.device("meta"):
        names = [f"class {number}" for number in range(CLASSES)]
        classifier = build_classifier(backbone, recipe.classifier, names)
        affinity = build_affinity_net(backbone, recipe.affinity)
        chosen = recipe.segmenter.backbone or backbone
        chosen = chosen.model_copy(update={"weights": "none"})
        segmenter = build_segmentation_net(recipe.segmenter, chosen, CLASSES + 1)

    def training(settings: Any, model: nn.Module) -> tuple[str, int, Cost]:
        steps = train // settings.batch_size * settings.epochs
        cost = training_cost(model, batch(settings.batch_size, settings.crop, settings.crop))
        return f"{steps:,} steps of {settings.batch_size} x {settings.crop}²", steps, cost

    flips = 1 + recipe.cams.flip
    cams = [
        inference_cost(classifier, classifier.cams, batch(flips, *size))
        for size in scaled_sizes(recipe.cams.scales)
    ]
    padded = (SIZE[0] + -SIZE[0] % affinity.stride, SIZE[1] + -SIZE[1] % affinity.stride)
    flips = 1 + recipe.segmenter.flip
    predicting = [
        inference_cost(segmenter, segmenter, batch(flips, *size))
        for size in scaled_sizes(recipe.segmenter.scales)
    ]
    forward = inference_cost(affinity, affinity, batch(1, *padded))
    views = f"{len(predicting)} scales{' and flip' if recipe.segmenter.flip else ''}"
    relabelled = train * recipe.relabel.enabled
    return {
        "train_classifier": training(recipe.classifier, classifier),
        "compute_cams": (
            f"{train + val:,} images, {len(cams)} scales and flip",
            train + val,
            summed(cams),
        ),
        "train_affinity": training(recipe.affinity, affinity),
        "propagate: network": (f"{train:,} images", train, forward),
        "train_segmenter": training(recipe.segmenter, segmenter),
        "relabel": (f"{relabelled:,} images, {views}", relabelled, summed(predicting)),
        "predict val": (f"{val:,} images, {views}", val, summed(predicting)),
    }


def kernel_seconds(recipe: Recipe, file: Path | None) -> dict[str, tuple[int, float]]:
    """Time the CPU kernels on one image: images of the stage, seconds an image, one thread."""
    torch.manual_seed(0)
    torch.set_num_threads(1)

    def smooth(channels: int, height: int, width: int) -> Tensor:
        return F.interpolate(torch.rand(1, channels, 9, 12), (height, width), mode="bicubic")[0]

    if file:
        image = torch.from_numpy(load_image(file))
    else:
        image = (255 * smooth(3, *SIZE).clamp(0, 1)).to(torch.uint8).permute(1, 2, 0)
    height, width = image.shape[:2]
    cams = smooth(TAGS, height, width).clamp(0, 1)
    radius = recipe.affinity.radius
    rows, columns = -(-height // 8), -(-width // 8)
    affinity = pairwise_affinity(smooth(448, rows, columns)[None], radius)
    walk = recipe.walk
    predicted = smooth(CLASSES + 1, height, width).clamp(0.001, 1)

    def walking() -> None:
        scores = walked(cams, affinity, walk, radius=radius, stride=8)
        spread = enlarge_scores(scores, 8, (height, width))
        if walk.refine:
            refine_scores(image, spread, **walk.crf.model_dump())

    train, val = (IMAGES[name or ""] for name in (recipe.dataset.train, recipe.dataset.val))
    work = {
        "mine_confident": (train, lambda: confident_labels(image, cams)),
        "propagate: walk and CRF": (train, walking),
        "predict val: CRF, 21 labels": (
            val * recipe.segmenter.refine,
            lambda: dense_crf(image, predicted),
        ),
    }
    return {name: (images, _best(function)) for name, (images, function) in work.items()}


def _best(function: Callable[[], object], repeats: int = 3) -> float:
    """Answer the shortest of some calls, on this thread's own clock; the first call compiles."""
    function()
    times = []
    for _ in range(repeats):
        began = time.thread_time()
        function()
        times.append(time.thread_time() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet38", choices=("resnet38", "vgg16", "resnet50"))
    parser.add_argument("--recipe", type=Path, help="default: voc12_BACKBONE, of the package")
    parser.add_argument("--tflops", type=float, default=60, help="peak of the GPU, TFLOP/s")
    parser.add_argument("--utilization", type=float, default=0.5, help="share of it in use")
    parser.add_argument("--bandwidth", type=float, default=900, help="of its memory, GB/s")
    parser.add_argument("--cores", type=int, default=8, help="for the CPU kernels")
    parser.add_argument("--image", type=Path, help="time the CPU kernels on this photograph")
    arguments = parser.parse_args()
    other = arguments.backbone == "resnet50"  # which has no recipe of its own
    file = arguments.recipe or Path(f"voc12_{'resnet38' if other else arguments.backbone}")
    recipe = Recipe.load(file)
    if other:
        backbone = recipe.backbone.model_copy(update={"name": arguments.backbone})
        recipe = recipe.model_copy(update={"backbone": backbone})
    speed = arguments.tflops * arguments.utilization * TERA

    print(
        f"Estimate for {file.name} with {recipe.backbone.name} on VOC 2012 "
        f"({recipe.dataset.train}: {IMAGES[recipe.dataset.train]:,} images), a GPU of "
        f"{arguments.tflops:g} TFLOP/s at {arguments.utilization:.0%}, "
        f"{arguments.bandwidth:g} GB/s, {arguments.cores} CPU cores\n"
    )
    print(
        "| stage | work | TFLOP | TB moved | memory, float32 | hours |\n|---|---|---|---|---|---|"
    )
    total = 0.0
    for name, (what, calls, cost) in network_costs(recipe).items():
        flops, moved = calls * cost.flops, calls * cost.bytes
        hours = max(flops / speed, moved / (arguments.bandwidth * GIGA)) / 3600
        total += hours
        if calls:
            print(
                f"| {name} | {what} | {flops / TERA:,.0f} | {moved / TERA:,.0f} | "
                f"{cost.memory / GIGA:.1f} GB | {hours:.1f} |"
            )
    for name, (images, seconds) in kernel_seconds(recipe, arguments.image).items():
        hours = images * seconds / arguments.cores / 3600
        total += hours
        if images:
            what = f"{images:,} images, {1e3 * seconds:.0f} ms each on one core"
            print(f"| {name} | {what} | | | | {hours:.2f} |")
    print(f"| in all | | | | | {total:.0f} |")
    made = IMAGES[recipe.dataset.train] + IMAGES[recipe.dataset.val or ""]
    pairs = half_disc(recipe.affinity.radius)
    cells = math.prod(-(-side * recipe.affinity.scale // 8) for side in SIZE)
    kept = IMAGES[recipe.dataset.train] * cells * 2 * (pairs + 1 + TAGS_ON_AVERAGE)
    print(
        f"\nOn disk: CAMs {made * CAM_BYTES / GIGA:.1f} GB, affinities and scores "
        f"{kept / GIGA:.1f} GB ({TAGS_ON_AVERAGE} tags an image)"
    )
    print(f"CPU kernels timed on {machine_line()}")


if __name__ == "__main__":
    main()
