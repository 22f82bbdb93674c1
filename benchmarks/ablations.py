"""The paper's ablations on a run: beta, t, background, radius, dense CRF or PAR, no walk.

    python benchmarks/ablations.py RUN --split train_precise --out docs/figures/ablations.svg
    python benchmarks/ablations.py RUN --affinity OTHER_RUN="radius 7" --affinity THIRD="from truth"

RUN is a run folder with `cams/` and the affinities that a run keeps (`affinities/`); it is only
read. Every variant walks on the same affinities; one setting changes at a time, the others are the
recipe's. The mIoU comes from one confusion matrix a variant over the split. The image's tags are
given, and ground truth is used to compare variants, never to choose one.

The dense CRF is run for the recipe's own setting, for other affinity networks, constant
backgrounds and without a walk; with --crf for every variant (about as many times slower). The
radius is varied on the network as trained. Kept affinities reach as far as the trained radius;
where they are not kept, or with --network, the network is run again and gives larger ones too. A
smaller radius only sees fewer of the pairs it was trained on, a larger one pairs it never saw; a
fair comparison of larger ones needs networks trained with them, which --affinity adds (a run
folder, or its affinity/, and a label; it walks with its own radius).
"""

import argparse
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from affinitynet.data import Sample, load_image, load_truth
from affinitynet.data.cams import load_cams
from affinitynet.data.grids import load_affinity
from affinitynet.data.labels import to_labels
from affinitynet.data.scoring import Confusion, count_pairs, intersection_over_union
from affinitynet.data.sources.enlarge import grid_stride
from affinitynet.errors import UserError
from affinitynet.hardware import inference
from affinitynet.models.affinity_net import image_affinity, load_affinity_net
from affinitynet.ops import (
    enlarge_scores,
    label_scores,
    neighbor_offsets,
    pixel_adaptive_refinement,
)
from affinitynet.ops.affinity import cropped_pairs
from affinitynet.pipeline import Run
from affinitynet.run_folder.artifacts import AFFINITIES, AFFINITY, CAMS
from affinitynet.run_folder.folder import RECIPE
from affinitynet.run_folder.settings import WalkSettings
from affinitynet.stages.context import Context
from affinitynet.stages.images import for_each
from affinitynet.walking import refined, seeds_of, walked

BETAS = (1.0, 2.0, 4.0, 8.0, 16.0)
STEPS = (1, 16, 64, 256, 1024)
ALPHAS = (4.0, 8.0, 16.0, 24.0, 32.0)
RADII = (3, 5, 7)
SCORES = (0.1, 0.15, 0.2, 0.25, 0.3)  # of a constant background
CONSTANT = "constant background"
NO_WALK = "alpha, no walk"
Refine = Literal["crf", "par"]


@dataclass(frozen=True)
class Variant:
    """One way to turn stored CAMs and affinities into masks; `walks` false: of the CAMs alone."""

    group: str
    value: float | str
    walk: WalkSettings
    radius: int
    source: int = 0
    walks: bool = True
    refine: Refine | None = None

    @property
    def name(self) -> str:
        """Say the setting as the table does."""
        value = f"{self.value:g}" if isinstance(self.value, int | float) else self.value
        return f"{self.group} = {value}" if self.group != "network" else value

    def at(self, group: str, value: float, **settings: Any) -> "Variant":
        """Give this one with other settings of the walk, in a group of the table."""
        walk = self.walk.model_copy(update=settings)
        return replace(self, group=group, value=value, walk=walk)


@dataclass(frozen=True)
class Source:
    """Where affinities come from: the files that a run kept, or its network."""

    label: str
    of: Callable[[Sample, Tensor], Tensor]  # an image (H, W, 3) -> (P, h, w) up to `reach`
    radius: int  # that its run walks with
    reach: int  # the largest it has
    stride: int
    cropped: bool

    def within(self, affinity: Tensor, radius: int) -> Tensor:
        """Keep the pairs of a smaller radius."""
        near = neighbor_offsets(self.reach).square().sum(1) < radius * radius
        return cropped_pairs(affinity[near], radius) if self.cropped else affinity[near]


def load_source(
    folder: Path, label: str, samples: Sequence[Sample], *, anew: bool = False
) -> Source:
    """Find the affinities of a run folder, or of the folder's own affinity/; `anew`: no files."""
    run = Run.open(folder if (folder / RECIPE).is_file() else folder.parent)
    context, settings = run.context, run.recipe.affinity
    files = [context.file(AFFINITIES, sample) for sample in samples]
    cropped = settings.pairs == "cropped"
    if not anew and all(file.is_file() for file in files):
        _, radius = load_affinity(files[0])
        return Source(
            label,
            lambda sample, _: torch.from_numpy(load_affinity(context.file(AFFINITIES, sample))[0]),
            radius,
            radius,
            8 // settings.scale,
            cropped,
        )
    model = load_affinity_net(context.folder(AFFINITY))
    radius, model.radius = model.radius, max(model.radius, *RADII)
    hardware = context.hardware_at(run.recipe.walk.precision)

    def compute(_: Sample, image: Tensor) -> Tensor:
        with inference(model, hardware) as device:
            return image_affinity(model, image, device).float()

    return Source(label, compute, radius, model.radius, model.stride, cropped)


