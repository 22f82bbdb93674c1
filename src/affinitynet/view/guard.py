"""Who may talk to the page: whoever has its token, from an address bar that says this computer.

Any web page that is open in the same browser can send requests to 127.0.0.1. The token in the
address keeps them out; the check of Host keeps out pages whose own name was pointed at 127.0.0.1
(DNS rebinding); the content security policy keeps the page from loading or sending anything
elsewhere.
"""

import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OWN_HOSTS = ("127.0.0.1", "localhost", "[::1]")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


def host_name(host: str) -> str | None:
    """Return the name of a Host header without its port, None where it is malformed."""
    name, colon, port = host.strip().lower().rpartition(":")
    if not colon or host.strip().endswith("]"):
        name, port = host.strip().lower(), "0"
    if not (port.isascii() and port.isdigit()):
        return None
    bracketed = name.startswith("[") and name.endswith("]")
    return name if bracketed or (name and not set(name) & set(":[]@/\\ ")) else None


def guarded(app: App, token: str, hosts: Iterable[str] = ()) -> App:
    """Let requests through to `app` whose path begins with the token and whose Host is known.

    The application sees the path behind the token. Every answer gets the headers of security.
    """
    allowed = {*OWN_HOSTS, *(name.lower() for name in hosts)}

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        if not _host_allowed(scope, allowed):
            said = "this address is not allowed; name its host with --allow-host"
            await _refuse(answer, 403, said)
            return
        given, slash, rest = scope["path"].lstrip("/").partition("/")
        # Compared in constant time, so that the time of the answer tells nothing of the token.
        if not slash or not secrets.compare_digest(given.encode(), token.encode()):
            await _refuse(answer, 404, "nothing here; open the address that the command printed")
            return
        await app({**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}, receive, answer)

    return guard


def _host_allowed(scope: Scope, allowed: set[str]) -> bool:
    hosts = [value for key, value in scope["headers"] if key == b"host"]
    if len(hosts) != 1 or host_name(hosts[0].decode("latin-1")) not in allowed:
        return False
    # Browsers say where a request comes from wherever it may change something.
    origins = [value.decode("latin-1") for key, value in scope["headers"] if key == b"origin"]
    return all(host_name(urlsplit(origin).netloc) in allowed for origin in origins)


async def _refuse(send: Send, status: int, said: str) -> None:
    body = json.dumps({"error": said}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
