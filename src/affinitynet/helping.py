"""What a process does on a run that another one leads: its share of each stage, and waiting."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from affinitynet.engine.leading import Watch
from affinitynet.engine.place import here
from affinitynet.engine.shards import Helped
from affinitynet.errors import UserError
from affinitynet.preflight import check_judged
from affinitynet.progress import logger, say
from affinitynet.run_folder.freshness import Freshness
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.stages import Stage

if TYPE_CHECKING:
    from affinitynet.stages.context import Context

Work = Callable[[Stage], "Callable[[Context], dict[str, Any]]"]


def check_together(recipe: Recipe, redo: str | None) -> None:
    """Refuse to have several processes make finished stages anew: each would begin once more.

    Raises:
        UserError: they were asked to; and what to do.
    """
    if redo and here().count > 1:
        raise UserError(
            f"--redo {redo}: one process makes room for the new files, not {here().count}; start "
            f"affinitynet run with --redo {redo} on {recipe.out} alone, and let others join it "
            "without --redo"
        )


class _Known:
    """What a process that helps knows of the stages.

    It looks again where a stage was begun with something else: people may have drawn corrections.
    """

    def __init__(self, look: Callable[[], Freshness]) -> None:
        self._look, self._freshness = look, look()

    def begun(self, stage: Stage, *, done: bool = False) -> bool:
        """Tell whether the leading process has begun a stage as this one would, or has done it."""
        folder = self._freshness.folder(stage)
        plan = folder.plan()
        if plan is None:
            return False
        if plan.fingerprint != self._freshness.fingerprints[stage.name]:
            self._freshness = self._look()
        if plan.fingerprint != self._freshness.fingerprints[stage.name]:
            return False
        return not done or folder.record() is not None


def help_through(
    context: "Context",
    look: Callable[[], Freshness],
    stages: Sequence[Stage],
    work: Work,
    *,
    anyway: bool,
) -> bool:
    """Help the process that leads through stages; False when none leads and there is work left.

    look: says what the stages are made from now.

    Raises:
        UserError: an image fails, no class was learned, or rank 0 has gone.
        Stopped: SIGTERM came.
    """
    place = here()
    say(f"process {place.index} of {place.count}: helps the one that leads {context.root}")
    if place.linked and logger.isEnabledFor(logging.INFO):
        # All write to one terminal: rank 0 speaks for them.
        logger.setLevel(logging.WARNING)
    known = _Known(look)
    for stage in stages:
        if not _help(context, known, stage, work):
            return False
        if stage != stages[-1] and not anyway:
            check_judged(context.recipe, stage.name)
    return True


def _help(context: "Context", known: _Known, stage: Stage, work: Work) -> bool:
    watch = Watch(context.root, f"{stage.name}: waits for the process that leads this run")
    helped = not _can_help(stage)
    while not known.begun(stage, done=True):
        if not helped and known.begun(stage):
            helped = True
            try:
                # Another process may lead by now, and make the stage of something else.
                work(stage)(replace(context, is_current=partial(known.begun, stage)))
            except Helped:
                continue
        elif not watch.step():
            return known.begun(stage, done=True)
    return True


def _can_help(stage: Stage) -> bool:
    """Tell whether a stage is one of images, or a training of processes that are linked."""
    return bool(stage.suffix) or stage.name == "evaluate" or here().linked
