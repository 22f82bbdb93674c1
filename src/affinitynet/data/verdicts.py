"""How well a classifier learned each tag: average precision on held-out images against chance."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from affinitynet.data.sample import Sample
from affinitynet.run_folder.artifacts import CLASSIFIER
from affinitynet.run_folder.records import Paper, StageFolder

LEAST = 5  # images with a tag, and without it, below which nothing is said of it
SHUFFLES = 200
CHANCE = 95  # percentile of the shuffled tags' average precision
SUSPICIOUS = 20  # tags that are listed

Verdict = Literal["learned", "not learned", "not judged"]


class TagRow(Paper):
    """A row of `judge_tags`."""

    name: str = Field(alias="class")
    images: int
    positives: int
    ap: float | None
    chance: float | None
    verdict: Verdict


def average_precision(scores: NDArray[np.floating[Any]], tagged: NDArray[np.bool_]) -> float:
    """Return the area under precision over recall, as a sum over the thresholds.

    AP = sum_k (R_k - R_(k-1)) P_k over the different scores from high to low; images of equal
    scores come in together. scores (N,), tagged (N,) bool; 0 where none is tagged.

    Source: as scikit-learn's `average_precision_score`, without interpolation.
    """
    order = np.argsort(-scores, kind="stable")
    # A threshold lies between different scores only: within a tie the order of the images would
    # decide the figure.
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    found = np.cumsum(tagged[order])[ends]
    if not len(scores) or not found[-1]:
        return 0.0
    precision = found / (ends + 1)
    return float(np.sum(np.diff(found, prepend=0) * precision) / found[-1])


def chance_level(scores: NDArray[np.floating[Any]], tagged: NDArray[np.bool_], seed: int) -> float:
    """Return what average precision chance reaches: the 95th percentile under shuffled tags."""
    generator = np.random.default_rng([seed, len(scores)])
    drawn = [average_precision(scores, generator.permutation(tagged)) for _ in range(SHUFFLES)]
    # The mean of shuffled tags would be beaten by half of all classifiers that learned nothing.
    return float(np.percentile(drawn, CHANCE))


def judge_tags(
    scores: NDArray[np.floating[Any]],
    tagged: NDArray[np.bool_],
    classes: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """Say of each class whether held-out images tell that it was learned.

    scores, tagged: (N, C). Returns a row a class: class, images, positives, ap, chance (both 0 to
    1, None where not judged) and verdict: learned, not learned, or not judged with fewer than five
    images with or without it.
    """
    rows = []
    for index, name in enumerate(classes):
        own, count = tagged[:, index], int(tagged[:, index].sum())
        row: dict[str, Any] = {"class": name, "images": len(tagged), "positives": count}
        if min(count, len(tagged) - count) < LEAST:
            # With a handful of images one lucky guess is far above chance, and one mistake far
            # below.
            rows.append({**row, "ap": None, "chance": None, "verdict": "not judged"})
            continue
        ap, chance = (
            average_precision(scores[:, index], own),
            chance_level(scores[:, index], own, seed),
        )
        verdict: Verdict = "learned" if ap > chance else "not learned"
        rows.append({**row, "ap": round(ap, 4), "chance": round(chance, 4), "verdict": verdict})
    return rows


def suspicious_tags(
    probabilities: NDArray[np.floating[Any]],
    samples: Sequence[Sample],
    rows: Sequence[dict[str, Any]],
    root: Path,
) -> list[dict[str, Any]]:
    """List the held-out tags, and missing tags, that the scores contradict most, worst first.

    A row is image (its path in the data set), class, tagged and score, the class's probability.
    Only classes that were learned have a say, and only scores on the other side of a half.
    """
    found = []
    for sample, own in zip(samples, probabilities, strict=True):
        for index, row in enumerate(rows):
            tagged, score = index in sample.tags, float(own[index])
            if row["verdict"] == "learned" and (score < 0.5) == tagged:
                image = sample.image.relative_to(root).as_posix()
                entry = {"image": image, "class": row["class"], "tagged": tagged}
                found.append({**entry, "score": round(score, 4)})
    found.sort(key=lambda entry: entry["score"] if entry["tagged"] else 1 - entry["score"])
    return found[:SUSPICIOUS]


def table_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Set the rows of `judge_tags` as a table, in percent; a line for each class."""
    width = max(len("class"), *(len(row["class"]) for row in rows))
    lines = [f"{'class':{width}}  tagged   AP  chance"]
    for row in rows:
        numbers = "  -       -" if row["ap"] is None else _percent(row)
        lines.append(f"{row['class']:{width}}  {row['positives']:6}  {numbers}  {row['verdict']}")
    return lines


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['ap']:3.0f}  {100 * row['chance']:6.0f}"


def read_verdicts(root: Path) -> list[dict[str, Any]]:
    """Return the rows of `judge_tags` of a run's finished classifier, none where nothing is said.

    Raises:
        UserError: the classifier's record is damaged.
    """
    return StageFolder(root / CLASSIFIER.folder, "train_classifier").rows("tags", TagRow)


def failed_classes(root: Path) -> tuple[int, ...]:
    """Return the indices of the classes that a run's classifier did not learn.

    None where it learned none at all: who goes on anyway wants to see its maps.
    """
    rows = read_verdicts(root)
    if why_stop(rows):
        return ()
    return tuple(index for index, row in enumerate(rows) if row["verdict"] == "not learned")


def without_failed(
    labels: NDArray[np.integer[Any]],
    failed: Sequence[int],
    ignore_index: int,
    tags: Sequence[int] = (),
) -> NDArray[np.integer[Any]]:
    """Return labels (H, W) where what is said to be one of the failed classes is neutral.

    Where the labels have nothing of a failed class that is among the image's tags, the background
    is neutral: the object is there somewhere.
    """
    wrong = np.isin(labels, [index + 1 for index in failed])
    if any(tag in failed and not (labels == tag + 1).any() for tag in tags):
        wrong |= labels == 0
    return np.where(wrong, np.asarray(ignore_index, dtype=labels.dtype), labels)


def why_stop(rows: Sequence[dict[str, Any]]) -> str:
    """Say in one line that no class that could be judged was learned, "" where one was."""
    judged = [row for row in rows if row["ap"] is not None]
    if not judged or any(row["verdict"] == "learned" for row in judged):
        return ""
    table = ", ".join(
        f"{row['class']} {100 * row['ap']:.0f} (chance {100 * row['chance']:.0f}, "
        f"{row['positives']} images)"
        for row in judged
    )
    return f"average precision on {judged[0]['images']} held-out images: {table}"


def rarity_weights(samples: Sequence[Sample], classes: int) -> list[float]:
    """Return how often to draw each image so that rare classes are seen more: 1 for the commonest.

    An image counts as its rarest tag: sqrt(images of the commonest class / images of that class).
    The root is halfway between the data's own frequencies and equal ones, which would show the few
    images of a rare class over and over. Images without a tag count as the commonest class.
    """
    counts = np.zeros(classes)
    for sample in samples:
        counts[list(sample.tags)] += 1
    weight = np.sqrt(counts.max(initial=1) / np.maximum(counts, 1))
    return [max((float(weight[tag]) for tag in sample.tags), default=1.0) for sample in samples]
