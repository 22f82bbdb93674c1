"""Draw the gallery's pictures: what a run was given, what it made of it, and where it went wrong.

Tagged images with ground truth are ranked by the IoU of their final mask, and taken from places in
that ranking: nobody picked the pretty ones.

    python examples/draw_gallery.py runs/demo/run docs/gallery
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import affinitynet as an
from affinitynet.data import load_image, read_labels
from affinitynet.report.pictures import draw_labels, resize_image, resize_labels
from affinitynet.report.sampling import score
from affinitynet.run_folder.stages import final_masks

PLACES = {"good": (0.95, 0.85, 0.75, 0.65), "usual": (0.60, 0.50, 0.45, 0.40)}
PLACES |= {"bad": (0.15, 0.10, 0.05, 0.02)}
SIDE, GAP, LINE = 160, 8, 20


def main(folder: Path, out: Path) -> None:
    """Write a picture for each part of the ranking: images with their tags, masks below."""
    run = an.Run.open(folder)
    manifest, masks = run.manifest, folder / final_masks(run.recipe).folder
    tagged = [s for s in run.manifest.split(run.recipe.dataset.train) if s.tags and s.mask]
    ranking = sorted(tagged, key=lambda sample: score(masks, manifest, sample).iou or 0.0)
    out.mkdir(parents=True, exist_ok=True)
    font = ImageFont.load_default(13)
    for name, places in PLACES.items():
        width = len(places) * (SIDE + GAP) - GAP
        canvas = Image.new("RGB", (width, 2 * SIDE + LINE), "white")
        draw = ImageDraw.Draw(canvas)
        for column, place in enumerate(places):
            sample = ranking[int(place * (len(ranking) - 1))]
            image = resize_image(load_image(sample.image), (SIDE, SIDE))
            labels = resize_labels(read_labels(masks / f"{sample.id}.png"), (SIDE, SIDE))
            mask = draw_labels(image, labels, manifest.ignore_index)
            left = column * (SIDE + GAP)
            canvas.paste(Image.fromarray(image), (left, 0))
            canvas.paste(Image.fromarray(mask), (left, SIDE + LINE))
            tags = ", ".join(manifest.classes[tag] for tag in sample.tags)
            draw.text((left, SIDE + 2), tags, fill="black", font=font)
        canvas.save(out / f"{name}.jpg", quality=85)
        print(out / f"{name}.jpg")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
