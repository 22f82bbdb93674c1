"""All that a GPU can say of this package in under ten minutes; smaller on the CPU.

    python benchmarks/gpu.py                            CUDA where there is one, else the CPU
    python benchmarks/gpu.py --device cuda:1 --minutes 9 --out gpu

Writes OUT.json and OUT.md (and prints the latter): the CUDA parity tests, each op against the
least time that the memory's bandwidth allows, the walk and the CRF with their kernels (Triton's on
CUDA) and in tensors, CAM inference and one training step of the networks on ResNet-50, ResNet-38
and ViT-S in float32, bf16 and compiled. What fails is said in its row,
and after --minutes the rest is left out and named, so that a lent machine is never wasted.

The bound of an op is the bytes that it can't help moving, by calculation, over the bandwidth of a
copy, as measured here. An op much slower than its bound is limited by something else: small
kernels launched one by one, or arithmetic. Peak memory is what a call takes beyond the weights
and inputs that were there before. Weights are random; speed does not depend on them.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import machine_line
from measure import in_words, peak_memory
from op_bounds import IN_TENSORS, Call, cases_of_ops
from torch import Tensor

from affinitynet import ops
from affinitynet.hardware import Hardware, compiled, find_device, inference
from affinitynet.models.affinity_net import build_affinity_net
from affinitynet.models.classifier import Classifier, build_classifier
from affinitynet.run_folder.backbone_names import transformer_kind
from affinitynet.run_folder.settings import (
    AffinitySettings,
    BackboneSettings,
    ClassifierSettings,
    TrainingSettings,
)
from affinitynet.stages.compute_cams import multi_scale_cams
from affinitynet.training import parameter_groups

ROOT = Path(__file__).resolve().parents[1]
BACKBONES = ("resnet50", "resnet38", "vit_small_patch16_224")
CLASSIFIER, AFFINITY = "classifier", "affinity network"
CLASSES, TAGS = 20, (0, 1)


@dataclass(frozen=True)
class Sizes:
    """What is measured on: the ops' image, CAM inference, and crops by backbone."""

    image: tuple[int, int]
    cams: tuple[int, int]
    scales: tuple[float, ...]
    batches: dict[str, int]
    crops: dict[str, int]
    repeats: int
    copy: int  # bytes
    compile_steps: bool  # takes minutes on a CPU, where nothing offers it


FULL = Sizes(
    image=(375, 500),
    cams=(375, 500),
    scales=(0.5, 1, 1.5, 2),
    batches={CLASSIFIER: 16, AFFINITY: 8},  # as the paper's recipes
    crops=dict.fromkeys(BACKBONES, 448),
    repeats=7,
    copy=1 << 30,
    compile_steps=True,
)
SMALL = Sizes(
    image=(188, 250),
    cams=(64, 80),
    scales=(0.5, 1),
    batches={CLASSIFIER: 2, AFFINITY: 2},
    crops={"resnet50": 64, "resnet38": 48, "vit_small_patch16_224": 64},
    repeats=3,
    copy=1 << 27,
    compile_steps=False,
)


@dataclass
class Report:
    """What was found so far; written after every row."""

    out: Path
    machine: str
    sizes: Sizes
    deadline: float
    tests: dict[str, Any]
    bandwidth: float = 0.0  # bytes a second
    ops: list[dict[str, Any]] = field(default_factory=list)
    networks: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(
        self, rows: list[dict[str, Any]], name: str, make: Callable[[], dict[str, Any]]
    ) -> None:
        """Measure one row; a failure is a row as well, and one too late is only named."""
        if time.monotonic() > self.deadline:
            self.left_out.append(name)
        else:
            print(name, "...", file=sys.stderr, flush=True)
            try:
                rows.append({"name": name, **make()})
            except Exception as error:  # whatever a device or a compiler raises
                text = " ".join(str(error).split())[:160]
                rows.append({"name": name, "failed": f"{type(error).__name__}: {text}"})
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        self.write()

    def write(self) -> None:
        """Write both files."""
        content = {k: v for k, v in asdict(self).items() if k not in ("out", "deadline")}
        self.out.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n")
        self.out.with_suffix(".md").write_text(self.markdown())

    def markdown(self) -> str:
        """Write the tables."""
        counts = ", ".join(f"{self.tests[key]} {key}" for key in ("passed", "failed", "skipped"))
        lines = [self.machine, "", f"Parity tests on CUDA: {counts}"]
        lines += [f"- {failure}" for failure in self.tests["failures"]]
        lines += ["", f"Copy: {self.bandwidth / 1e9:.0f} GB/s, read and written", ""]
        lines += table("op | median (range) | bound | of the bound's speed | memory", self.ops)
        lines += ["", *ratios(self.ops), ""]
        lines += table("network | median (range) | images/s | memory | first call", self.networks)
        if self.left_out:
            lines += ["", "Left out for want of time: " + "; ".join(self.left_out)]
        return "\n".join(lines) + "\n"


