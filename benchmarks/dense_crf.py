"""The dense CRF against pydensecrf2, in one process, in turns, one CPU thread each.

    python benchmarks/dense_crf.py [--image PATH] [--repeats N] [--images N]
    python benchmarks/dense_crf.py --scaling 4096       time and memory against pixels

Each ratio is the median over pairs of runs made right after one another. Time is the processor
time of the thread, but for the last row, where several threads work and the clock on the wall
counts. The lattice of positions is kept per image size, as in a run over many images, so it is
made before; the bilateral one is built in every call.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from machine import machine_line
from measure import alternate, in_words, one_thread, peak_memory, seconds
from original_pipeline import original_confident, original_crf
from PIL import Image
from torch import Tensor

from affinitynet.ops import _crf_cpu, confident_labels, dense_crf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, help="a photograph or a folder; default: generated")
    parser.add_argument("--images", type=int, default=4, help="pictures to measure on")
    parser.add_argument("--repeats", type=int, default=7, help="pairs of runs per row and picture")
    parser.add_argument("--scaling", type=int, help="measure 256² up to this size squared instead")
    arguments = parser.parse_args()
    one_thread()
    print(machine_line())
    blank = torch.zeros(375, 500, 3, dtype=torch.uint8)
    compiling = sum(
        seconds(lambda count=count: confident_labels(blank, torch.zeros(count, 375, 500)))
        for count in (1, 3)
    )
    print(f"first calls, compilation or its cache included: {compiling:.1f} s\n")
    if arguments.scaling:
        scaling(arguments.scaling)
        return
    pictures = read(arguments.image, arguments.images)
    print("| | ours | pydensecrf2 | pydensecrf2 / ours | same labels |\n|---|---|---|---|---|")
    for classes in (1, 2, 3):
        pairs = [alphas(picture, classes) for picture in pictures]
        compare(f"low and high alpha, {classes + 1} labels", pairs, arguments.repeats)
    for labels in (2, 3, 4, 21):
        pairs = [single(picture, labels) for picture in pictures]
        compare(f"one call, {labels} labels", pairs, arguments.repeats)
    throughput(pictures, arguments.repeats)
    steps(pictures, arguments.repeats)


def read(path: Path | None, count: int) -> list[np.ndarray]:
    """Give pictures to measure on, (H, W, 3) uint8."""
    if path is None:
        return [generated(375, 500, seed) for seed in range(count)]
    files = sorted(path.glob("*.jpg")) if path.is_dir() else [path]
    files = files[:: max(1, len(files) // count)][:count]
    return [np.array(Image.open(file).convert("RGB")) for file in files]


def fractal(channels: int, H: int, W: int, seed: int) -> Tensor:
    """Sum noise over octaves, each half as fine and half as strong: spectra like photographs'."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.zeros(channels, H, W)
    for octave in range(8):
        step = 2 ** (8 - octave)
        coarse = torch.randn(1, channels, H // step + 2, W // step + 2, generator=generator)
        size = ((H // step + 2) * step, (W // step + 2) * step)
        fine = torch.nn.functional.interpolate(coarse, size, mode="bilinear")[0, :, :H, :W]
        field += fine * 0.5**octave
    return field


def generated(H: int, W: int, seed: int) -> np.ndarray:
    light = fractal(1, H, W, seed)
    color = 0.35 * fractal(3, H, W, seed + 100)
    return (128 + 60 * (light + color)).clamp(0, 255).byte().permute(1, 2, 0).numpy()


def maps(count: int, H: int, W: int) -> Tensor:
    """Give class maps with a maximum of one, smooth as upsampled activation maps are."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(1, count, H // 32 + 2, W // 32 + 2, generator=generator) ** 3
    fine = torch.nn.functional.interpolate(coarse, (H, W), mode="bicubic")[0].clamp(0, 1)
    return fine / fine.amax((1, 2), keepdim=True)


Pair = dict[str, Callable[[], np.ndarray]]


def alphas(image: np.ndarray, classes: int) -> Pair:
    cams = maps(classes, *image.shape[:2])
    tensor = torch.from_numpy(image)
    return {
        "ours": lambda: confident_labels(tensor, cams).numpy(),
        "peer": lambda: original_confident(image, cams.numpy(), 4, 32),
    }


def single(image: np.ndarray, labels: int) -> Pair:
    probabilities = (3 * maps(labels, *image.shape[:2])).softmax(0)
    tensor = torch.from_numpy(image)
    return {
        "ours": lambda: dense_crf(tensor, probabilities).numpy(),
        "peer": lambda: original_crf(image, probabilities.numpy()),
    }


def compare(name: str, pairs: list[Pair], repeats: int) -> None:
    """Print one row; Q is compared by its largest label, labels as they are."""
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    same = []
    for pair in pairs:
        answers = [run() for run in pair.values()]
        labels = [a.argmax(0) if a.ndim == 3 else a for a in answers]
        same.append((labels[0] == labels[1]).mean())
        for side, spent in alternate(pair, dict.fromkeys(pair, repeats)).items():
            times[side] += spent
    ratio = statistics.median(b / a for a, b in zip(times["ours"], times["peer"], strict=True))
    cells = " | ".join(in_words(spent) for spent in times.values())
    print(f"| {name} | {cells} | {ratio:.1f} | {100 * min(same):.3f} % |", flush=True)


def throughput(pictures: list[np.ndarray], repeats: int) -> None:
    """Print image pairs (low and high alpha) on all cores against the peer's one process."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    pairs = [alphas(picture, 2) for picture in pictures]
    ours, theirs = [], []
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(max(1, repeats // 2)):
            began = time.perf_counter()
            list(pool.map(lambda pair: pair["ours"](), pairs * 4))
            ours.append((time.perf_counter() - began) / (4 * len(pairs)))
            began = time.perf_counter()
            for pair in pairs:
                pair["peer"]()
            theirs.append((time.perf_counter() - began) / len(pairs))
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    cells = f"{in_words(ours)} | {in_words(theirs)} | {ratio:.1f}"
    print(f"| low and high alpha, 3 labels, per image, {cores} threads | {cells} | |")


def steps(pictures: list[np.ndarray], repeats: int) -> None:
    """Print what comes before the iterations, what each takes, and would with all points nearby."""
    print("\n| ours | no iteration | each of ten | the same, points in the nearest cache |")
    print("|---|---|---|---|")
    for widths, alphas, labels in (
        ((80, 13), 2, 2),
        ((80, 13), 2, 4),
        ((80, 13), 1, 21),
        ((50, 5), 2, 2),
        ((50, 5), 2, 4),
    ):
        taken = []
        for picture in pictures:
            sets = torch.stack([maps(labels, *picture.shape[:2])] * alphas)
            run = partial(
                dense_crf,
                torch.from_numpy(picture),
                sets,
                bilateral_sxy=widths[0],
                bilateral_srgb=widths[1],
            )
            none, each = without_and_each(run, repeats)
            with points_nearby():
                taken.append((none, each, without_and_each(run, repeats)[1]))
        cells = " | ".join(f"{1e3 * value:.2f} ms" for value in np.median(taken, 0))
        print(f"| widths {widths}, {alphas} x {labels} labels | {cells} |", flush=True)


def without_and_each(run: Callable[..., Tensor], repeats: int) -> tuple[float, float]:
    """Give the seconds of a call without iterations, and of each of ten."""
    runs = {str(count): partial(run, iterations=count) for count in (0, 10)}
    spent = alternate(runs, dict.fromkeys(runs, repeats))
    none, ten = (statistics.median(times) for times in spent.values())
    return none, (ten - none) / 10


@contextmanager
def points_nearby() -> Iterator[None]:
    """Let all pixels have the same 60 lattice points around them, so that no cache is missed."""
    make, row = _crf_cpu._kernel, 6  # its argument: floats of a point

    def nearby(*arguments: Any) -> Any:
        kernel = make(*arguments)
        points = np.arange(1, 61, dtype=np.uint32) * arguments[row]
        kernel.corners[:] = np.resize(points, kernel.corners.shape)
        return kernel

    with patch.object(_crf_cpu, "_kernel", nearby):
        _crf_cpu._layout.cache_clear()
        yield
    _crf_cpu._layout.cache_clear()


def scaling(largest: int) -> None:
    """Print time and memory against pixels, and the exponent of the best power law."""
    points = []
    print("| image | seconds | ns per pixel | bytes per pixel at the peak |\n|---|---|---|---|")
    size = 256
    while size <= largest:
        picture = torch.from_numpy(generated(size, size, 0))
        probabilities = (3 * maps(3, size, size)).softmax(0)
        spent: list[float] = []

        def run(picture: Tensor = picture, probabilities: Tensor = probabilities) -> Tensor:
            return dense_crf(picture, probabilities)

        for _ in range(5 if size <= 1024 else 1):
            spent.append(seconds(run))
        _crf_cpu._layout.cache_clear()  # so that every row counts both lattices
        with ThreadPoolExecutor(1) as pool:  # a new thread has no memory from earlier calls
            memory = peak_memory(lambda: pool.submit(run).result()) / size**2
        points.append((size**2, min(spent)))
        rate = 1e9 * min(spent) / size**2
        print(f"| {size}² | {min(spent):.3f} | {rate:.0f} | {memory:.0f} |", flush=True)
        size *= 2
    pixels, taken = np.log(np.array(points)).T
    print(f"\ntime grows as pixels^{np.polyfit(pixels, taken, 1)[0]:.2f}")


if __name__ == "__main__":
    main()
