"""The rounds of a run: trainings of the segmenter, each with the final masks it makes."""

from affinitynet.run_folder.artifacts import EARLIER, LAST, Round
from affinitynet.run_folder.recipe import Recipe


def rounds_of(recipe: Recipe) -> tuple[Round, ...]:
    """Return the rounds of segmenter and final masks, in order; another run's were gone through."""
    several = recipe.relabel.enabled and not recipe.networks.run
    count = recipe.relabel.rounds if several else 1
    return (*EARLIER[: count - 1], LAST)


def round_before(recipe: Recipe, this: Round) -> Round | None:
    """Return the round before this one; None for the first, which pseudo masks teach."""
    rounds = rounds_of(recipe)
    place = rounds.index(this)
    return rounds[place - 1] if place else None


def leaves_out(recipe: Recipe) -> bool:
    """Tell whether pixels that a round is not certain of are neutral to the next."""
    return recipe.relabel.confidence > 0 or recipe.relabel.agreement