def table(head: str, rows: list[dict[str, Any]]) -> list[str]:
    lines = [f"| {head} |", "|---" * (head.count("|") + 1) + "|"]
    for row in rows:
        cells = [row["failed"], "", "", ""] if "failed" in row else cells_of(row)
        lines.append("| " + " | ".join([row["name"], *cells]) + " |")
    return lines


def ratios(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Say how much faster an op is with its kernels than in tensors."""
    times = {row["name"]: statistics.median(row["seconds"]) for row in rows if "seconds" in row}
    for name in times:
        if other := times.get(name + IN_TENSORS):
            yield f"- {name}: {other / times[name]:.1f} times as fast as in tensors"


def cells_of(row: dict[str, Any]) -> list[str]:
    times, middle = in_words(row["seconds"]), statistics.median(row["seconds"])
    memory = "" if row["memory"] is None else f"{row['memory'] / 1e6:,.0f} MB"
    if "bound" not in row:
        return [times, f"{row['images'] / middle:.3g}", memory, f"{row['first']:.1f} s"]
    bound = f"{1e3 * row['bound']:.3g} ms ({row['bytes'] / 1e6:.3g} MB)"
    return [times, bound, f"{row['bound'] / middle:.1%}", memory]


@dataclass(frozen=True)
class Clock:
    """Times and memory of calls on one device."""

    device: torch.device
    repeats: int

    def settle(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def once(self, call: Call) -> float:
        """Answer the seconds of one call."""
        self.settle()
        began = time.perf_counter()
        call()
        self.settle()
        return time.perf_counter() - began

    def measure(self, call: Call) -> dict[str, Any]:
        """Time a first call, one more that is not counted, the repeats, and weigh a last one."""
        first = self.once(call)
        self.once(call)
        return {
            "first": first,
            "seconds": [self.once(call) for _ in range(self.repeats)],
            "memory": self.memory(call),
        }

    def memory(self, call: Call) -> int | None:
        """Answer the bytes that a call takes at its height beyond what was held before it."""
        if self.device.type == "cuda":
            self.settle()
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            self.once(call)
            return torch.cuda.max_memory_allocated(self.device) - before
        if self.device.type == "cpu" and sys.platform == "linux":
            return peak_memory(call)
        return None


def parity_tests() -> dict[str, Any]:
    """Run the tests that hold CUDA to the CPU, in a process of their own; never raise."""
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    failures = []
    try:
        for case in run_tests("tests/ops/test_cuda.py"):
            kinds = {child.tag: child for child in case}
            bad = kinds.get("failure", kinds.get("error"))
            skipped = "skipped" in kinds
            counts["failed" if bad is not None else "skipped" if skipped else "passed"] += 1
            if bad is not None:
                message = " ".join(str(bad.get("message")).split())[:200]
                failures.append(f"{case.get('name')}: {message}")
    except Exception as error:  # no pytest, too slow, no report: the rest can still be measured
        failures.append(f"not run: {error!r}"[:200])
    return {**counts, "failures": failures}


def run_tests(file: str) -> list[ET.Element]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
        subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT, stdout=sys.stderr, timeout=240)
        return list(ET.parse(report).getroot().iter("testcase"))


def copy_bandwidth(clock: Clock, size: int) -> float:
    """Answer the bytes a second of a copy, what is read and what is written counted."""
    source = torch.zeros(size // 4, device=clock.device)
    target = torch.empty_like(source)
    return 2 * size / min(clock.once(lambda: target.copy_(source)) for _ in range(10))


@torch.no_grad()
def measured_op(
    clock: Clock, bandwidth: float, least: int, make: Callable[[], Call]
) -> dict[str, Any]:
    with torch.enable_grad():  # a backward pass needs its forward pass
        call = make()
    return {"bytes": least, "bound": least / bandwidth, **clock.measure(call)}


def backbone(name: str) -> BackboneSettings:
    return BackboneSettings(name=name, weights="none")


def stride_of(name: str) -> dict[str, Any]:
    return {"output_stride": None} if transformer_kind(name) else {}


def cam_inference(
    clock: Clock, sizes: Sizes, name: str, how: str, precision: str
) -> dict[str, Any]:
    """Measure the CAMs of an image at all scales and flipped."""
    chosen = ClassifierSettings(**stride_of(name))
    model = build_classifier(backbone(name), chosen, [str(i) for i in range(CLASSES)])
    normalization: Any = model.backbone.normalization
    network = compiled(model.cams) if how == "compiled" else model.cams
    image = torch.randint(0, 256, (3, *sizes.cams), dtype=torch.uint8)
    with inference(model, Hardware(str(clock.device), precision)) as device:
        pixels = image.to(device)

        def call() -> Tensor:
            return multi_scale_cams(network, normalization, pixels, TAGS, sizes.scales, True)

        return {"images": 1, "precision": precision, **clock.measure(call)}


def training_step(
    clock: Clock, sizes: Sizes, kind: str, name: str, how: str, precision: str
) -> dict[str, Any]:
    """Measure a step of SGD on a batch of crops that are on the device."""
    crop, count, settings = sizes.crops[name], sizes.batches[kind], TrainingSettings()
    if kind == CLASSIFIER:
        chosen = ClassifierSettings(**stride_of(name))
        model: Any = build_classifier(backbone(name), chosen, [str(i) for i in range(CLASSES)])
    else:
        model = build_affinity_net(backbone(name), AffinitySettings(**stride_of(name)))
    model.to(clock.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(parameter_groups(model, settings), lr=1e-4, momentum=0.9)
    images = torch.randn(count, 3, crop, crop, device=clock.device)
    images = images.contiguous(memory_format=torch.channels_last)
    tags = torch.ones(count, CLASSES, device=clock.device)
    cells = crop // (8 if kind == CLASSIFIER else model.stride)
    labels = torch.randint(0, 3, (count, cells, cells), device=clock.device)
    network = torch.compile(model) if how == "compiled" else model

    def call() -> None:
        optimizer.zero_grad()
        dtype = torch.bfloat16 if precision == "bf16" else None
        with torch.autocast(clock.device.type, dtype, enabled=dtype is not None):
            output = network(images).float()
        if isinstance(model, Classifier):
            loss = F.multilabel_soft_margin_loss(output, tags)
        else:
            loss = ops.affinity_loss(output, ops.affinity_targets(labels)).total
        loss.backward()
        optimizer.step()

    return {"images": count, "precision": precision, **clock.measure(call)}


def cases_of_networks(
    clock: Clock, sizes: Sizes
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield what is measured of the networks; what must be compiled, which takes long, last."""
    fastest = Hardware(str(clock.device), "auto").chosen_precision
    for how, precision in (("float32",) * 2, ("bf16",) * 2, ("compiled", fastest)):
        label = how if how == precision else f"{precision}, {how}"
        for name in BACKBONES:
            yield (
                f"CAMs, {name}, {label}",
                partial(cam_inference, clock, sizes, name, how, precision),
            )
            kinds = (CLASSIFIER, AFFINITY) if how != "compiled" or sizes.compile_steps else ()
            for kind in kinds:
                yield (
                    f"step of the {kind}, {name}, {label}",
                    partial(training_step, clock, sizes, kind, name, how, precision),
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--minutes", type=float, default=8, help="begin nothing after them")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="of OUT.json and OUT.md")
    parser.add_argument("--repeats", type=int, help="of each measurement")
    arguments = parser.parse_args()
    began = time.monotonic()
    device = find_device(arguments.device)
    sizes = SMALL if device.type == "cpu" else FULL
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # a device without a number is the first
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str(device.index or 0))  # of the tests
    clock = Clock(device, arguments.repeats or sizes.repeats)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    machine = f"{machine_line(device)}; measured on {device}"
    report = Report(arguments.out, machine, sizes, began + 60 * arguments.minutes, parity_tests())
    report.bandwidth = copy_bandwidth(clock, sizes.copy)
    for name, least, make in cases_of_ops(*sizes.image, device):
        report.add(report.ops, name, partial(measured_op, clock, report.bandwidth, least, make))
    for name, make in cases_of_networks(clock, sizes):
        report.add(report.networks, name, make)
    print(report.markdown())
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
