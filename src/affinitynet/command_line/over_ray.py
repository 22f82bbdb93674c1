"""`affinitynet run --engine ray`: the phases of a run, done by the workers of a Ray cluster."""

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from affinitynet.errors import UserError

if TYPE_CHECKING:
    from affinitynet.pipeline import Run
    from affinitynet.run_folder.recipe import Recipe


def run_with_ray(
    recipe: "Recipe",
    *,
    until: str | None,
    redo: str | None,
    anyway: bool,
    processes: int | None,
    ranks: int,
) -> "Run":
    """Run a recipe, or go on with it, over a Ray cluster.

    Raises:
        UserError: Ray is missing, `redo` was asked for, or as `affinitynet.run`.
        Stopped: SIGTERM came; what is done stays.
    """
    from affinitynet.pipeline import Run, run
    from affinitynet.preflight import check_place, check_roles
    from affinitynet.run_folder.stages import find_stage

    if redo:
        raise UserError(
            f"--redo {redo}: several workers make nothing anew; begin with --redo {redo} and "
            "without --engine ray, stop that with Ctrl-C when it is at the stage, then go on with "
            "--engine ray"
        )
    if find_spec("ray") is None:
        raise UserError(
            "--engine ray: Ray is not installed; pip install 'affinitynet[ray]' (on all nodes)"
        )
    # What is wrong with recipe and data is said before anything starts.
    ran = Run.create(recipe)
    check_place(ran.recipe, ran.manifest)
    check_roles(ran.recipe, ran.manifest)
    stages = ran.stages
    if until:
        stages = stages[: stages.index(find_stage(until, stages)) + 1]
    finished = {state.name for state in ran.status() if state.finished}
    if all(stage.name in finished for stage in stages):
        ran.go(until)  # which also looks whether anything has changed
        return ran
    from affinitynet.engine.ray import Phase, run_over_ray

    phases: list[Phase] = []
    for stage in stages:
        if stage.name in finished:
            continue
        if not stage.trains and phases and not phases[-1].training:
            phases.pop()
        phases.append(Phase(stage.name, stage.trains))
    run_over_ray(
        phases,
        partial(run, recipe, anyway=anyway),
        recipe.out,
        cpus=recipe.workers,
        gpu=recipe.device != "cpu",
        processes=processes,
        ranks=ranks,
    )
    return ran
