"""CAM inference, scales and mirror images: ours against one image at a time in float32.

    python benchmarks/cam_inference.py                       ResNet-50, stride 16, 375x500
    python benchmarks/cam_inference.py --compile             with cams.compile as well
    python benchmarks/cam_inference.py --device cuda         on an accelerator

The peer is the original's arithmetic: each scale and each mirror image is a forward pass of its
own, in float32 and NCHW, and all classes' maps are brought to image size. Ours batches an image
with its mirror image, in channels_last, and upsamples the tagged classes only; it is measured in
float32 and, where the hardware multiplies bfloat16 (AVX512_BF16 or AMX on a CPU), under bf16
autocast. Weights are random: speed does not depend on them, masks do, so that nothing here says
whether bf16 is harmless. The variants take turns; a run of each before the first is not counted.
Where other work shares a CPU, trust the ratio of processor times, with --threads 1.

Two lines say what the arithmetic alone would take: the operations of the forward passes, at the
rate at which this machine multiplies two matrices of 1024 x 1024.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from machine import machine_line, processor_flags, settle
from original_pipeline import original_cams
from torch.utils.flop_counter import FlopCounterMode

from affinitynet.hardware import compiled
from affinitynet.models.backbone import build_backbone
from affinitynet.models.classifier import Classifier
from affinitynet.run_folder.settings import BackboneSettings
from affinitynet.stages.compute_cams import multi_scale_cams

Network = Callable[[torch.Tensor], torch.Tensor]

BF16_UNITS = ("avx512_bf16", "amx_bf16")


def bf16_units(device: torch.device) -> str:
    """Name what multiplies bfloat16 here; empty where it would be emulated."""
    if device.type == "cuda":
        return torch.cuda.get_device_name() if torch.cuda.is_bf16_supported(False) else ""
    return ", ".join(unit for unit in BF16_UNITS if unit in processor_flags())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet50", help="resnet38, vgg16 or a timm model")
    parser.add_argument("--stride", type=int, default=16, choices=(8, 16, 32))
    parser.add_argument("--image-size", default="375x500", help="height x width")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.5, 1.0, 1.5, 2.0])
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--tags", type=int, nargs="+", default=[0, 1], help="the image's classes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch; default: all cores")
    parser.add_argument("--compile", action="store_true", help="measure cams.compile too")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    height, width = (int(side) for side in arguments.image_size.split("x"))
    tags, scales = arguments.tags, arguments.scales

    torch.manual_seed(0)
    settings = BackboneSettings(name=arguments.backbone, weights="none")
    ours = Classifier(build_backbone(settings, arguments.stride), arguments.classes)
    peer = Classifier(build_backbone(settings, arguments.stride), arguments.classes)
    peer.load_state_dict(ours.state_dict())
    ours.to(device, memory_format=torch.channels_last).eval()
    peer.to(device, memory_format=torch.contiguous_format).eval()
    normalization: Any = ours.backbone.normalization
    coarse = torch.rand(1, 3, height // 16 + 1, width // 16 + 1)
    image = (255 * torch.nn.functional.interpolate(coarse, (height, width))[0]).to(torch.uint8)
    pixels, picture = image.to(device), image.permute(1, 2, 0).numpy()

    def in_float32(network: Network = ours.cams) -> torch.Tensor:
        return multi_scale_cams(network, normalization, pixels, tags, scales, True).cpu()

    def in_bf16(network: Network = ours.cams) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return in_float32(network)

    def one_at_a_time() -> torch.Tensor:
        return torch.from_numpy(original_cams(peer, normalization, picture, tags, scales))

    variants: dict[str, Callable[[], torch.Tensor]] = {
        "one image at a time, float32, NCHW": one_at_a_time,
        "ours, float32": in_float32,
    }
    if units := bf16_units(device):
        variants[f"ours, bf16 ({units})"] = in_bf16
    if arguments.compile:
        variants["ours, bf16, compiled" if units else "ours, compiled"] = partial(
            in_bf16 if units else in_float32, compiled(ours.cams)
        )
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            in_float32()
        began = time.perf_counter()
        results = {name: function() for name, function in variants.items()}
        first = time.perf_counter() - began
        times = alternate(variants, arguments.repeats)
        rates = {dtype: matrix_rate(dtype, device) for dtype in (torch.float32, torch.bfloat16)}

    print(machine_line(device))
    print(
        f"{arguments.backbone} at stride {arguments.stride}, {height}x{width}, scales "
        f"{', '.join(f'{scale:g}' for scale in scales)} and flip, {arguments.classes} classes, "
        f"{len(tags)} tags, {arguments.repeats} repeats\n"
    )
    base = next(iter(variants))
    print("| | median (range) | images/s | ratio | of processor times | mean difference |")
    print("|---|---|---|---|---|---|")
    for name in variants:
        wall = [row[0] for row in times[name]]
        middle = statistics.median(wall)
        ratios = [
            statistics.median(p[i] / t[i] for p, t in zip(times[base], times[name], strict=True))
            for i in range(2)
        ]
        error = float((results[name] - results[base]).abs().mean())
        print(
            f"| {name} | {middle:.3g} s ({min(wall):.3g} to {max(wall):.3g}) | {1 / middle:.3g} | "
            f"{ratios[0]:.2f} | {ratios[1]:.2f} | {error:.1e} |"
        )
    operations = counter.get_total_flops()
    print()
    for dtype, rate in rates.items():
        print(
            f"{operations / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s of matrix products in "
            f"{dtype}: {operations / rate:.3g} s"
        )
    print(f"First run of all variants, with compilation: {first:.0f} s")
    if not units:
        print("\nbf16: no bf16 units here (AVX512_BF16 or AMX), not measured")
    print("\nThe difference is that of CAMs in [0, 1]; the ratio is the median of the rounds'.")


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Answer the operations a second of a product of matrices, the best of ten."""
    matrix = torch.rand(1024, 1024, device=device).to(dtype)
    seconds = []
    for _ in range(10):
        settle()
        began = time.perf_counter()
        matrix @ matrix
        settle()
        seconds.append(time.perf_counter() - began)
    return 2 * len(matrix) ** 3 / min(seconds)


def alternate(
    variants: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, list[tuple[float, float]]]:
    """Call the functions in turn; answer seconds on the wall and of the processor."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, function in variants.items():
            settle()
            began, spent = time.perf_counter(), time.process_time()
            function()
            settle()
            times[name].append((time.perf_counter() - began, time.process_time() - spent))
    return times


if __name__ == "__main__":
    main()
