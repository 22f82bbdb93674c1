"""The whole label generation on real images: how fast, where the time goes, against the original.

    python benchmarks/label_generation.py RUN --images 50 --peer-images 5

RUN is a run folder with a trained classifier and a trained affinity network; it is only read. CAM
inference, confident mining and propagation of some of its training images are measured three ways:

(a) as the pipeline does it, the three stages' own `work` in a temporary run folder: decoding, CPU
    kernels and writing run in threads beside the network;
(b) the same code with all of that one after another, every kernel timed: the profile;
(c) the original's arithmetic (see original_pipeline.py) on a few of the same images.

All run in one process with the same number of torch threads, and subnormal numbers flushed to zero
(without that the dense squarings of (c) crawl). A small run before the measurements loads
libraries and compiles kernels, or loads them from numba's cache; its time is stated.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from machine import machine_line, settle
from original_pipeline import original_cams, original_confident, original_crf, original_walk

from affinitynet import walking
from affinitynet.data import Sample, load_image, read_labels, write_labels
from affinitynet.data.labels import to_labels
from affinitynet.models import affinity_net
from affinitynet.models.affinity_net import AffinityNet
from affinitynet.models.classifier import Classifier
from affinitynet.ops import propagation
from affinitynet.pipeline import Run
from affinitynet.run_folder.artifacts import AFFINITY, CAMS, CLASSIFIER, CONFIDENT, PSEUDO, Artifact
from affinitynet.run_folder.folder import output_path
from affinitynet.stages import compute_cams, mine_confident, propagate
from affinitynet.stages import images as image_loop
from affinitynet.stages.context import Context

STAGES = {
    "CAM inference": compute_cams,
    "confident mining": mine_confident,
    "propagation": propagate,
}
# Which function is which line of the profile; a function's time is without that of inner lines.
LINES: tuple[tuple[Any, str, str], ...] = (
    (compute_cams, "load_image", "decoding"),
    (mine_confident, "load_picture", "decoding"),
    (propagate, "load_image", "decoding"),
    (Classifier, "cams", "CAM network"),
    (compute_cams, "multi_scale_cams", "CAM: resize, upsample, sum"),
    (mine_confident, "confident_labels", "CRF pair of the mining"),
    (AffinityNet, "forward", "affinity network"),
    (affinity_net, "affinity_of", "affinity kernel"),
    (propagation, "random_walk", "random walk"),
    (walking, "walk_scores", "walk: background, cells"),
    (propagate, "enlarge_scores", "walk: upsample"),
    (walking, "refine_scores", "final CRF"),
    (propagate, "label_scores", "largest score"),
    (compute_cams, "save_cams", "writing npz"),
    (propagate, "save_affinity", "writing npz"),
    (propagate, "save_scores", "writing npz"),
    (mine_confident, "load_cams", "reading npz"),
    (propagate, "load_cams", "reading npz"),
    (image_loop, "write_labels", "writing png"),
    (propagate, "write_labels", "writing png"),
)


class Profile:
    """Seconds by line, each without the lines that run inside it."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    def timed(self, line: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time goes to `line`."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            began = time.perf_counter()
            answer = function(*args, **kwargs)
            settle()
            took = time.perf_counter() - began
            inner = self._inner.pop()
            self._inner[-1] += took
            self.seconds[line] = self.seconds.get(line, 0.0) + took - inner
            return answer

        return wrapped


@contextmanager
def run_folder(run: Run, samples: Sequence[Sample]) -> Iterator[Context]:
    """Give a temporary run folder with the run's networks and these images alone."""
    with tempfile.TemporaryDirectory(prefix="labels-") as name:
        folder = Path(name)
        for model in (CLASSIFIER.folder, AFFINITY.folder):
            (folder / model).symlink_to((run.recipe.out / model).resolve())
        recipe = run.recipe.model_copy(update={"out": folder})
        manifest = replace(run.manifest, splits={recipe.dataset.train: tuple(samples)})
        yield Context(recipe, manifest, folder)


def stage_seconds(context: Context) -> dict[str, float]:
    """Run the three stages and answer what each took."""
    seconds = {}
    for name, stage in STAGES.items():
        began = time.perf_counter()
        stage.work(context)
        settle()
        seconds[name] = time.perf_counter() - began
    return seconds


def one_after_another(
    context: Context,
    name: str,
    artifact: Artifact,
    samples: Sequence[Sample],
    *,
    load: Callable[[Sample], Any],
    compute: Callable[[Sample, Any], Any],
    finish: Callable[[Sample, Any], None],
) -> dict[str, Any]:
    """Do what `make_each` does, without threads."""
    for sample in samples:
        finish(sample, compute(sample, load(sample)))
    return {"counts": {"total": len(samples), "done": len(samples)}}


def profile(context: Context) -> tuple[Profile, dict[str, float]]:
    """Run the three stages one image and one kernel after another."""
    result = Profile()
    with ExitStack() as stack:
        for owner, function, line in LINES:
            timed = result.timed(line, getattr(owner, function))
            stack.enter_context(patch.object(owner, function, timed))
        for stage in STAGES.values():
            stack.enter_context(patch.object(stage, "make_each", one_after_another))
        return result, stage_seconds(context)


