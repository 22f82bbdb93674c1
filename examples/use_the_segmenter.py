"""Use the trained network in a program of your own: one photograph, its mask, and what covers it.

A run leaves `segmenter/`, a network that needs no tags. It can be loaded on its own, used on any
photograph, and handed on: as a folder for segmentation-models-pytorch, or as ONNX
(`an.export_model(run, out, format="onnx")`, which needs the extra `onnx`).

    python examples/use_the_segmenter.py RUN photo.jpg OUT
"""

import sys
from pathlib import Path

import numpy as np

import affinitynet as an


def main(run: Path, photo: Path, out: Path) -> None:
    """Print how much of a photograph each class covers, and export the network."""
    segmenter = an.Segmenter.load(run / "segmenter")
    mask = np.asarray(segmenter.predict(photo))  # (H, W): 0 background, then the classes in order
    names = ("background", *segmenter.classes)
    for label, count in zip(*np.unique(mask, return_counts=True), strict=True):
        print(f"{names[label]:20} {count / mask.size:6.1%}")
    print(an.export_model(run, out, format="segmenter"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
