"""How OpenMP's threads wait: spinning, as they do by default, or passively, as the package asks.

    python benchmarks/openmp_wait.py                    alone, then beside one busy process a core

Steps of a small training run in processes of their own, because OpenMP reads its policy when
torch is imported. The policies take turns; a round of all counts as one. Threads that spin keep
their core until the system takes it away, so that busy neighbors turn each wait for the slowest
thread into one for a time slice.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

# What libgomp and libomp do when nothing is said: spin 300,000 times, or for 200 ms.
POLICIES = {
    "spinning": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def train(steps: int, batch: int, crop: int) -> None:
    """Print the seconds of some training steps on all cores, the first left out."""
    import torch
    import torch.nn.functional as F
    from machine import machine_line

    from affinitynet.models.classifier import build_classifier
    from affinitynet.run_folder.settings import BackboneSettings, ClassifierSettings

    settings = BackboneSettings(weights="none")
    model = build_classifier(settings, ClassifierSettings(), ["a", "b"]).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    images, tags = torch.rand(batch, 3, crop, crop), torch.ones(batch, 2)
    for step in range(steps + 1):
        if step == 1:
            began, spent = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        F.multilabel_soft_margin_loss(model(images), tags).backward()
        optimizer.step()
    print(time.perf_counter() - began, time.process_time() - spent)
    print(machine_line())


def measure(policy: str, arguments: argparse.Namespace) -> tuple[float, float, str]:
    """Run the training in a process with a policy; answer seconds, processor seconds, machine."""
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    clean |= {"OMP_NUM_THREADS": str(arguments.threads)} if arguments.threads else {}
    command = [sys.executable, __file__, "--child"]
    for name in ("steps", "batch", "crop"):
        command += [f"--{name}", str(getattr(arguments, name))]
    output = subprocess.run(
        command, env=clean | POLICIES[policy], check=True, capture_output=True, text=True
    ).stdout
    numbers, machine = output.splitlines()
    wall, processor = map(float, numbers.split())
    return wall, processor, machine


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep some processes computing meanwhile."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, default=160)
    parser.add_argument("--threads", type=int, help="of OpenMP; default: all cores")
    parser.add_argument("--busy", type=int, default=os.cpu_count(), help="processes beside it")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return train(arguments.steps, arguments.batch, arguments.crop)

    print("| beside it | policy | median (range) | processor time | spinning / passive |")
    print("|---|---|---|---|---|")
    for count in (0, arguments.busy):
        with busy(count):
            rounds = [
                {policy: measure(policy, arguments) for policy in POLICIES}
                for _ in range(arguments.rounds)
            ]
        ratio = statistics.median(r["spinning"][0] / r["passive"][0] for r in rounds)
        for policy in POLICIES:
            wall, processor, machine = zip(*(r[policy] for r in rounds), strict=True)
            print(
                f"| {count or 'no'} busy process{'es' * (count != 1)} | {policy} | "
                f"{statistics.median(wall):.2f} s ({min(wall):.2f} to {max(wall):.2f}) | "
                f"{statistics.median(processor):.2f} s | "
                f"{'' if policy == 'passive' else f'{ratio:.2f}'} |",
                flush=True,
            )
    print(
        f"\n{machine[0]}; MobileNetV2, {arguments.steps} steps of {arguments.batch} images of "
        f"{arguments.crop} x {arguments.crop}, {arguments.rounds} rounds"
    )


if __name__ == "__main__":
    main()
