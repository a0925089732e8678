"""Many connections at once get in within a few turns of the event loop, not one in each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from fngw.listening import several

COUNT = 64


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_many_connections_at_once(
    family: socket.AddressFamily, loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    with ExitStack() as ending, asyncio.Runner(loop_factory=loop) as runner:
        listener = socket.socket(family)
        listener.bind(str(tmp_path / "s") if family == socket.AF_UNIX else ("127.0.0.1", 0))
        listener.listen()
        for _ in range(COUNT):
            client = ending.enter_context(socket.socket(family))
            client.connect(listener.getsockname())
        assert runner.run(turns_until(COUNT, several(listener))) <= 8


async def turns_until(connected: int, listeners: list[socket.socket]) -> int:
    """Serve until so many are connected, and return how many turns of the loop that took."""
    made: list[asyncio.BaseTransport] = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    loop, turns = asyncio.get_running_loop(), 0
    servers = [await loop.create_server(Protocol, sock=listener) for listener in listeners]
    while len(made) < connected:
        await asyncio.sleep(0)
        turns += 1
    for transport in made:
        transport.close()
    for server in servers:
        server.close()
        await server.wait_closed()
    return turns
