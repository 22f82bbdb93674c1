"""Which function does a stage's work. Loads no torch until that function is asked for."""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from affinitynet.run_folder.stages import Stage

if TYPE_CHECKING:
    from affinitynet.stages.context import Context


def work_of(stage: Stage) -> "Callable[[Context], dict[str, Any]]":
    """Return the function that does a stage: its own, or the one that brings its files in."""
    module = "import_files" if stage.source else stage.work
    module = "borrow_network" if stage.borrowed else module
    work: Callable[..., dict[str, Any]] = importlib.import_module(
        f"affinitynet.stages.{module}"
    ).work
    # What several stages share has to be told which of them it is.
    shared = stage.source or stage.round
    return (lambda context: work(context, stage)) if shared else work
