"""A data set of small images: some of another's, shrunk with their masks, to measure small images.

    python benchmarks/shrink.py VOC small --split train_precise --side 128 --images 150

writes `images/`, `masks/`, `labels.csv` and `classes.txt` into the new folder `small`. The images
are drawn from those of the split that have ground truth; their long side becomes `--side` pixels.
Void (255) stays void in the masks.
"""

import argparse
import csv
import random
from pathlib import Path

from PIL import Image

from affinitynet.data import Manifest, Sample, load_image, load_truth, read_dataset, write_labels
from affinitynet.report.pictures import fit, resize_image, resize_labels


def shrink(manifest: Manifest, samples: list[Sample], out: Path, side: int) -> None:
    """Write the samples, their long side `side` pixels, as a data set of its own."""
    for folder in (out / "images", out / "masks"):
        folder.mkdir(parents=True)
    (out / "classes.txt").write_text("\n".join(manifest.classes) + "\n", encoding="utf-8")
    with (out / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "labels"])
        for sample in samples:
            name = sample.id.replace("/", "_") + ".png"
            pixels = load_image(sample.image, sample.reading)
            size = fit(pixels.shape[0], pixels.shape[1], side)
            Image.fromarray(resize_image(pixels, size)).save(out / "images" / name)
            small = resize_labels(load_truth(manifest, sample), size)
            write_labels(out / "masks" / name, small, manifest.palette)
            table.writerow([name, ";".join(manifest.classes[tag] for tag in sample.tags)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="data set with ground truth")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--split", default="train")
    parser.add_argument("--side", type=int, default=128, help="long side in pixels")
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    manifest = read_dataset(options.data)
    samples = [sample for sample in manifest.splits[options.split] if sample.mask is not None]
    random.Random(options.seed).shuffle(samples)
    shrink(manifest, samples[: options.images], options.out, options.side)


if __name__ == "__main__":
    main()
