"""Stage 7: segmenter and tags -> masks/<id>.png, the final masks of the tagged images.

The segmenter learned from noisy masks of many images, whose mistakes it averages out; the tags say
which classes it may see in this one. Where it has unlearnt a class that its labels have, the images
of that class keep the masks from before, and a warning says so. Corrections win over all of it.

With several rounds these masks teach the next segmenter: where asked to, with the pixels neutral
that this one is not certain of (certain_1/<id>.png).
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affinitynet.data import Sample, load_image, write_labels
from affinitynet.data.corrections import correct_labels
from affinitynet.data.emptiness import empty_masks, say_empty
from affinitynet.data.labels import to_labels
from affinitynet.hardware import inference
from affinitynet.models.segmenter import Segmenter
from affinitynet.ops.final_scores import restrict, with_evidence
from affinitynet.ops.propagation import label_scores
from affinitynet.run_folder.artifacts import PSEUDO, Artifact, Round
from affinitynet.run_folder.rounds import leaves_out, round_before
from affinitynet.run_folder.stages import Stage
from affinitynet.run_folder.store import is_there
from affinitynet.stages.context import Context
from affinitynet.stages.images import Shown, blaming, make_each, read_mask
from affinitynet.walking import refined

JUDGED = 30  # images of each class, evenly over the list
FOUND = 0.5  # of those that show the class in their labels: fewer, and it is unlearnt


class Scored(NamedTuple):
    """An image (H, W, 3) and its scores (K + 1, H, W); agreed: (H, W), where two scales agree."""

    image: Tensor
    scores: Tensor
    agreed: Tensor | None = None


def work(context: Context, stage: Stage) -> dict[str, Any]:
    """Write the final mask of every training image."""
    assert stage.round is not None
    this = stage.round
    segmenter = Segmenter.load(context.folder(this.segmenter))
    samples = context.samples("train", "figures")
    before = round_before(context.recipe, this)
    agrees = context.recipe.relabel.agreement and this.certain is not None
    with inference(segmenter.net, context.hardware) as device:

        def compute(sample: Sample, image: Tensor) -> Scored:
            pixels = image.to(device)
            scores = restrict(segmenter.scores(pixels), sample.tags)
            agreed = agreement(segmenter, pixels, sample.tags).cpu() if agrees else None
            return Scored(image, scores.cpu(), agreed)

        found: dict[int, float] = {}
        unlearnt = {index + 1 for index in context.unlearnt}
        if not context.recipe.networks.run:  # else that run has judged its segmenter
            judged = _sampled(samples, len(context.manifest.classes))
            found = _judge(context, stage.name, judged, compute, before.masks if before else PSEUDO)
            unlearnt = {label for label, share in found.items() if share < FOUND}
        # No label told the segmenter of a failed class: its images stay neutral where they are.
        kept = unlearnt | {index + 1 for index in context.failed}
        shown = Shown(context, this.masks)
        counts = make_each(
            context,
            stage.name,
            this.masks,
            samples,
            load=lambda sample: torch.from_numpy(load_image(sample.image, sample.reading)),
            compute=compute,
            finish=lambda sample, computed: shown.write(
                sample, _final(context, sample, computed, kept, this, before)
            ),
        )
    names = context.manifest.classes
    kept_masks = f"masks in {before.masks.folder}/" if before else "pseudo masks"
    judgements = [
        f"the segmenter finds {names[label - 1]} in only {found[label]:.0%} of the images whose "
        f"labels have it: those images keep their {kept_masks}"
        for label in sorted(unlearnt & found.keys())
    ]
    empty = empty_masks(samples, shown, names, context.failed)
    judgements += say_empty(
        empty, "final masks", f"compare {this.masks.folder}/ with pseudo/ in the report"
    )
    return {
        **counts,
        "found": {names[label - 1]: round(share, 3) for label, share in sorted(found.items())},
        "empty": empty,
        "judgements": judgements,
        "warnings": judgements,
    }


def agreement(segmenter: Segmenter, image: Tensor, tags: Iterable[int]) -> Tensor:
    """Tell where the smallest and the largest scale say the same label of the tags: (H, W) bool.

    image (H, W, 3) uint8 on the segmenter's device.
    """
    scales = segmenter.settings.scales
    one, other = (
        restrict(segmenter.scores(image, (scale,)), tags).argmax(0)
        for scale in (min(scales), max(scales))
    )
    return one == other


def _final(
    context: Context,
    sample: Sample,
    computed: Scored,
    kept: set[int],
    this: Round,
    before: Round | None,
) -> NDArray[np.integer[Any]]:
    """Return an image's final mask, corrected; what was corrected is kept in a file of its own."""
    manifest = context.manifest
    certain: NDArray[np.bool_] | None = None
    if kept & {tag + 1 for tag in sample.tags}:
        labels: NDArray[np.integer[Any]] = _labels_before(context, sample, before)
    else:
        if (odds := context.recipe.relabel.odds) > 1:
            taught_by = torch.from_numpy(_labels_before(context, sample, before).astype(np.int64))
            scores = with_evidence(computed.scores, taught_by, sample.tags, odds)
            computed = computed._replace(scores=scores)
        scores = _refined(context, computed)
        labels = _labels(context, sample, scores)
        certain = _certain(context, scores, computed.agreed)
    if this.certain and leaves_out(context.recipe):
        teaching = labels if certain is None else np.where(certain, labels, manifest.ignore_index)
        teaching = teaching.astype(labels.dtype)
        write_labels(context.file(this.certain, sample), teaching, manifest.palette)
    corrected = correct_labels(labels, context.root, sample.id, len(manifest.classes))
    if corrected is not labels:
        write_labels(context.file(this.uncorrected, sample), labels, manifest.palette)
    return corrected