def original_seconds(context: Context, samples: Sequence[Sample]) -> dict[str, float]:
    """Run the original's arithmetic, write its masks, answer what each of the steps took."""
    recipe, manifest = context.recipe, context.manifest
    classifier = Classifier.load(context.folder(CLASSIFIER))
    affinity = AffinityNet.load(context.folder(AFFINITY))
    normalization: Any = classifier.backbone.normalization
    marks = [0.0] * 4
    seconds = dict.fromkeys(STAGES, 0.0)
    for sample in samples:
        cam_file = output_path(context.folder(CAMS), sample.id, ".npy")
        cam_file.parent.mkdir(parents=True, exist_ok=True)
        marks[0] = time.perf_counter()
        image = load_image(sample.image)
        cams = original_cams(classifier, normalization, image, sample.tags, recipe.cams.scales)
        np.save(cam_file, cams)
        marks[1] = time.perf_counter()
        image, cams = load_image(sample.image), np.load(cam_file)
        confident = original_confident(
            image, cams, recipe.confident.low_alpha, recipe.confident.high_alpha
        )
        tags = np.array(sample.tags, np.int64)
        _write(context, CONFIDENT, sample, to_labels(confident, tags, manifest.ignore_index))
        marks[2] = time.perf_counter()
        image, cams = load_image(sample.image), np.load(cam_file)
        scores = original_walk(
            affinity,
            normalization,
            image,
            cams,
            sample.tags,
            len(manifest.classes),
            recipe.walk.alpha,
        )
        labels = original_crf(image, scores).argmax(0) if recipe.walk.refine else scores.argmax(0)
        _write(context, PSEUDO, sample, to_labels(labels, tags, manifest.ignore_index))
        marks[3] = time.perf_counter()
        for index, name in enumerate(STAGES):
            seconds[name] += marks[index + 1] - marks[index]
    return seconds


def _write(context: Context, artifact: Artifact, sample: Sample, labels: Any) -> None:
    write_labels(context.file(artifact, sample), labels, context.manifest.palette)


def agreement(ours: Context, other: Context, samples: Sequence[Sample]) -> float:
    """Answer the share of pixels with the same label in both folders' pseudo masks."""
    same = [
        read_labels(ours.file(PSEUDO, s)) == read_labels(other.file(PSEUDO, s)) for s in samples
    ]
    return float(np.concatenate([mask.ravel() for mask in same]).mean())


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Choose `count` of the samples, evenly."""
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    return [samples[place] for place in dict.fromkeys(places.tolist())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder with classifier/ and affinity/")
    parser.add_argument("--images", type=int, default=50, help="spread over the training split")
    parser.add_argument("--peer-images", type=int, default=5, help="of these, for the original")
    parser.add_argument("--repeats", type=int, default=3, help="of (a); the median counts")
    parser.add_argument("--threads", type=int, help="of torch; default: all cores")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    run = Run.open(arguments.run)
    split = run.manifest.split(run.recipe.dataset.train)
    samples = spread([s for s in split if s.tags], arguments.images)
    peers = spread(samples, arguments.peer_images)
    with run_folder(run, samples[:1]) as context:
        began = time.perf_counter()
        stage_seconds(context)
        first = time.perf_counter() - began
        with torch.inference_mode():
            original_seconds(context, samples[:1])

    repeats = []
    for _ in range(arguments.repeats - 1):
        with run_folder(run, samples) as context:
            repeats.append(stage_seconds(context))
    with run_folder(run, samples) as ours, run_folder(run, samples) as theirs:
        repeats.append(stage_seconds(ours))
        with run_folder(run, samples) as context:
            lines, serial = profile(context)
            repeated = agreement(ours, context, samples)
        with torch.inference_mode():
            original = original_seconds(theirs, peers)
        same = agreement(ours, theirs, peers)

    report(run, len(samples), len(peers), repeats, lines, serial, original)
    print(f"\nPixels labelled alike, (a) and (b): {repeated:.4%}; (a) and (c): {same:.2%}")
    print("((c) leaves out the pairs near the border and reads CAMs in float32.)")
    print(f"First image through (a), loading and compilation or its cache included: {first:.1f} s")


def report(
    run: Run,
    images: int,
    peer_images: int,
    repeats: Sequence[dict[str, float]],
    lines: Profile,
    serial: dict[str, float],
    original: dict[str, float],
) -> None:
    """Print the tables."""
    recipe = run.recipe
    scales = ", ".join(f"{scale:g}" for scale in recipe.cams.scales)
    print(machine_line("cuda" if torch.cuda.is_available() else "cpu"))
    print(
        f"{recipe.backbone.name}, scales {scales}{' and flip' if recipe.cams.flip else ''}, "
        f"networks in {run.context.hardware_at(recipe.cams.precision).chosen_precision} (the "
        f"original's in float32), {recipe.workers} workers, "
        f"{images} images of {run.manifest.root.name}; images per second:"
    )
    print(
        f"\n| | (a) pipeline, {len(repeats)} runs | (b) one after another | "
        f"(c) original, {peer_images} images | (a) / (c) |\n|---|---|---|---|---|"
    )
    whole = "in all"
    rows = [{**r, whole: sum(r.values())} for r in repeats]
    in_all = sum(serial.values())
    serial = {**serial, whole: in_all}
    original = {**original, whole: sum(original.values())}
    for name in (*STAGES, whole):
        rates = [images / row[name] for row in rows]
        rate, peer = statistics.median(rates), peer_images / original[name]
        print(
            f"| {name} | {rate:.2f} ({min(rates):.2f} to {max(rates):.2f}) "
            f"| {images / serial[name]:.2f} | {peer:.3f} | {rate / peer:.1f} |"
        )

    print("\n| (b), line by line | ms an image | share |\n|---|---|---|")
    seconds = lines.seconds | {"all else": in_all - sum(lines.seconds.values())}
    for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"| {name} | {1e3 * value / images:.1f} | {value / in_all:.1%} |")


if __name__ == "__main__":
    main()