def variants_of(context: Context, sources: Sequence[Source]) -> list[Variant]:
    """List the variants: one setting changes, the others are the recipe's."""
    walk, own = context.walk, sources[0]
    default = Variant("network", own.label, walk, own.radius)
    alphas = sorted({*ALPHAS, walk.alpha})
    radii = [radius for radius in RADII if radius <= own.reach]
    by_map = {"background": "alpha"}
    changed = [
        *(default.at("beta", b, beta=b) for b in sorted({*BETAS, walk.beta})),
        *(default.at("t", t, steps=t) for t in sorted({*STEPS, walk.steps})),
        *(default.at("alpha", a, alpha=a, **by_map) for a in alphas),
        *(
            replace(
                default.at(CONSTANT, c, background="constant", background_score=c), refine="crf"
            )
            for c in SCORES
        ),
        *(
            replace(default, group="radius", value=r, radius=r)
            for r in sorted({*radii, own.radius})
        ),
    ]
    plain = replace(default, walks=False, refine="crf")
    others = [
        replace(default, value=source.label, radius=source.radius, source=index, refine="crf")
        for index, source in enumerate(sources)
    ]
    by_par = replace(default, group="refinement", value="PAR in place of the CRF", refine="par")
    without = [plain.at(NO_WALK, a, alpha=a, **by_map) for a in alphas]
    return [*others, by_par, *changed, *without]


def scores_of(
    variant: Variant, cams: Tensor, affinities: Sequence[Tensor], sources: Sequence[Source]
) -> Tensor:
    """Score background and tags (K + 1, H, W) by a variant."""
    if not variant.walks:
        return seeds_of(cams, variant.walk)
    source, affinity = sources[variant.source], affinities[variant.source]
    size = (cams.shape[1], cams.shape[2])
    stride = grid_stride((affinity.shape[1], affinity.shape[2]), size, source.stride)
    if stride is None:
        raise UserError(f"affinities {tuple(affinity.shape)} fit no image of {size[0]} x {size[1]}")
    near = source.within(affinity, variant.radius)
    scores = walked(cams, near, variant.walk, radius=variant.radius, stride=stride)
    return enlarge_scores(scores.half().float(), stride, size)  # rounded to what a run keeps


def refine_by(refine: Refine, image: Tensor, scores: Tensor, walk: WalkSettings) -> Tensor:
    """Refine scores (K + 1, H, W) by the dense CRF of these settings, or by PAR."""
    if refine == "crf":
        return refined(image, scores, walk)
    return pixel_adaptive_refinement(image, scores)


class Tally:
    """The confusion matrices of all variants, before and after the CRF."""

    def __init__(self, context: Context, sources: Sequence[Source], crf: bool) -> None:
        """Start with nothing counted."""
        side = len(context.manifest.classes) + 1
        self.context, self.sources = context, sources
        self.variants = variants_of(context, sources)
        if crf:
            self.variants = [replace(v, refine=v.refine or "crf") for v in self.variants]
        self.before: list[Confusion] = [np.zeros((side, side), np.int64) for _ in self.variants]
        self.after = {
            index: np.zeros((side, side), np.int64)
            for index, variant in enumerate(self.variants)
            if variant.refine
        }
        self._lock = threading.Lock()

    def count(self, sample: Sample, image: Tensor, affinities: Sequence[Tensor]) -> None:
        """Make one image's masks by every variant and compare them with its ground truth."""
        manifest = self.context.manifest
        classes, stored = load_cams(
            self.context.file(CAMS, sample), classes=len(manifest.classes), size=image.shape[:2]
        )
        cams, truth = torch.from_numpy(stored), load_truth(manifest, sample)
        valid = truth != manifest.ignore_index

        def confusion(scores: Tensor) -> Confusion:
            local = label_scores(scores).numpy()
            labels = to_labels(local, classes, manifest.ignore_index)
            return count_pairs(truth[valid], labels[valid], self.before[0].shape)

        for index, variant in enumerate(self.variants):
            scores = scores_of(variant, cams, affinities, self.sources)
            before, after = confusion(scores), None
            if variant.refine:
                after = confusion(refine_by(variant.refine, image, scores, variant.walk))
            with self._lock:
                self.before[index] += before
                if after is not None:
                    self.after[index] += after

    def figures(self) -> list[tuple[Variant, float, float | None]]:
        """Answer each variant's mIoU in percent without and, where it was run, with the CRF."""
        return [
            (
                variant,
                _percent(self.before[index]),
                _percent(self.after[index]) if index in self.after else None,
            )
            for index, variant in enumerate(self.variants)
        ]


