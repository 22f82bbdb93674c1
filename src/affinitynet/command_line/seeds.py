"""`affinitynet run --seeds`: one recipe with several seeds, and what of the figures is chance."""

from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from affinitynet.errors import UserError

if TYPE_CHECKING:
    from affinitynet.pipeline import Run
    from affinitynet.run_folder.recipe import Recipe


def run_seeds(recipe: "Recipe", seeds: Sequence[int], run: Callable[["Recipe"], "Run"]) -> None:
    """Run a recipe once for each seed, in folders beside each other; print mean and spread.

    The folder of seed 1 is `OUT-seed1`.

    Raises:
        UserError: a seed twice, or that of a run.
    """
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds {' '.join(map(str, seeds))}: give each seed once")
    runs = []
    for seed in seeds:
        out = recipe.out.with_name(f"{recipe.out.name}-seed{seed}")
        # Through validation, for a seed that is out of range.
        values = recipe.model_dump() | {"seed": seed, "out": out}
        runs.append(run(type(recipe).model_validate(values)))
    if all(ran.leads for ran in runs):
        print(*summarize([ran.figures() for ran in runs]), sep="\n")


def summarize(found: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """Return a line for each row of figures: mean, standard deviation and range of its mIoU."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for rows in found:
        for row in rows:
            if row["miou"] is not None:
                chosen = " (best threshold)" if row["ground_truth_chose"] else ""
                key = (row["stage"], row["split"], chosen)
                values.setdefault(key, []).append(100 * row["miou"])
    if not values:
        return ["no masks, or no ground truth: there are no figures to compare"]
    lines = [f"mIoU of {len(found)} seeds: mean ± standard deviation (lowest to highest), in %"]
    for (stage, split, chosen), scores in values.items():
        spread = f" ± {stdev(scores):.1f}" if len(scores) > 1 else ""
        low, high = min(scores), max(scores)
        name = f"{stage} on {split}{chosen}"
        lines.append(f"  {name:36} {mean(scores):5.1f}{spread} ({low:.1f} to {high:.1f})")
    return lines