def _labels_before(
    context: Context, sample: Sample, before: Round | None
) -> NDArray[np.integer[Any]]:
    """Read the mask that the round before left, or the pseudo mask, without a correction."""
    if before is None:
        return context.labels(PSEUDO, sample)
    drawn_over = is_there(context.file(before.uncorrected, sample))
    return context.labels(before.uncorrected if drawn_over else before.masks, sample)


def _certain(context: Context, scores: Tensor, agreed: Tensor | None) -> NDArray[np.bool_]:
    certain = scores.max(0).values >= context.recipe.relabel.confidence
    found: NDArray[np.bool_] = (certain if agreed is None else certain & agreed).numpy()
    return found


def _refined(context: Context, computed: Scored) -> Tensor:
    settings = context.recipe.relabel
    if not settings.refine:
        return computed.scores
    return refined(computed.image, computed.scores, settings)


def _labels(context: Context, sample: Sample, scores: Tensor) -> NDArray[np.integer]:
    local = label_scores(scores).numpy().astype(np.uint8)
    return to_labels(local, np.array(sample.tags, np.int64), context.manifest.ignore_index)


def _sampled(samples: Iterable[Sample], classes: int) -> list[Sample]:
    """Take up to `JUDGED` images of each class, evenly over the list."""
    found: dict[str, Sample] = {}
    every = list(samples)
    for index in range(classes):
        tagged = [sample for sample in every if index in sample.tags]
        # Rounded up, so that at most JUDGED are taken.
        step = max(1, -(-len(tagged) // JUDGED))
        found |= {sample.id: sample for sample in tagged[::step]}
    return list(found.values())


def _judge(
    context: Context,
    stage: str,
    samples: Iterable[Sample],
    compute: Callable[[Sample, Tensor], Scored],
    taught_by: Artifact,
) -> dict[int, float]:
    """Return for each label the share of the images with it in their labels that still have it."""
    shown: Counter[int] = Counter()
    kept: Counter[int] = Counter()
    for sample in samples:
        labels = {int(label) for label in np.unique(read_mask(context, taught_by, sample))}
        labels -= {0, context.manifest.ignore_index}
        if not labels:
            continue
        with blaming(stage, sample):
            image = torch.from_numpy(load_image(sample.image, sample.reading))
            scores = _refined(context, compute(sample, image))
        predicted = set(np.unique(_labels(context, sample, scores)).tolist())
        shown.update(labels)
        kept.update(labels & predicted)
    return {label: kept[label] / count for label, count in shown.items()}
