"""Serve the page of a run on 127.0.0.1, until Ctrl-C."""

import secrets
import socket
from collections.abc import Iterable
from pathlib import Path

from affinitynet.errors import UserError
from affinitynet.progress import say
from affinitynet.view.deciding import Decider
from affinitynet.view.guard import guarded, host_name
from affinitynet.view.viewed import Viewed


def view_run(run_folder: str | Path, *, port: int = 8765, allow_hosts: Iterable[str] = ()) -> None:
    """Serve the page of a run on 127.0.0.1, and print its address first; ends with Ctrl-C.

    port: 0 takes a free one. allow_hosts: names besides 127.0.0.1, localhost and [::1] by which
    the page may be asked for, as where a proxy stands before it.

    The page shows the images, lets the walk be decided again, and draws corrections. Whoever has
    the address with its token can do that, so keep it to yourself.

    Raises:
        UserError: no run folder, the extra `view` is not installed, or the port is taken.
    """
    root, hosts = Path(run_folder), tuple(allow_hosts)
    for host in hosts:
        if host_name(host) != host.lower():
            raise UserError(f"allow-host {host!r}: is no name of a host; leave port and path out")
    viewed = Viewed(root)
    try:
        import uvicorn

        from affinitynet.view.app import make_app

        decider = Decider(viewed)
        app = make_app(viewed, decider)
    except ModuleNotFoundError as error:
        raise UserError(
            f"the page needs {error.name}, which is not installed: pip install 'affinitynet[view]'"
        ) from error
    token = secrets.token_urlsafe(24)
    with _listen(port) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/{token}/", flush=True)
        say("open this address in a browser; Ctrl-C ends the page")
        viewed.measure_all(decider.warm_up)
        config = uvicorn.Config(
            guarded(app, token, hosts),
            log_level="warning",
            access_log=False,  # it would print the token
            proxy_headers=False,  # whoever sends them is not trusted
            server_header=False,
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            viewed.close()


def _listen(port: int) -> socket.socket:
    # With its protocol, as asyncio asks for that before it turns off Nagle's algorithm: an answer's
    # body would wait 40 ms, until the browser says that it has got the headers.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"port {port}: can't be used ({reason}); --port 0 takes a free one"
        ) from error
    return listening
