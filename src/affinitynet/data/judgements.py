"""What a run's stages say of themselves without truth, read from their records."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from affinitynet.data.check import FEW_IMAGES
from affinitynet.data.verdicts import read_verdicts
from affinitynet.run_folder.artifacts import CONFIDENT
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import Paper, StageFolder
from affinitynet.run_folder.setting_types import BY_CLASSIFIER
from affinitynet.run_folder.stages import Stage

NOT_LEARNED, EMPTY = "not learned", "empty seeds"
KEPT = "not learned, maps kept"


class SeedRow(Paper):
    """What `mine_confident` records of a class."""

    name: str = Field(alias="class")
    images: int
    empty: int
    failed: str


def judge_classes(
    seeds: Sequence[dict[str, Any]], unlearned: Iterable[int], empty: Iterable[int]
) -> list[dict[str, Any]]:
    """Add to each class's row of seeds the reason why it fails, `failed`: "" where it doesn't."""
    unlearned, empty = set(unlearned), set(empty)
    return [
        {
            **row,
            "failed": EMPTY if index in empty else NOT_LEARNED if index in unlearned else "",
        }
        for index, row in enumerate(seeds)
    ]


def next_step(recipe: Recipe, row: dict[str, Any]) -> str:
    """Say the one thing to try next for a class that fails, by its row of seeds."""
    # First, as no setting makes up for images that are not there.
    if row["images"] < FEW_IMAGES:
        return f"tag more images that show it: {FEW_IMAGES} or more"
    if row["failed"] == NOT_LEARNED:
        if recipe.classifier.norm != "trained":
            return "try --classifier.norm trained --redo train_classifier"
        length = "steps" if recipe.classifier.steps else "epochs"
        number = getattr(recipe.classifier, length)
        return f"train twice as long: --classifier.{length} {2 * number} --redo train_classifier"
    if recipe.cams.source in BY_CLASSIFIER:
        return "try maps by contrast: --cams.source auto"
    # A larger exponent makes the background weaker, so that lower peaks pass it.
    if recipe.confident.rule == "thresholds":
        lower = recipe.confident.foreground_over / 2
        return f"let weaker maps count: --confident.foreground_over {lower:g} --redo mine_confident"
    alpha = 2 * recipe.confident.low_alpha
    return f"let weaker maps count: --confident.low_alpha {alpha:g} --redo mine_confident"


def read_seeds(root: Path) -> list[dict[str, Any]]:
    """Return the rows that `mine_confident` recorded: class, images, empty, failed; or none.

    Raises:
        UserError: the record is damaged.
    """
    return StageFolder(root / CONFIDENT.folder, "mine_confident").rows("seeds", SeedRow)


def failed_seeds(seeds: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    """Return the indices of the classes that fail by their rows of seeds.

    None where all do: who goes on anyway wants to see what there is.
    """
    if all_failed(seeds):
        return ()
    return tuple(index for index, row in enumerate(seeds) if row["failed"])


def all_failed(seeds: Sequence[dict[str, Any]]) -> bool:
    """Tell whether every class that has training images fails."""
    # A class without training images has no seeds to fail by.
    shown = [row for row in seeds if row["images"]]
    return bool(shown) and all(row["failed"] for row in shown)


def class_table(root: Path) -> list[dict[str, Any]]:
    """Return what is known of each class without truth, None where it isn't.

    class, images (of train, with the tag), ap and chance (0 to 1, on held-out images), empty
    (images with empty seeds) and verdict: learned, not learned, not judged, or empty seeds; of a
    class that was not learned but has maps by contrast, that its maps are kept.

    Raises:
        UserError: a record is damaged.
    """
    tags = {row["class"]: row for row in read_verdicts(root)}
    seeds = {row["class"]: row for row in read_seeds(root)}
    rows = []
    # Seeds come later in a run and have a row for each class; before them there are only verdicts.
    for name in seeds or tags:
        tag, seed = tags.get(name, {}), seeds.get(name, {})
        verdict = EMPTY if seed.get("failed") == EMPTY else tag.get("verdict", "not judged")
        if verdict == NOT_LEARNED and seed.get("failed") == "":
            verdict = KEPT
        row = {"class": name, "images": seed.get("images"), "empty": seed.get("empty")}
        rows.append({**row, "ap": tag.get("ap"), "chance": tag.get("chance"), "verdict": verdict})
    return rows


def class_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Set the rows of `class_table` as a table, precision in percent; a line for each class."""
    width = max([len("class"), *(len(row["class"]) for row in rows)])
    lines = [f"{'class':{width}}  images   AP  chance  empty seeds  verdict"]
    for row in rows:
        images, empty = (_number(row[key]) for key in ("images", "empty"))
        ap, chance = (_number(row[key] and 100 * row[key]) for key in ("ap", "chance"))
        cells = f"{images:>6}  {ap:>3}  {chance:>6}  {empty:>11}"
        lines.append(f"{row['class']:{width}}  {cells}  {row['verdict']}")
    return lines


def read_judgements(root: Path, stages: Iterable[Stage]) -> list[tuple[str, str]]:
    """Return what is wrong by the finished stages' own judgement: (stage, sentence), in order.

    Raises:
        UserError: a record is damaged.
    """
    found = []
    for stage in stages:
        said = StageFolder(root / stage.folder, stage.name).rows("judgements", str)
        found += [(stage.name, text) for text in said]
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
