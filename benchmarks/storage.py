"""What a run folder costs beside the networks: memory of a data set's list, files and bytes.

Each figure of memory is of a process of its own: what it held at its height beyond what it held
before (`ru_maxrss`).

    python benchmarks/storage.py manifest               # 100, 10,000, 1 million entries
    python benchmarks/storage.py manifest --images 5000
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from affinitynet.data.manifest import RUN_FILE, Manifest

MEGABYTE = 1e6


def manifest_lines(images: int) -> Iterator[str]:
    """Yield the manifest of so many images with ground truth, one in ten of val."""
    head = {"format": 2, "root": "/data/set", "classes": ["cat", "dog"], "truth_values": None}
    yield json.dumps(head | {"notes": [], "splits": ["train", "val"]}) + "\n"
    places = {"train": 0, "val": 0}
    for number in range(images):
        split = "train" if number % 10 else "val"
        name = f"{number // 1000:04d}/{number:010d}"
        entry = {
            "id": name,
            "image": f"JPEGImages/{name}.jpg",
            "tags": [0, 1] if number % 3 else [number % 2],
            "mask": f"SegmentationClass/{name}.png",
            "splits": {split: places[split]},
        }
        places[split] += 1
        yield json.dumps(entry) + "\n"


def grown(work: Callable[..., object], *arguments: object) -> tuple[float, float, float]:
    """Return MB before and at the height of some work, and its seconds, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, arguments))


def _measured(work: Callable[..., object], arguments: tuple[object, ...]) -> tuple[float, ...]:
    before, start = _most(), time.process_time()
    work(*arguments)
    return before, _most(), time.process_time() - start


def _most() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE


def read_and_hash(folder: Path) -> None:
    """Do what every command does first with a run folder's data set."""
    manifest = Manifest.of_run(folder)
    manifest.fingerprint("train")


def show_manifest(counts: list[int]) -> None:
    """Print what reading a manifest takes."""
    print("| entries | file, MB | memory before, MB | at its height, MB | growth, MB | CPU s |")
    print("|---|---|---|---|---|---|")
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            file = Path(name, RUN_FILE)
            with file.open("w") as stream:
                stream.writelines(manifest_lines(count))
            before, most, seconds = grown(read_and_hash, Path(name))
            print(
                f"| {count:,} | {file.stat().st_size / MEGABYTE:,.1f} | {before:.0f} | {most:.0f} "
                f"| {most - before:.0f} | {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["manifest"])
    parser.add_argument("--images", type=int, nargs="+")
    given = parser.parse_args()
    show_manifest(given.images or [100, 10_000, 1_000_000])
