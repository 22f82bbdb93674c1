"""The paper's ablations on a run: beta, t, alpha, radius, with and without dense CRF, no walk.

    python benchmarks/ablations.py RUN --split train_precise --out docs/figures/ablations.svg
    python benchmarks/ablations.py RUN --affinity OTHER_RUN="radius 7" --affinity THIRD="from truth"

RUN is a run folder with `cams/` and a trained affinity network; it is only read. The affinities of
an image are computed once and every variant walks on them; one setting changes at a time, the
others are the recipe's. The mIoU comes from one confusion matrix a variant over the split. The
image's tags are given, and ground truth is used to compare variants, never to choose one.

The dense CRF is run for the recipe's own setting, for other affinity networks and without a walk;
with --crf for every variant (about as many times slower). The radius is varied at inference, on
the network as trained: up to the trained radius it only sees fewer of the pairs it was trained on,
beyond that pairs it never saw; a fair comparison of larger ones needs networks trained with them,
which --affinity adds (a run folder, or its affinity/, and a label; it walks with its own radius).
"""

import argparse
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from affinitynet.data import Sample, load_image, load_truth
from affinitynet.data.sample import output_path
from affinitynet.errors import UserError
from affinitynet.hardware import inference
from affinitynet.models.affinity_net import AffinityNet
from affinitynet.ops import background_map, dense_crf, neighbor_offsets, pairwise_affinity
from affinitynet.ops.affinity import cropped_pairs
from affinitynet.pipeline import Run
from affinitynet.stages.compute_cams import load_cams
from affinitynet.stages.context import Context, each_image
from affinitynet.stages.evaluate import Confusion, count_pairs, intersection_over_union
from affinitynet.stages.mine_confident import to_labels
from affinitynet.stages.propagate import pad_to_stride, walk_cams
from affinitynet.stages.train_affinity import load_affinity_net

BETAS = (1.0, 2.0, 4.0, 8.0, 16.0)
STEPS = (1, 16, 64, 256, 1024)
ALPHAS = (4.0, 8.0, 16.0, 24.0, 32.0)
RADII = (3, 5, 7)
NO_WALK = "alpha, no walk"


@dataclass(frozen=True)
class Variant:
    """One way to turn stored CAMs and affinities into masks; `steps` None: without a walk."""

    group: str
    value: float | str
    alpha: float
    beta: float
    steps: int | None
    radius: int
    network: int = 0
    crf: bool = False

    @property
    def name(self) -> str:
        """Say the setting as the table does."""
        value = f"{self.value:g}" if isinstance(self.value, int | float) else self.value
        return f"{self.group} = {value}" if self.group != "network" else value


@dataclass(frozen=True)
class Network:
    """An affinity network and what it walks on."""

    label: str
    model: AffinityNet
    cropped: bool
    reach: int  # the largest radius asked of it

    def affinities(self, image: Tensor, device: torch.device) -> Tensor:
        """Compute the affinities (1, P, h, w) of an image (3, H, W) up to `reach`."""
        normalization: Any = self.model.backbone.normalization
        pixels = pad_to_stride(normalization.apply(image[None].to(device)), self.model.stride)
        features = self.model.head(
            self.model.backbone(pixels.contiguous(memory_format=torch.channels_last))
        )
        return pairwise_affinity(features.float().cpu(), self.reach, self.model.distance)

    def within(self, affinity: Tensor, radius: int) -> Tensor:
        """Keep the pairs of a smaller radius."""
        near = neighbor_offsets(self.reach).square().sum(1) < radius * radius
        chosen = affinity[:, near]
        return cropped_pairs(chosen, radius) if self.cropped else chosen


def variants_of(context: Context, networks: list[Network]) -> list[Variant]:
    """List the variants: one setting changes, the others are the recipe's."""
    walk, radius = context.recipe.walk, networks[0].model.radius
    default = Variant("network", networks[0].label, walk.alpha, walk.beta, walk.steps, radius)
    changed = [
        *(replace(default, group="beta", value=b, beta=b) for b in BETAS),
        *(replace(default, group="t", value=t, steps=t) for t in STEPS),
        *(replace(default, group="alpha", value=a, alpha=a) for a in ALPHAS),
        *(replace(default, group="radius", value=r, radius=r) for r in RADII),
    ]
    plain = replace(default, steps=None, crf=True, group=NO_WALK)
    others = [
        replace(default, value=n.label, radius=n.model.radius, network=index, crf=True)
        for index, n in enumerate(networks)
    ]
    return [*others, *changed, *(replace(plain, value=a, alpha=a) for a in ALPHAS)]


def scores_of(
    variant: Variant, cams: Tensor, affinities: list[Tensor], networks: list[Network]
) -> Tensor:
    """Score background and tags (K + 1, H, W) by a variant."""
    if variant.steps is None:
        return torch.cat([background_map(cams, variant.alpha), cams])
    network = networks[variant.network]
    return walk_cams(
        cams,
        network.within(affinities[variant.network], variant.radius),
        alpha=variant.alpha,
        beta=variant.beta,
        steps=variant.steps,
        radius=variant.radius,
        stride=network.model.stride,
    )


