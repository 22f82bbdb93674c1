"""What a run folder costs beside the networks: memory of a data set's list, files and bytes.

Each figure of memory is of a process of its own: what it held at its height beyond what it held
before (`ru_maxrss`).

    python benchmarks/storage.py manifest               # 100, 10,000, 1 million entries
    python benchmarks/storage.py listing --images 100   # check, manifest, status of tiny images
    python benchmarks/storage.py layouts                # files and bytes of either `store`
"""

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from affinitynet.data import check_dataset, read_dataset
from affinitynet.data.manifest import RUN_FILE, Manifest
from affinitynet.pipeline import Run
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import SHARD_IMAGES
from affinitynet.run_folder.store import pack

MEGABYTE = 1e6
# Mean bytes of a VOC photograph's files, as docs/scaling.md has them.
SIZES = {
    "cams": (".npz", 46_000),
    "confident": (".png", 6_000),
    "affinities": (".npz", 194_000),
    "scores": (".npz", 9_000),
    "pseudo": (".png", 3_000),
    "predictions": (".png", 3_000),
    "masks": (".png", 3_000),
}


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


def make_images(folder: Path, images: int) -> None:
    """Write so many images of 8 pixels a side, each of its own, in folders of a thousand."""
    (folder / "images").mkdir(parents=True)
    rows = ["image,labels"]
    for number in range(images):
        file = folder / "images" / f"{number // 1000:04d}" / f"{number:08d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.frombytes("RGB", (8, 8), random.Random(number).randbytes(192)).save(file)
        rows.append(f"{file.relative_to(folder)},{'cat' if number % 2 else 'dog'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def _recipe(folder: Path) -> Recipe:
    made = {"pseudo.source": f"files:{folder / 'images'}", "choose": []}
    return Recipe.load("own_images", data=folder, out=folder.parent / "run", **made)


def check_images(folder: Path) -> None:
    """Do what `affinitynet check` does: decode every image."""
    check_dataset(read_dataset(folder))


def list_images(folder: Path) -> None:
    """Read a data set, and write what `run` writes down of it first."""
    recipe = _recipe(folder)
    run = Run.create(recipe)
    run.manifest.write(recipe.out)
    (recipe.out / "recipe.yaml").write_text(recipe.dump())
    # One mask of all: what is partial is counted by a look for each image.
    stage = next(stage for stage in run.stages if stage.name == "propagate")
    freshness = run._look_up()
    freshness.folder(stage).start(freshness.plan(stage))
    (recipe.out / stage.folder / "0000").mkdir(parents=True)
    (recipe.out / stage.folder / "0000" / "00000000.png").write_bytes(b"mask")


def show_status(folder: Path) -> None:
    """Ask a run folder how far it is."""
    Run.open(folder.parent / "run").status()


def show_listing(counts: list[int]) -> None:
    """Print what commands without a network take, by the number of images."""
    print("| images | check, MB | CPU s | manifest, MB | CPU s | status, MB | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "data")
            make_images(folder, count)
            found = [grown(work, folder) for work in (check_images, list_images, show_status)]
        cells = (f"{most:.0f} | {seconds:.1f}" for _, most, seconds in found)
        print(f"| {count:,} | {' | '.join(cells)} |", flush=True)


def show_layouts(images: int) -> None:
    """Print files and bytes on the disk of either layout, an image."""
    print("| store | files and folders an image | bytes an image | on the disk |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for artifact, (suffix, size) in SIZES.items():
            for number in range(images):
                file = Path(name, artifact, f"{number:08d}{suffix}")
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(random.Random(number).randbytes(size))
        _count("files", Path(name), images)
        for start in range(0, images, SHARD_IMAGES):
            numbers = range(start, min(start + SHARD_IMAGES, images))
            for artifact, (suffix, _) in SIZES.items():
                names = [f"{number:08d}{suffix}" for number in numbers]
                pack(Path(name, artifact), start // SHARD_IMAGES, names)
        _count("tar", Path(name), images)


def _count(store: str, folder: Path, images: int) -> None:
    found = [path.stat() for path in folder.rglob("*")]
    size, disk = sum(stat.st_size for stat in found), sum(stat.st_blocks for stat in found) * 512
    print(f"| {store} | {len(found) / images:.3f} | {size / images:,.0f} | {disk / images:,.0f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["manifest", "listing", "layouts"])
    parser.add_argument("--images", type=int, nargs="+")
    given = parser.parse_args()
    if given.what == "manifest":
        show_manifest(given.images or [100, 10_000, 1_000_000])
    elif given.what == "listing":
        show_listing(given.images or [100, 10_000, 100_000])
    else:
        show_layouts((given.images or [640])[0])
