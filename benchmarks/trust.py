"""How well trust ranks masks by their true IoU: Spearman's rank correlation and AUSE.

    python benchmarks/trust.py RUN
    python benchmarks/trust.py RUN --masks OTHER

RUN is a run folder with CAMs, walk and masks, or with pseudo masks so far; it is only read. With
--masks another run's `walk/`, `pseudo/` and `masks/` are taken beside RUN's CAMs. An image's IoU is
that of each of its tags, averaged, without the background. Images without a tag or without ground
truth are left out.

AUSE (Ilg et al., ECCV 2018): take images away, the least trusted first; the error, 1 - IoU, of what
is left falls. The area between that curve and the one that takes the truly worst away first, in
units of the area between random order and the best: 0 is the best order, 1 is no better than
chance. Each part, and the mask's area as a rule of thumb without any agreement, are there to
compare with. Ground truth chose which parts count and how they are combined: on VOC animals and
leaves the figures are upper bounds.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from affinitynet.data import Manifest, Sample, load_truth, read_labels
from affinitynet.data.roles import samples_of
from affinitynet.data.trust import agreement, measure_trust, steps_of
from affinitynet.pipeline import Run
from affinitynet.run_folder.artifacts import MASKS, PSEUDO, WALK
from affinitynet.run_folder.folder import output_path
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.stages import final_masks, stages_of


def ranks(values: Sequence[float]) -> np.ndarray:
    """Rank values from 1, equal ones by the mean of their places."""
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place]


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the correlation of the ranks; 0 where all values of a side are equal."""
    first, second = ranks(one), ranks(other)
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def ause(trust: Sequence[float], iou: Sequence[float]) -> float:
    """Return the area between the curve of this order and the best one's; 1 is chance."""
    error = 1 - np.asarray(iou)

    def area(order: np.ndarray) -> float:
        left = error[order]  # the most trusted first: the means of its beginnings
        return float(np.mean(np.cumsum(left) / np.arange(1, len(left) + 1)))

    best = area(np.argsort(error, kind="stable"))
    chance = float(error.mean())
    # Equal trust: the mean of the order that flatters and the one that does not.
    trust = np.asarray(trust)
    orders = (np.lexsort((sign * error, -trust)) for sign in (1, -1))
    own = float(np.mean([area(order) for order in orders]))
    return (own - best) / (chance - best) if chance > best else 0.0


def true_iou(recipe: Recipe, manifest: Manifest, sample: Sample) -> tuple[float, float]:
    """Return the IoU of an image's final mask, averaged over its tags, and the mask's area."""
    labels = read_labels(output_path(recipe.out / final_masks(recipe).folder, sample.id))
    truth = load_truth(manifest, sample)
    valid = truth != manifest.ignore_index
    found = agreement(labels[valid], truth[valid], sample.tags)
    return found, float(((labels > 0) & (labels != manifest.ignore_index)).mean())


def measure(run: Run) -> tuple[dict[str, list[float]], list[float]]:
    """Return trust, its parts and the masks' area by name, and the true IoU, image by image."""
    recipe, manifest = run.recipe, run.manifest
    samples = [
        sample
        for sample in samples_of(recipe, manifest, "train", "figures")
        if sample.tags and sample.mask is not None
    ]
    table = measure_trust(recipe, manifest, samples)
    known = {sample.id: true_iou(recipe, manifest, sample) for sample in samples}
    columns = {name: column for name, column in table.items() if name != "image"}
    columns["area of the mask"] = [known[name][1] for name in table["image"]]
    return columns, [known[name][0] for name in table["image"]]


def with_masks_of(run: Run, other: Path, scratch: Path) -> Run:
    """Return a run of links: the CAMs of `run`, and the masks of another folder."""
    scratch.mkdir(parents=True)
    recipe = run.recipe.model_copy(update={"out": scratch})
    if (other / MASKS.folder).is_dir():
        relabel = recipe.relabel.model_copy(update={"enabled": True})
        recipe = recipe.model_copy(update={"relabel": relabel})
    theirs = {WALK, PSEUDO, MASKS}
    for artifact in {a for stage in stages_of(recipe) for a in stage.artifacts}:
        source = (other if artifact in theirs else run.recipe.out) / artifact.folder
        if source.is_dir():
            (scratch / artifact.folder).symlink_to(source.resolve())
    return Run(recipe, run.manifest)


def main() -> None:
    """Print a table of what each part is worth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--masks", type=Path, help="folder whose walk/, pseudo/, masks/ to take")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    if not (run.recipe.out / final_masks(run.recipe).folder).is_dir():  # not that far yet
        off = run.recipe.relabel.model_copy(update={"enabled": False})
        run = Run(run.recipe.model_copy(update={"relabel": off}), run.manifest)
    if arguments.masks is None:
        show(run)
        return
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        show(with_masks_of(run, arguments.masks, Path(folder) / "run"))


def show(run: Run) -> None:
    """Print the table of a run."""
    columns, iou = measure(run)
    worst = np.argsort(columns["trust"], kind="stable")[: max(1, len(iou) // 10)]
    steps = ", ".join(f"{a.folder} to {b.folder}" for a, b in steps_of(run.recipe))
    print(f"{len(iou)} masks ({final_masks(run.recipe).folder}/), mean IoU {np.mean(iou):.3f};")
    print(f"of the tenth least trusted {np.mean(np.asarray(iou)[worst]):.3f}. Steps: {steps}\n")
    print("| measure | Spearman | AUSE |\n|---|---|---|")
    for name, values in columns.items():
        print(f"| {name} | {spearman(values, iou):.2f} | {ause(values, iou):.2f} |")


if __name__ == "__main__":
    main()
