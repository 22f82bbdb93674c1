"""Make masks of images that came after the training, with nothing trained again.

New images with tags go through the run's networks and settings (`apply_run`): CAMs, walk, dense
CRF, and the segmenter restricted to their tags. Images that nobody tagged go through the segmenter
alone (`predict_folder`). The tags help: what an image does not show can't be in its mask.

    python examples/apply_to_new_images.py RUN NEW OUT   # NEW: images and a labels.csv
"""

import sys
from pathlib import Path

import affinitynet as an


def main(run: Path, new: Path, out: Path) -> None:
    """Make masks of a folder of tagged images, with and without their tags, and compare them."""
    applied = an.apply_run(run, new, out / "tagged")
    samples = applied.manifest.samples
    print(f"{len(samples)} images; {applied.recipe.out} is a run folder of its own")
    for image, trust in list(zip(applied.trust["image"], applied.trust["trust"], strict=True))[:3]:
        print(f"look at {image} first: trust {trust:.2f}")
    an.export_run(applied.recipe.out, out / "coco", format="coco")

    an.predict_folder(run, [sample.image for sample in samples], out / "untagged")
    masks = len(list((out / "untagged").rglob("*.png")))
    print(f"{masks} masks without the tags' help in {out / 'untagged'}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