class Tally:
    """The confusion matrices of all variants, before and after the CRF."""

    def __init__(self, context: Context, variants: list[Variant], crf: bool) -> None:
        """Start with nothing counted."""
        side = len(context.manifest.classes) + 1
        self.context, self.variants = context, variants
        self.refined = [index for index, v in enumerate(variants) if crf or v.crf]
        self.before: list[Confusion] = [np.zeros((side, side), np.int64) for _ in variants]
        self.after = {index: np.zeros((side, side), np.int64) for index in self.refined}
        self._lock = threading.Lock()

    def count(
        self, sample: Sample, image: Tensor, affinities: list[Tensor], networks: list[Network]
    ) -> None:
        """Make one image's masks by every variant and compare them with its ground truth."""
        context, manifest = self.context, self.context.manifest
        classes, stored = load_cams(context.file("cams", sample, ".npz"))
        cams = torch.from_numpy(stored)
        truth = load_truth(manifest, sample)
        valid = truth != manifest.ignore_index
        scores = [scores_of(v, cams, affinities, networks) for v in self.variants]
        # Label sets of one image in one call: they share the image's lattices.
        refined = torch.stack([scores[index] for index in self.refined])
        if len(classes):
            settings = context.recipe.walk.crf.model_dump()
            refined = dense_crf(image.permute(1, 2, 0), refined, **settings)

        def confusion(maps: Tensor) -> Confusion:
            local = maps.argmax(0).numpy().astype(np.uint8)
            labels = to_labels(local, classes, manifest.ignore_index)
            return count_pairs(truth[valid], labels[valid], self.before[0].shape)

        before = [confusion(maps) for maps in scores]
        after = [confusion(maps) for maps in refined]
        with self._lock:
            for total, part in zip(self.before, before, strict=True):
                total += part
            for index, part in zip(self.refined, after, strict=True):
                self.after[index] += part

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


def load_network(folder: Path, label: str, largest: int) -> Network:
    """Load the affinity network of a run folder, or of the folder's own affinity/."""
    run = Run.open(folder if (folder / "recipe.yaml").is_file() else folder.parent)
    model = load_affinity_net(run.context)
    cropped = run.recipe.affinity.pairs == "cropped"
    return Network(label, model, cropped, max(model.radius, largest))


def draw(figures: list[tuple[Variant, float, float | None]], out: Path) -> None:
    """Draw one small plot a setting, all with the same axis of mIoU."""
    groups = ("beta", "t", "alpha", "radius", NO_WALK, "network")
    mpl.rcParams["svg.hashsalt"] = "ablations"  # the same figures, the same file
    figure, axes = plt.subplots(2, 3, figsize=(10, 6), sharey=True, layout="constrained")
    for axis, group in zip(axes.flat, groups, strict=True):
        rows = [row for row in figures if row[0].group == group]
        names = [row[0].name.removeprefix(f"{group} = ") for row in rows]
        places = range(len(rows))
        style = "o-" if group != "network" else "o"
        axis.plot(places, [row[1] for row in rows], style, label="without CRF")
        refined = [(place, row[2]) for place, row in zip(places, rows, strict=True) if row[2]]
        if refined:
            axis.plot(*zip(*refined, strict=True), style.replace("o", "s"), label="with CRF")
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
    parser.add_argument("run", type=Path, help="run folder with cams/ and affinity/")
    parser.add_argument("--split", help="with ground truth; default: the recipe's figures")
    parser.add_argument("--images", type=int, help="the split's first; default: all")
    parser.add_argument("--affinity", action="append", default=[], metavar="FOLDER=LABEL")
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
    networks = [load_network(arguments.run, "as trained", max(RADII))]
    for text in arguments.affinity:
        folder, _, label = text.partition("=")
        networks.append(load_network(Path(folder), label or folder, 0))
    tally = Tally(context, variants_of(context, networks), arguments.crf)

    with ExitStack() as stack:
        nothing = Path(stack.enter_context(TemporaryDirectory()))  # no image was done before
        device, *_ = [stack.enter_context(inference(n.model, context.hardware)) for n in networks]
        each_image(
            "ablations",
            samples,
            lambda sample: output_path(nothing, sample.id),
            load=lambda sample: torch.from_numpy(load_image(sample.image)).permute(2, 0, 1),
            compute=lambda _, image: (image, [n.affinities(image, device) for n in networks]),
            finish=lambda sample, computed: tally.count(sample, *computed, networks),
            workers=arguments.workers or recipe.workers,
        )

    figures = tally.figures()
    print(
        f"{run.recipe.name}, split {split}, {len(samples)} images, tags given; alpha "
        f"{recipe.walk.alpha:g}, beta {recipe.walk.beta:g}, t {recipe.walk.steps}, radius "
        f"{networks[0].model.radius} where not said otherwise.\nGround truth is used to compare "
        "the settings, not to choose one. Radii over the trained one "
        f"({networks[0].model.radius}) take pairs that the network never saw.\n"
    )
    print("| setting | mIoU without CRF | mIoU with CRF |\n|---|---|---|")
    for variant, before, after in figures:
        print(f"| {variant.name} | {before:.1f} | {'' if after is None else f'{after:.1f}'} |")
    if arguments.out:
        draw(figures, arguments.out)


if __name__ == "__main__":
    main()
