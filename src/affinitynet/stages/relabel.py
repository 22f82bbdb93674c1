"""Stage 7: segmenter and tags -> masks/<id>.png, the final masks of the tagged images.

The segmenter learnt from noisy masks of many images, whose mistakes it averages out; the tags say
which classes it may see in this one. Where it has unlearnt a class that its labels have, the images
of that class keep their pseudo masks, and a warning says so. Corrections win over all of it.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

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
from affinitynet.ops.propagation import label_scores, refine_scores
from affinitynet.run_folder.artifacts import MASKS, PSEUDO, SEGMENTER, UNCORRECTED
from affinitynet.stages.context import Context
from affinitynet.stages.images import Shown, make_each, read_mask

JUDGED = 30  # images of each class, evenly over the list
FOUND = 0.5  # of those that show the class in their labels: fewer, and it is unlearnt


def work(context: Context) -> dict[str, Any]:
    """Write the final mask of every training image."""
    segmenter = Segmenter.load(context.folder(SEGMENTER))
    samples = context.samples("train", "figures")
    with inference(segmenter.net, context.hardware) as device:

        def compute(sample: Sample, image: Tensor) -> tuple[Tensor, Tensor]:
            scores = restrict(segmenter.scores(image.to(device)), sample.tags)
            return image, scores.cpu()

        found: dict[int, float] = {}
        unlearnt = {index + 1 for index in context.unlearnt}
        if not context.recipe.networks.run:  # else that run has judged its segmenter
            found = _judge(context, _sampled(samples, len(context.manifest.classes)), compute)
            unlearnt = {label for label, share in found.items() if share < FOUND}
        # No label told the segmenter of a failed class: its images stay neutral where they are.
        kept = unlearnt | {index + 1 for index in context.failed}
        shown = Shown(context, MASKS)
        counts = make_each(
            context,
            "relabel",
            MASKS,
            samples,
            load=lambda sample: torch.from_numpy(load_image(sample.image)),
            compute=compute,
            finish=lambda sample, computed: shown.write(
                sample, _final(context, sample, *computed, kept)
            ),
        )
    names = context.manifest.classes
    judgements = [
        f"the segmenter finds {names[label - 1]} in only {found[label]:.0%} of the images whose "
        "labels have it: those images keep their pseudo masks"
        for label in sorted(unlearnt & found.keys())
    ]
    empty = empty_masks(samples, shown, names, context.failed)
    judgements += say_empty(empty, "final masks", "compare masks/ with pseudo/ in the report")
    return {
        **counts,
        "found": {names[label - 1]: round(share, 3) for label, share in sorted(found.items())},
        "empty": empty,
        "judgements": judgements,
        "warnings": judgements,
    }


def restrict(probabilities: Tensor, tags: Iterable[int]) -> Tensor:
    """Keep the background and the tagged classes: (C + 1, H, W) -> (K + 1, H, W), summing to one.

    P'_k = P_k / sum_j P_j over background and tags: what is left when the tags are known.
    """
    kept = probabilities[[0, *(tag + 1 for tag in tags)]]
    # Where no kept class has any probability, 0 / 0 would be NaN.
    return kept / kept.sum(0, keepdim=True).clamp(min=1e-12)


def _final(
    context: Context, sample: Sample, image: Tensor, scores: Tensor, kept: set[int]
) -> NDArray[np.integer[Any]]:
    """Return an image's final mask, corrected; what was corrected is kept in a file of its own."""
    manifest = context.manifest
    if kept & {tag + 1 for tag in sample.tags}:
        labels: NDArray[np.integer[Any]] = context.labels(PSEUDO, sample)
    else:
        labels = _decide(context, sample, image, scores)
    corrected = correct_labels(labels, context.root, sample.id, len(manifest.classes))
    if corrected is not labels:
        write_labels(context.file(UNCORRECTED, sample), labels, manifest.palette)
    return corrected


def _decide(context: Context, sample: Sample, image: Tensor, scores: Tensor) -> NDArray[np.integer]:
    settings = context.recipe.relabel
    if settings.refine:
        scores = refine_scores(image, scores, **settings.crf.model_dump())
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


def _judge(context: Context, samples: Iterable[Sample], compute: Any) -> dict[int, float]:
    """Return for each label how many of the images with it in their pseudo mask still have it."""
    shown: Counter[int] = Counter()
    kept: Counter[int] = Counter()
    for sample in samples:
        labels = {int(label) for label in np.unique(read_mask(context, PSEUDO, sample))}
        labels -= {0, context.manifest.ignore_index}
        if not labels:
            continue
        image = torch.from_numpy(load_image(sample.image))
        predicted = set(np.unique(_decide(context, sample, *compute(sample, image))).tolist())
        shown.update(labels)
        kept.update(labels & predicted)
    return {label: kept[label] / count for label, count in shown.items()}
