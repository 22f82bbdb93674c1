"""Draw the README's picture: four good and two bad cases of a run, chosen by rank.

Training images with tags are ranked by the IoU of their pseudo mask. The good ones stand at 95, 85,
75 and 65 % of that ranking, the bad ones at 10 and 3 %: nobody picked the pretty ones.

    python examples/draw_strip.py runs/demo/run docs/figures/strip.png
"""

import sys
from pathlib import Path

from affinitynet.data import Manifest
from affinitynet.report import write_strip
from affinitynet.report.sampling import score

RANKS = (0.95, 0.85, 0.75, 0.65, 0.10, 0.03)


def main(run: Path, picture: Path) -> None:
    """Rank a run's training images and write the strip of six."""
    manifest = Manifest.of_run(run)
    tagged = [sample for sample in manifest.split("train") if sample.tags]
    scored = [(score(run / "pseudo", manifest, sample).iou or 0.0, sample.id) for sample in tagged]
    ranking = [name for _, name in sorted(scored)]
    chosen = [ranking[int(rank * (len(ranking) - 1))] for rank in RANKS]
    print(write_strip(run, chosen, picture))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
