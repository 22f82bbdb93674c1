"""A whole run, stage by stage: how fast, against what the machine can do, and where the time goes.

    python benchmarks/end_to_end.py own_images --data photos --out runs/timed
    python benchmarks/end_to_end.py demo --toy 60 --out runs/toy --set classifier.epochs=2

--out must be empty: a stage that was done before can't be measured. Needs Linux, for bytes read and
peak memory. The columns:

- rate: images a second, with steps a second for a training; TFLOP: counted in the forward pass of
  some of the stage's calls, three times that for a training step.
- floor: FLOPs at the measured rate of matrix products in the precision used, and, on all cores,
  decoding measured alone and the processor time of the kernels in this run (how far they are from
  their own bounds is told by the benchmarks of each). Kernels are compiled before.
- loading, network, kernels, writing: shares of their sum over all threads. Of a training, loading
  is the wait for batches; the processes that load are not seen, nor is their memory. What `finish`
  does beside kernels and files counts as writing.
- read: bytes that the processes of the run asked for, from the disk or its cache.
- peak: resident memory at the height of the stage, libraries included.

Below, for stages over `--roofline` times their floor, the network's operators by time, each against
the larger of its FLOPs at the rate of matrix products and its bytes at the rate of a copy:
depthwise convolutions and normalizations are bound by memory.
"""

import argparse
import importlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from machine import machine_line
from stage_clock import KERNELS, LOADING, NETWORK, WRITING, Clock, watched

import affinitynet as an
from affinitynet import pipeline
from affinitynet.data import load_image
from affinitynet.data.toy import make_toy
from affinitynet.run_folder.stages import Stage

KINDS = (LOADING, NETWORK, KERNELS, WRITING)
COLORS = ("#7a9ec2", "#d98b4a", "#7fb069", "#b39bc8")


@dataclass
class Row:
    """One stage, in seconds, bytes and FLOPs."""

    stage: str
    seconds: float
    images: int
    steps: int
    flops: float
    precision: str
    floor: float
    read: int
    peak: int
    parts: dict[str, float]
    operators: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Say how many times its floor the stage took."""
        return self.seconds / self.floor if self.floor else 0.0


class Machine:
    """What this machine can do, measured once: products of matrices, copies, decoding."""

    def __init__(self, samples: Any) -> None:
        """Measure copies and decoding; products when a precision is first asked for."""
        self._rates: dict[torch.dtype, float] = {}
        source = torch.ones(1 << 25)
        target = torch.empty_like(source)
        self.bandwidth = 2 * 4 * len(source) / best(lambda: target.copy_(source))
        chosen = samples[:: max(1, len(samples) // 8)][:8]
        self.decoding = sum(best(lambda s=s: load_image(s.image), 3) for s in chosen) / len(chosen)
        self.cores = len(os.sched_getaffinity(0))

    def rate(self, precision: torch.dtype) -> float:
        """Return FLOPs a second of products of matrices, on all cores."""
        if precision not in self._rates:
            a = torch.rand(2048, 2048).to(precision)
            self._rates[precision] = 2 * 2048**3 / best(lambda: a @ a)
        return self._rates[precision]

    def floor(self, clock: Clock) -> float:
        """Return the seconds that the stage's work can't be done under."""
        alone = self.decoding * clock.images + clock.processor[KERNELS]
        return clock.flops / self.rate(clock.precision) + alone / self.cores


def best(function: Callable[[], object], repeats: int = 7) -> float:
    """Answer the shortest time of some calls."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def run(recipe: Any, until: str | None, counted: int) -> tuple[list[Row], Machine, float]:
    """Run a recipe and answer a row for each stage, and the seconds of all."""
    rows: list[Row] = []
    whole = pipeline.Run.create(recipe)
    machine = Machine([s for split in whole.manifest.splits.values() for s in split])
    original = pipeline.work_of

    def work_of(stage: Stage) -> Callable[[Any], dict[str, Any]]:
        work = original(stage)
        importlib.import_module(f"affinitynet.stages.{stage.name}")

        def measured(context: Any) -> dict[str, Any]:
            clock = Clock(counted)
            Path("/proc/self/clear_refs").write_text("5")
            before, began = read_bytes(), time.perf_counter()
            with watched(clock):
                figures = work(context)
            seconds = time.perf_counter() - began
            row = Row(
                stage=stage.name,
                seconds=seconds,
                images=clock.images,
                steps=clock.steps,
                flops=clock.flops,
                precision=str(clock.precision).removeprefix("torch."),
                floor=machine.floor(clock),
                read=read_bytes() - before,
                peak=status("VmHWM") * 1024,
                parts={kind: clock.seconds[kind] for kind in KINDS},
                operators=clock.operators,
            )
            rows.append(row)
            return figures

        return measured

    began = time.perf_counter()
    with patch.object(pipeline, "work_of", work_of):
        whole.go(until)
    return rows, machine, time.perf_counter() - began


def read_bytes() -> int:
    """Count the bytes that this process and its ended children have asked for."""
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


def status(key: str) -> int:
    """Read a number of kB of this process."""
    return int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0])


def table(rows: list[Row], whole: float) -> None:
    """Print the stages."""
    print(
        "| stage | seconds | rate | TFLOP | precision | floor | ratio "
        "| loading | network | kernels | writing | read | peak |\n" + "|---" * 13 + "|"
    )
    for row in rows:
        total = sum(row.parts.values()) or 1.0
        shares = " | ".join(f"{100 * row.parts[kind] / total:.0f} %" for kind in KINDS)
        rate = f"{row.images / row.seconds:.3g} images/s"
        rate += f", {row.steps / row.seconds:.3g} steps/s" if row.steps else ""
        ratio = f"{row.ratio:.2f}" if row.images else ""
        print(
            f"| {row.stage} | {row.seconds:.1f} | {rate} | {row.flops / 1e12:.3g} "
            f"| {row.precision} | {row.floor:.1f} s | {ratio} | {shares} "
            f"| {row.read / 1e6:.0f} MB | {row.peak / 1e6:.0f} MB |"
        )
    print(f"\nin all {whole:.0f} s")


