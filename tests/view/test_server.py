"""The page's socket."""

import asyncio
import socket

from affinitynet.view.server import _listen


def test_an_answer_does_not_wait_until_its_headers_are_acknowledged() -> None:
    async def sends_at_once() -> bool:
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken = writer.get_extra_info("socket")
            found = taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            await writer.wait_closed()
            ended.set_result(bool(found))

        server = await asyncio.start_server(answer, sock=_listen(0))
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            found = await ended
            writer.close()
            await writer.wait_closed()
        return found

    assert asyncio.run(sends_at_once())
