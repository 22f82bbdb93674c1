"""A network of another run -> the folder that its training would have filled here."""

from pathlib import Path
from typing import Any

from affinitynet.data.verdicts import read_verdicts
from affinitynet.engine.shards import Helped
from affinitynet.run_folder.artifacts import CLASSIFIER
from affinitynet.run_folder.stages import Stage
from affinitynet.stages.context import Context


def work(context: Context, stage: Stage) -> dict[str, Any]:
    """Copy the network, so that this run folder stays whole when the other one is gone.

    What was found out about the classifier's tags is recorded here too.

    Raises:
        UserError: the other run has no such network.
        Helped: another process leads, which copies it.
    """
    if not context.leads:
        raise Helped
    for name in stage.borrows:
        context.borrow(context.root / name)
    run = context.recipe.networks.run
    assert run is not None
    tags = read_verdicts(Path(run)) if stage.folder == CLASSIFIER.folder else []
    return {"imported": str(run), **({"tags": tags} if tags else {})}
