"""What measures without ground truth are worth for choosing the walk's settings.

    python benchmarks/tune_measures.py RUN --images 40

RUN is a run folder with CAMs, affinities and ground truth; it is only read. Each setting of
`affinitynet tune` goes through its values while the others stay the recipe's; each choice gives
masks of the same images, whose mean IoU (of their tags) is held against each measure's mean.

Columns: Spearman's correlation over all choices; the mean of it within one setting, which is what a
choice has to go by; the gain: how much IoU a measure wins, or loses, over the recipe's value if it
chooses each setting's value in turn, the mean over the settings, and the worst. `truth` chooses by
IoU, which no measure can beat.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from trust import spearman

from affinitynet.data import load_truth
from affinitynet.data.trust import agreement
from affinitynet.hardware import Hardware, inference
from affinitynet.models.classifier import Classifier
from affinitynet.pipeline import Run
from affinitynet.run_folder.artifacts import CLASSIFIER
from affinitynet.run_folder.settings import WalkSettings
from affinitynet.tuning.decide import Case, decide, find_samples, in_data_set, load_case
from affinitynet.tuning.measures import MEASURES, Probabilities, deletion
from affinitynet.tuning.settings import TUNABLE, value_of, values_to_try, with_value

IOU, DELETION = "truth", "deletion"
SIDE = 320  # of the images that the classifier judges: each is judged for every value of a setting
Row = dict[str, float]


def judge(case: Case, walk: WalkSettings, truth: Any, more: Callable[..., Row]) -> Row:
    """Return the IoU and every measure of one image's masks."""
    decision = decide(case, walk)
    labels = in_data_set(case, decision.mask)
    row = {IOU: agreement(labels[truth != 255], truth[truth != 255], case.sample.tags)}
    row |= {name: measure(case, decision, walk) for name, measure in MEASURES.items()}
    return row | more(case, decision)


def probabilities_of(run: Run, folder: Path | None) -> tuple[Probabilities, int] | None:
    """Return the run's classifier and the size of image that it knows; None without one."""
    folder = folder or run.recipe.out / CLASSIFIER.folder
    if not (folder / "weights.safetensors").is_file():
        return None
    model = Classifier.load(folder)
    hardware = Hardware(run.recipe.device, "float32", 1)

    def probabilities(images: Any) -> Any:
        with inference(model, hardware) as device:
            pixels = model.backbone.normalization.apply(images).to(device)
            return model(pixels).float().sigmoid().cpu()

    return probabilities, min(SIDE, run.recipe.classifier.long_side[1])


def table(run: Run, images: int, folder: Path | None) -> dict[tuple[str, Any], Row]:
    """Return the means over the images for each setting and value."""
    recipe, manifest, own_walk = run.recipe, run.manifest, run.context.walk
    classifier = probabilities_of(run, folder)

    def more(case: Case, decision: Any) -> Row:
        if classifier is None:
            return {}
        return {DELETION: deletion(case, decision, *classifier)}

    rows: dict[tuple[str, Any], list[Row]] = {}
    samples = find_samples(recipe, manifest, images)
    for number, sample in enumerate(samples, 1):
        case, truth = load_case(recipe, manifest, sample), load_truth(manifest, sample)
        own = judge(case, own_walk, truth, more)
        for tunable in TUNABLE:
            now = value_of(own_walk, tunable.name)
            for value in values_to_try(own_walk, tunable):
                walk = with_value(own_walk, tunable.name, value)
                row = own if value == now else judge(case, walk, truth, more)
                rows.setdefault((tunable.name, value), []).append(row)
        print(f"{number} of {len(samples)} images", flush=True)
    return {
        key: {name: float(np.mean([row[name] for row in found])) for name in found[0]}
        for key, found in rows.items()
    }


def main() -> None:
    """Print what each measure is worth, and the curve of each setting."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--classifier", type=Path, help="folder of one for the deletion test")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    means = table(run, arguments.images, arguments.classifier)
    names = list(next(iter(means.values())))
    by_setting = {
        t.name: [(v, means[t.name, v]) for v in values_to_try(run.context.walk, t)] for t in TUNABLE
    }
    print("\n| measure | over all | within a setting | gain, mean | worst |\n|---|---|---|---|---|")
    iou = [row[IOU] for row in means.values()]
    for name in names:
        pooled = spearman([row[name] for row in means.values()], iou)
        within, gains = [], []
        for setting, rows in by_setting.items():
            values, truths = [row[name] for _, row in rows], [row[IOU] for _, row in rows]
            within.append(spearman(values, truths))
            own = next(row for v, row in rows if v == value_of(run.context.walk, setting))
            gains.append(truths[int(np.argmax(values))] - own[IOU])
        cells = f"{np.mean(within):.2f} | {100 * np.mean(gains):+.1f} | {100 * min(gains):+.1f}"
        print(f"| {name} | {pooled:.2f} | {cells} |")
    print("\n| setting | value | " + " | ".join(names) + " |")
    print("|---|---|" + "---|" * len(names))
    for setting, rows in by_setting.items():
        for value, row in rows:
            print(f"| {setting} | {value} | " + " | ".join(f"{row[n]:.3f}" for n in names) + " |")


if __name__ == "__main__":
    main()
