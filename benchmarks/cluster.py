"""The toy set through every stage: one process, given shards, linked ranks, a Ray cluster.

One table: seconds on the wall in all, in trainings and in per-image stages, images per second, and
how many files differ from the one process's. Shards make the same bytes. Linked ranks round sums of
gradients otherwise, so their weights differ in the last digits, and with them some masks; two runs
of two ranks have the same bytes, which the last row shows. The Ray cluster, where Ray is installed,
has three nodes; one is killed in a training and one among images, and one comes for each: the same
bytes. Processes share this machine's cores: on few cores more processes gain nothing, and the table
shows what they cost.

    python benchmarks/cluster.py                       # 24 images of 64 pixels, two epochs: minutes
    python benchmarks/cluster.py --train 240 --val 40 --size 128 --full    # the demo as it is
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from machine import machine_line
from ray_nodes import Nodes, node_of

from affinitynet.data.toy import make_toy
from affinitynet.pipeline import Run
from affinitynet.run_folder.compare import compare_runs

TRAININGS = ("train_classifier", "train_affinity", "train_segmenter")
SHORT = ("--classifier.epochs", "2", "--affinity.epochs", "2", "--segmenter.epochs", "2")
# So that a small set has several shards: as many images as are recorded together.
COMMAND = """
import sys
from affinitynet.run_folder import records
records.SHARD_IMAGES = int(sys.argv[1])
from affinitynet.cli import main
main(sys.argv[2:])
"""
# The same in the workers of a Ray cluster, which Python's start runs there.
IN_WORKERS = "from affinitynet.run_folder import records; records.SHARD_IMAGES = {}"
LOG = "log"  # of a run whose messages are looked at, beside its folder


class Row(NamedTuple):
    """One line of the table."""

    name: str
    wall: float
    training: float
    images: float
    per_second: float
    files: int
    differ: int
    of_trainings: int


def main() -> None:
    arguments = read_arguments()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(arguments.keep or folder)
        data = make_toy(root / "toy", train=arguments.train, val=arguments.val, size=arguments.size)
        words = [str(arguments.shard), "run", "demo", "--data", str(data), "--anyway"]
        words += ["--device", arguments.device, *(() if arguments.full else SHORT)]
        rows = [
            measure(root, name, processes, words, arguments.train + arguments.val)
            for name, processes in (
                ("one process", [({}, [])]),
                ("two given shards", [({}, ["--shard", f"{i}/2"]) for i in range(2)]),
                ("two ranks", linked(2)),
                ("four ranks", linked(4)),
            )
        ]
        again = measure(root, "two ranks again", linked(2), words, 1, reference="two ranks")
        if find_spec("ray"):
            total = arguments.train + arguments.val
            rows.append(measure_ray(root, words, arguments.shard, total))
    print(machine_line())
    print(f"{arguments.train} + {arguments.val} images of {arguments.size} pixels\n")
    print("| | wall s | trainings s | images s | images/s | files | differ | of trainings |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        figures = (row.wall, row.training, row.images, row.per_second)
        counts = (row.files, row.differ, row.of_trainings)
        print(
            f"| {row.name} | {' | '.join(f'{x:.1f}' for x in figures)} | "
            f"{' | '.join(map(str, counts))} |"
        )
    print(f"\ntwo ranks twice: {again.differ} of {again.files} files differ")
    if rows[1].differ or again.differ or any(row.differ for row in rows[4:]):
        sys.exit("files differ that should not")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--train", type=int, default=24, help="training images")
    parser.add_argument("--val", type=int, default=8, help="images to predict")
    parser.add_argument("--size", type=int, default=64, help="side of an image in pixels")
    parser.add_argument("--shard", type=int, default=4, help="images of a shard (a run has 64)")
    parser.add_argument("--device", default="cpu", help="where networks run")
    parser.add_argument("--full", action="store_true", help="train as long as the demo")
    parser.add_argument("--keep", help="folder to keep data and runs in (default: a temporary one)")
    return parser.parse_args()


def linked(count: int) -> list[tuple[dict[str, str], list[str]]]:
    """Answer what torchrun would tell so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [({**common, "RANK": str(i), "LOCAL_RANK": str(i)}, []) for i in range(count)]


def measure(
    root: Path,
    name: str,
    processes: Sequence[tuple[dict[str, str], list[str]]],
    words: Sequence[str],
    images: int,
    reference: str = "one process",
    during: Callable[[Path], None] = lambda out: None,
) -> Row:
    """Run all stages in these processes, and compare with the run of the reference.

    during: is called with the run folder while they work.
    """
    out = root / name.replace(" ", "-")
    print(f"{name} ...", file=sys.stderr, flush=True)
    began = time.monotonic()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", COMMAND, *words, "--out", str(out), *more],
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.DEVNULL,
            stderr=(root / f"{out.name}-{number}.{LOG}").open("w"),
        )
        for number, (environment, more) in enumerate(processes)
    ]
    during(out)
    codes = [process.wait() for process in running]
    wall = time.monotonic() - began
    if any(codes):
        logs = sorted(root.glob(f"{out.name}-*.{LOG}"))
        sys.exit(f"{name}: a process failed\n" + "\n".join(log.read_text() for log in logs))
    run = Run.open(out)
    seconds = {
        stage.name: json.loads((out / stage.folder / "stage.json").read_text())["seconds"]
        for stage in run.stages
    }
    training = sum(seconds[stage] for stage in TRAININGS)
    found = compare_runs(root / reference.replace(" ", "-"), out, run.stages)
    differ = sum(len(row.differ) for row in found)
    weights = sum(file.endswith(".safetensors") for row in found for file in row.differ)
    return Row(
        name,
        wall,
        training,
        sum(seconds.values()) - training,
        images / wall,
        sum(row.files for row in found),
        differ,
        weights,
    )


def measure_ray(root: Path, words: Sequence[str], shard: int, images: int) -> Row:
    """Run all stages over a Ray cluster of three nodes, and kill two of them."""
    hook = root / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(IN_WORKERS.format(shard), encoding="utf-8")
    paths = os.pathsep.join(filter(None, [str(hook), os.environ.get("PYTHONPATH", "")]))
    environment = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    nodes = Nodes(3, {**os.environ, **environment})

    def kill(out: Path) -> None:
        for pattern in ("classifier/checkpoint.pt", "cams/*.npz"):
            while not any(out.glob(pattern)):
                time.sleep(0.02)
            nodes.replace(node_of((root / f"{out.name}-0.{LOG}").read_text(encoding="utf-8")))

    name = "Ray, three nodes, two killed"
    more = ["--engine", "ray", "--workers", "1", "--verbose"]
    try:
        processes = [({**environment, "RAY_ADDRESS": nodes.address}, more)]
        return measure(root, name, processes, words, images, during=kill)
    finally:
        nodes.end()


if __name__ == "__main__":
    main()
