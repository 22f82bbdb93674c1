"""`affinitynet apply`: masks of new tagged images by a run's networks."""

from pathlib import Path
from typing import get_args

from affinitynet.command_line.ending import say_results
from affinitynet.command_line.init import Layout, Tags
from affinitynet.command_line.parser import RUN, argument, choice
from affinitynet.engine import stopping

APPLY = (
    RUN,
    argument("data", "folder of new images and their tags, or the file that lists the tags"),
    argument("--out", "new run folder, or one to go on with", required=True),
    choice("--format", "layout of the new data", get_args(Layout)),
    choice("--tags", "where tags come from, if there are several sources", get_args(Tags)),
    argument("--cams", "folder of CAMs of the new images, where the run's came from files"),
    argument("--device", "auto, cpu, cuda, cuda:1, mps (default: the run's)", str),
    argument("--redo", "stage to do again, with all stages that depend on it", str),
    argument("--shard", "be process i of N on one run: i/N, from 0 (default: alone)", str),
)


def apply(
    run: Path,
    data: Path,
    out: Path,
    format: Layout,
    tags: Tags,
    cams: Path | None,
    device: str | None,
    redo: str | None,
    shard: str | None,
) -> None:
    """Make masks of new tagged images with a run's networks.

    The settings are the run's. --out is a run folder like any other: status, report, export, view
    and tune work on it, and the same command goes on where it was stopped.
    """
    # Here, so that `affinitynet --help` does not wait for what only this command needs.
    from affinitynet.applying import apply_run
    from affinitynet.engine.place import placed, read_place

    stopping.watch_termination()
    with placed(read_place(shard) if shard else None):
        made = apply_run(
            run, data, out, format=format, tags=tags, cams=cams, device=device, redo=redo
        )
    if made.leads:  # the process that leads writes the report
        say_results(out)
