"""Run the pipeline from Python and read its figures.

The same as `affinitynet run`, for notebooks and sweeps: load a recipe, replace settings by keyword,
run up to a stage, look at the figures, go on. A second call does only what is left to do.

    python examples/run_from_python.py DATA RUN
"""

import sys
from pathlib import Path

import affinitynet as an


def main(data: Path, out: Path) -> None:
    """Run the demo recipe on a labelled folder and print each stage's state and figures."""
    recipe = an.Recipe.load("demo", data=data, out=out, **{"walk.beta": 10})
    run = an.run(recipe, until="propagate")
    for status in run.status():
        print(f"{status.name:18} {status}")
    run = an.run(recipe)
    for row in run.figures():
        if row["miou"] is not None:
            print(f"{row['stage']:10} on {row['split']:8} mIoU {row['miou']:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
