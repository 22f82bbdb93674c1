"""How much of an object the masks find, by its size and by its thickness.

    python benchmarks/object_size.py RUN --out docs/figures/object-size.svg

RUN is a finished run folder with ground truth; it is only read. An object is a connected part of
one class in an image's ground truth, of `LEAST` pixels or more. Its thickness is the diameter of
the largest circle in it, in pixels: a crack 2 pixels wide and 300 long has 2, a lesion 30 pixels
across has 30. Each stage's masks are asked what share of the object they cover with its class; it
is found where that is half or more. Objects that touch and have one class count as one.

The image's tags are given, as the stages have them. Nothing is chosen by the ground truth.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from affinitynet.data import Sample, load_truth, read_labels
from affinitynet.data.cams import load_cams
from affinitynet.pipeline import Run
from affinitynet.run_folder.artifacts import CAMS, MASKS, PSEUDO, WALK

LEAST = 4  # pixels: fewer are mistakes of whoever drew the mask
EDGES = (0, 2, 4, 8, 16, 32, 64, 128, 1_000_000)  # of the classes of thickness, in pixels
FOUND = 0.5
STAGES = {"seeds": CAMS, "walk": WALK, "pseudo": PSEUDO, "final": MASKS}


class Object(NamedTuple):
    """One object: class, thickness and area in pixels, and the share that each stage covers."""

    label: int
    thickness: float
    area: int
    covered: dict[str, float]


def objects_of(
    truth: NDArray[np.integer], masks: dict[str, NDArray[np.integer]]
) -> Iterator[Object]:
    """Yield the objects of an image's ground truth (H, W), with what masks (H, W) cover of them."""
    from scipy import ndimage  # of the extra `benchmark`

    for label in np.unique(truth[(truth > 0) & (truth < 255)]):
        parts, _ = ndimage.label(truth == label, structure=np.ones((3, 3)))
        for number, place in enumerate(ndimage.find_objects(parts), 1):
            part = parts[place] == number
            if (area := int(part.sum())) < LEAST:
                continue
            # A border of zeros: the distance to the next pixel's middle, half a pixel beyond.
            radius = ndimage.distance_transform_edt(np.pad(part, 1)).max()
            covered = {
                name: float(np.mean(mask[place][part] == label)) for name, mask in masks.items()
            }
            yield Object(int(label), max(1.0, 2 * float(radius) - 1), area, covered)


def masks_of(run: Run, sample: Sample, border: float) -> dict[str, NDArray[np.integer]]:
    """Return the label maps (H, W) that the run has of an image, by the stage's name."""
    found: dict[str, NDArray[np.integer]] = {}
    for name, artifact in STAGES.items():
        file = run.recipe.out / artifact.folder / f"{sample.id}{artifact.suffix}"
        if file.is_file():
            found[name] = _seeds(run, file, border) if artifact is CAMS else read_labels(file)
    return found


def _seeds(run: Run, file: Path, border: float) -> NDArray[np.integer]:
    tags, cams = load_cams(file, classes=len(run.manifest.classes))
    scores = np.concatenate([np.full((1, *cams.shape[1:]), border, np.float32), cams])
    return np.array([0, *(tag + 1 for tag in tags)], np.uint8)[scores.argmax(0)]


def rows(objects: Sequence[Object], names: Sequence[str]) -> Iterator[tuple[str, int, list[float]]]:
    """Yield for each class of thickness its name, its objects and the shares found in percent."""
    for low, high in pairwise(EDGES):
        group = [o for o in objects if low <= o.thickness < high]
        if group:
            shares = [100 * float(np.mean([o.covered[n] >= FOUND for o in group])) for n in names]
            yield (
                f"{low} to {high}" if high < EDGES[-1] else f"{low} and more",
                len(group),
                shares,
            )


def draw(table: Sequence[tuple[str, int, list[float]]], names: Sequence[str], out: Path) -> None:
    """Write the shares found as curves over the thickness."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "affinitynet"  # the same bytes each time
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for number, name in enumerate(names):
        axes.plot([row[0] for row in table], [row[2][number] for row in table], "o-", label=name)
    axes.set(xlabel="thickness of the object in pixels", ylabel="objects found, %", ylim=(0, 100))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Print the table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="run folder with ground truth")
    parser.add_argument("--out", type=Path, help="SVG to write")
    parser.add_argument("--border", type=float, default=0.2, help="of the seeds (default: 0.2)")
    options = parser.parse_args()
    run = Run.open(options.run)
    dataset = run.recipe.dataset
    objects: list[Object] = []
    images = 0
    for sample in run.manifest.split(dataset.figures or dataset.train):
        if sample.mask is not None and sample.tags:
            truth = load_truth(run.manifest, sample)
            objects += objects_of(truth, masks_of(run, sample, options.border))
            images += 1
    if not objects:
        raise SystemExit(f"{options.run}: no object in the ground truth of the training images")
    names = [name for name in STAGES if all(name in o.covered for o in objects)]
    table = list(rows(objects, names))
    print(f"{len(objects)} objects in {images} images; found: half of it or more has its class\n")
    print(f"| thickness, pixels | objects | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    for name, count, shares in table:
        print(f"| {name} | {count} | {' | '.join(f'{share:.0f} %' for share in shares)} |")
    if options.out:
        draw(table, names, options.out)


if __name__ == "__main__":
    main()
