"""`affinitynet view`: the live page of a run."""

from pathlib import Path

from affinitynet.command_line.parser import argument

VIEW = (
    argument("run", "run folder"),
    argument("--port", "port on 127.0.0.1; 0 takes a free one (default: 8765)", int, default=8765),
    argument(
        "--allow-host",
        "another host name by which a proxy asks for the page; may be given several times",
        str,
        metavar="NAME",
        action="append",
        default=[],
    ),
)


def view(run: Path, port: int, allow_host: list[str]) -> None:
    """Look at a run in the browser and paint corrections.

    Drag the settings of the walk, and the mask follows. The first line printed is the address of
    the page, with its token. It needs the extra `view`: pip install 'affinitynet[view]'.
    """
    # Here, so that `affinitynet --help` does not wait for what only this command needs.
    from affinitynet.view import view_run

    view_run(run, port=port, allow_hosts=allow_host)
