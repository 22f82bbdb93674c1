"""A run once more, in a new folder, and what came out otherwise."""

from pathlib import Path
from typing import NamedTuple

from affinitynet.data import Manifest
from affinitynet.errors import UserError
from affinitynet.pipeline import Run
from affinitynet.run_folder.compare import Compared, compare_runs
from affinitynet.run_folder.origin import differences, read_origin


class Reproduced(NamedTuple):
    """The run that was made again, what was not as then, and a row for each finished stage.

    None in place of the rows where another process leads, which compares.
    """

    run: Run
    changed: list[str]
    stages: list[Compared] | None


def reproduce_run(
    run: str | Path, out: str | Path | None = None, data: str | Path | None = None
) -> Reproduced:
    """Run a recipe again in a new folder, and compare the bytes of all files.

    out: the new folder; None is `RUN-again`. data: where the data set has moved.

    Stages that the run had not finished are left out. Bytes can be the same on one kind of machine
    and with the same versions only; `changed` says what differs.

    Raises:
        UserError: no stage is finished, or the data set is another one now.
    """
    root = Path(run)
    first = Run.open(root)
    done = [status.name for status in first.status() if status.finished]
    if not done:
        raise UserError(f"{root}: no stage is finished, so there is nothing to compare with")
    again = Path(out) if out else root.with_name(f"{root.resolve().name}-again")
    changes = {"out": again, **({"data": Path(data)} if data else {})}
    second = Run.create(first.recipe.model_copy(update=changes))
    _check_data(root, second.manifest)
    second.go(until=done[-1], anyway=True)
    changed = differences(read_origin(root), read_origin(again))
    if not second.leads:
        return Reproduced(second, changed, None)
    finished = [stage for stage in first.stages if stage.name in done]
    return Reproduced(second, changed, compare_runs(root, again, finished))


def _check_data(root: Path, manifest: Manifest) -> None:
    found = manifest.fingerprint()
    if read_origin(root).get("data", found) != found:
        raise UserError(f"{root}: images, tags or splits of the data set are others than it had")
