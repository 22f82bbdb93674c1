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
    from affinitynet.pipeline import Run
    from affinitynet.run_folder.compare import compare_runs
    from affinitynet.run_folder.origin import differences, read_origin

    first = Run.open(run)
    out = out or run.with_name(f"{run.resolve().name}-again")
    done = [status.name for status in first.status() if status.finished]
    if not done:
        raise UserError(f"{run}: no stage is finished, so there is nothing to compare with")
    changes = {"out": out, **({"data": data} if data else {})}
    second = Run.create(first.recipe.model_copy(update=changes))
    was, found = read_origin(run), second.manifest.fingerprint()
    if was.get("data", found) != found:
        raise UserError(f"{run}: images, tags or splits of the data set are others than it had")
    watch_termination()
    second.go(until=done[-1], anyway=True)
    if not second.leads:
        return
    for said in differences(was, read_origin(out)):
        print(f"not as then: {said}")
    rows = compare_runs(run, out, [stage for stage in first.stages if stage.name in done])
    for row in rows:
        print(f"{row.stage:18} {row.files:6} files, {len(row.differ)} differ")
    if count := sum(len(row.differ) for row in rows):
        name = next(row.differ[0] for row in rows if row.differ)
        raise UserError(f"{out}: {count} files differ from those of {run}, the first is {name}")
