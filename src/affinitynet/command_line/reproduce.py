"""`affinitynet reproduce`: a run once more, in a new folder, and what came out otherwise."""

from pathlib import Path

from affinitynet.command_line.parser import RUN, argument
from affinitynet.errors import UserError

REPRODUCE = (
    RUN,
    argument("--out", "new run folder (default: RUN-again)"),
    argument("--data", "folder of the data set, where it has moved"),
)


def reproduce(run: Path, out: Path | None, data: Path | None) -> None:
    """Run a recipe again in a new folder, and compare all bytes.

    The exit code is 2 if a file differs. Stages that the run had not finished are left out. Bytes
    can be the same on one kind of machine and with the same versions only; what differs is listed.
    """
    # Here, so that `affinitynet --help` does not wait for what only this command needs.
    from affinitynet.engine.stopping import watch_termination
    from affinitynet.reproducing import reproduce_run

    watch_termination()
    found = reproduce_run(run, out, data)
    if found.stages is None:
        return
    for said in found.changed:
        print(f"not as then: {said}")
    for row in found.stages:
        print(f"{row.stage:18} {row.files:6} files, {len(row.differ)} differ")
    if count := sum(len(row.differ) for row in found.stages):
        name = next(row.differ[0] for row in found.stages if row.differ)
        again = found.run.recipe.out
        raise UserError(f"{again}: {count} files differ from those of {run}, the first is {name}")
