"""Correct the masks that a run trusts least, and let the segmenter learn from them.

Which masks are worth correcting by hand? Those at the top of trust.csv. This script lists them and,
given a folder of masks drawn for them (PNG by image name, 0 background, 1 the first class, 255
where the run's own mask may stay), brings those in and goes on: the segmenter is trained again, on
the corrected masks, and makes the final masks again. Drawings from CVAT, Label Studio, LabelMe and
COCO come in alike.

    python examples/correct_and_go_on.py RUN             # which images to draw
    python examples/correct_and_go_on.py RUN DRAWN       # take the drawings in, and go on
"""

import sys
from pathlib import Path

import affinitynet as an

TO_DRAW = 10


def main(folder: Path, drawn: Path | None = None) -> None:
    """List the least trusted images of a run, or go on from masks drawn for some of them."""
    run = an.Run.open(folder)
    if drawn is None:
        worst = zip(run.trust["image"], run.trust["trust"], strict=True)
        for image, trust in list(worst)[:TO_DRAW]:
            print(f"{image:20} trust {trust:.2f}")
        return
    corrected = an.import_corrections(folder, drawn, replace=True)
    print(f"{len(corrected)} images corrected; the segmenter learns from them")
    run.go(redo="train_segmenter")  # with relabel.rounds above 1: train_segmenter_1
    print(f"trained with {run.metrics('train_segmenter')['corrected']} corrected masks")
    # Figures say how good the method is, so they leave the drawings out.
    for row in run.figures():
        if row["stage"] in ("segmenter", "masks") and row["miou"] is not None:
            print(f"{row['stage']:10} on {row['split']:8} mIoU {row['miou']:.3f}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
