"""Choose the walk's settings by ten masks drawn by hand, and see whether that was worth it.

The settings that fit photographs need not fit X-rays. Ten drawn masks tell more of that than any
measure without truth. The choice is made five times without a fifth of the masks and measured on
those, so that you see what it is worth on images that had no part in it. Nothing is changed if it
gains less than the folds differ.

    python examples/tune_by_drawn_masks.py RUN DRAWN     # PNG by image name, 255 where undecided
"""

import sys
from pathlib import Path

import affinitynet as an


def main(folder: Path, drawn: Path) -> None:
    """Tune a run by a folder of masks, and make its masks again if the choice held up."""
    found = an.tune_run(folder, drawn)
    checked = found["validation"]
    gain = checked["chosen"] - checked["now"]
    for setting, value in found["chosen"].items():
        print(f"{setting}: {found['now'][setting]} -> {value}")
    print(f"mean IoU {checked['now']:.3f} -> {checked['chosen']:.3f} on masks that were left out")
    if not found["chosen"] or gain <= checked["now_spread"]:
        print("not clearly better: the recipe stays as it is")
        return
    an.tune_run(folder, drawn, apply=True)
    an.Run.open(folder).go(redo="propagate")  # opened anew, for the recipe as it is now
    print(f"the masks in {folder} are made again")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