def roofline(row: Row, machine: Machine, most: int = 8) -> None:
    """Print a stage's operators against what bounds them."""
    rate = machine.rate(getattr(torch, row.precision))
    print(f"\n{row.stage}, forward pass of the calls that were counted:\n")
    print("| operator | ms | share | GFLOP | MB | bound, ms | by | ratio |\n" + "|---" * 8 + "|")
    total = sum(seconds for _, _, seconds in row.operators.values()) or 1.0
    for name, (flops, moved, seconds) in sorted(row.operators.items(), key=lambda r: -r[1][2])[
        :most
    ]:
        bounds = {"arithmetic": flops / rate, "memory": moved / machine.bandwidth}
        by = max(bounds, key=lambda key: bounds[key])
        bound = bounds[by]
        print(
            f"| {name} | {1e3 * seconds:.1f} | {100 * seconds / total:.0f} % | {flops / 1e9:.2f} "
            f"| {moved / 1e6:.0f} | {1e3 * bound:.1f} | {by} | {seconds / max(bound, 1e-9):.1f} |"
        )


def draw(rows: list[Row]) -> str:
    """Draw a bar a stage as SVG: its seconds, shared as what was done in them, and its floor."""
    scale = 600 / max(max(row.seconds, row.floor) for row in rows)
    parts = []
    for number, kind in enumerate(KINDS):
        x = 150 + 110 * number
        parts.append(f'<rect x="{x}" y="8" width="12" height="12" fill="{COLORS[number]}"/>')
        parts.append(f'<text x="{x + 17}" y="18">{kind}</text>')
    parts.append('<path d="M595 6v16" stroke="black" stroke-width="2"/>')
    parts.append('<text x="602" y="18">floor</text>')
    for number, row in enumerate(rows):
        y, x = 34 + 26 * number, 150.0
        parts.append(f'<text x="142" y="{y + 13}" text-anchor="end">{row.stage}</text>')
        total = sum(row.parts.values()) or 1.0
        for kind, color in zip(KINDS, COLORS, strict=True):
            width = scale * row.seconds * row.parts[kind] / total
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" fill="{color}"/>'
            )
            x += width
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 13}">{row.seconds:.1f} s</text>')
        if row.images:
            x = 150 + scale * row.floor
            parts.append(f'<path d="M{x:.1f} {y - 2}v22" stroke="black" stroke-width="2"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="830" height="{44 + 26 * len(rows)}" '
        'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>'
        + "\n".join(parts)
        + "</svg>\n"
    )


def compile_kernels() -> None:
    """Have numba compile, or load from its cache, what the stages will call."""
    image, maps = torch.zeros(64, 64, 3, dtype=torch.uint8), torch.rand(8, 64, 64)
    for count in (1, 3, 8):
        an.ops.confident_labels(image, maps[:count])
    features = torch.rand(1, 8, 16, 16, requires_grad=True)
    affinity = an.ops.pairwise_affinity(features)
    affinity.sum().backward()
    an.ops.random_walk(torch.rand(1, 2, 16, 16), affinity.detach())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="a recipe's name or file")
    parser.add_argument("--data", type=Path, help="the data set")
    parser.add_argument("--toy", type=int, help="make a toy set of so many images to learn from")
    parser.add_argument("--out", type=Path, required=True, help="an empty run folder")
    parser.add_argument("--until", help="the last stage")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("--counted", type=int, default=2, help="calls whose operators are counted")
    parser.add_argument("--roofline", type=float, default=2.0, help="for stages over this ratio")
    parser.add_argument("--svg", type=Path, help="draw a stacked bar")
    parser.add_argument("--json", type=Path, help="write all figures")
    arguments = parser.parse_args()
    if arguments.out.is_dir() and any(arguments.out.iterdir()):
        parser.error(f"--out {arguments.out} is not empty: what is done can't be measured")
    data = arguments.data
    if arguments.toy:
        data = arguments.out.with_name(f"{arguments.out.name}-toy")
        make_toy(data, train=arguments.toy, val=arguments.toy // 4)
    given = {key: yaml.safe_load(value) for key, value in (e.split("=", 1) for e in arguments.set)}
    recipe = an.Recipe.load(arguments.recipe, data=data, out=arguments.out, **given)
    compile_kernels()
    rows, machine, whole = run(recipe, arguments.until, arguments.counted)

    print(machine_line())
    print(f"{recipe.name}, {data}: decoding {1e3 * machine.decoding:.1f} ms an image, copies "
          f"{machine.bandwidth / 1e9:.1f} GB/s, products of matrices in float32 "
          f"{machine.rate(torch.float32) / 1e9:.0f} GFLOP/s\n")  # fmt: skip
    table(rows, whole)
    for row in rows:
        if row.operators and row.ratio > arguments.roofline:
            roofline(row, machine)
    if arguments.svg:
        arguments.svg.write_text(draw(rows), encoding="utf-8")
    if arguments.json:
        content = [asdict(row) | {"ratio": row.ratio} for row in rows]
        text = {"machine": machine_line(), "seconds": whole, "stages": content}
        arguments.json.write_text(json.dumps(text, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