def _percent(confusion: Confusion) -> float:
    return 100 * float(intersection_over_union(confusion)["miou"] or 0)


def measure(
    context: Context,
    samples: Sequence[Sample],
    sources: Sequence[Source],
    *,
    crf: bool = False,
    workers: int | None = None,
) -> list[tuple[Variant, float, float | None]]:
    """Decide the samples by every variant, and answer `Tally.figures`."""
    tally = Tally(context, sources, crf)
    for_each(
        "ablations",
        samples,
        load=lambda sample: torch.from_numpy(load_image(sample.image)),
        compute=lambda sample, image: (image, [source.of(sample, image) for source in sources]),
        finish=lambda sample, computed: tally.count(sample, *computed),
        workers=workers or context.recipe.workers,
    )
    return tally.figures()


def draw(figures: list[tuple[Variant, float, float | None]], out: Path) -> None:
    """Draw one small plot a setting, all with the same axis of mIoU."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    groups = ("beta", "t", "alpha", "radius", NO_WALK, "network")
    mpl.rcParams["svg.hashsalt"] = "ablations"  # the same figures, the same file
    figure, axes = plt.subplots(2, 3, figsize=(10, 6), sharey=True, layout="constrained")
    for axis, group in zip(axes.flat, groups, strict=True):
        rows = [row for row in figures if row[0].group == group]
        names = [row[0].name.removeprefix(f"{group} = ") for row in rows]
        places = range(len(rows))
        style = "o-" if group != "network" else "o"
        axis.plot(places, [row[1] for row in rows], style, label="without CRF")
        after = [(place, row[2]) for place, row in zip(places, rows, strict=True) if row[2]]
        if after:
            axis.plot(*zip(*after, strict=True), style.replace("o", "s"), label="with CRF")
        axis.set_xticks(places, names)
        axis.set_title(group if group != "network" else "affinity network", fontsize=10)
        axis.grid(alpha=0.3)
        axis.margins(x=0.15)
        axis.legend(fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("mIoU, %")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, **({"metadata": {"Date": None}} if out.suffix == ".svg" else {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "run", type=Path, help="run folder with cams/, and affinities/ or affinity/"
    )
    parser.add_argument("--split", help="with ground truth; default: the recipe's figures")
    parser.add_argument("--images", type=int, help="the split's first; default: all")
    parser.add_argument("--affinity", action="append", default=[], metavar="FOLDER=LABEL")
    parser.add_argument("--network", action="store_true", help="run it again, for larger radii")
    parser.add_argument("--crf", action="store_true", help="dense CRF for every variant")
    parser.add_argument("--workers", type=int, help="threads; default: the recipe's")
    parser.add_argument("--out", type=Path, help="the plot, .svg or .png")
    arguments = parser.parse_args()

    run = Run.open(arguments.run)
    recipe, context = run.recipe, run.context
    split = arguments.split or recipe.dataset.figures or recipe.dataset.train
    samples = [s for s in run.manifest.split(split) if s.mask][: arguments.images]
    if not samples:
        raise UserError(f"split {split!r} has no ground truth to compare with")
    sources = [load_source(arguments.run, "as trained", samples, anew=arguments.network)]
    for text in arguments.affinity:
        folder, _, label = text.partition("=")
        sources.append(load_source(Path(folder), label or folder, samples))
    figures = measure(context, samples, sources, crf=arguments.crf, workers=arguments.workers)

    radius, reach, walk = sources[0].radius, sources[0].reach, context.walk
    background = "alpha" if walk.background == "alpha" else "background_score"
    print(
        f"{recipe.name}, split {split}, {len(samples)} images, tags given; {walk.background} "
        f"background ({background} {getattr(walk, background):g}), beta {walk.beta:g}, t "
        f"{walk.steps}, radius {radius} where not said otherwise; no guard of the walk.\n"
        "Ground truth is used to compare the settings, not to choose one."
    )
    if reach > radius:
        print(f"Radii over the trained one ({radius}) take pairs that the network never saw.")
    print()
    print("| setting | mIoU without CRF | mIoU with CRF |\n|---|---|---|")
    for variant, before, after in figures:
        print(f"| {variant.name} | {before:.1f} | {'' if after is None else f'{after:.1f}'} |")
    if arguments.out:
        draw(figures, arguments.out)


if __name__ == "__main__":
    main()
