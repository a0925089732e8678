"""uvicorn, tamed: any version of it, on a socket that is bound already, with signals left to the process.

uvicorn closes idle connections at once when told to exit, so the process drains first and tells it afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import Any, ContextManager, Dict

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from fngw.coalescing import Coalescing
from fngw_runtime.websocket import WebSocketProtocol

__all__ = ["Server", "make_server"]


class HttpProtocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type,unused-ignore]  # whichever uvicorn finds
    """uvicorn's, writing an answer's head together with its body."""

    def connection_made(self, transport: Any) -> None:
        """Wrap what writes."""
        super().connection_made(Coalescing(transport))


#: Seconds an idle connection stays open: long, because the gateway owns the pool and closes what it drops.
KEEP_ALIVE = 3600

SETTINGS: Dict[str, Any] = {
    "interface": "asgi3",
    "loop": "none",  # the process made the loop
    "http": HttpProtocol,
    "ws": WebSocketProtocol,
    "lifespan": "off",
    "log_config": None,  # logging belongs to the user's code
    "log_level": "warning",
    "access_log": False,
    "proxy_headers": False,
    "server_header": False,
    "date_header": False,
    "timeout_keep_alive": KEEP_ALIVE,
}


class Server(uvicorn.Server):
    """uvicorn's server without its signal handlers (named differently before and after 0.29)."""

    def install_signal_handlers(self) -> None:
        """Nothing: SIGTERM means drain, see ``process``."""

    def capture_signals(self) -> ContextManager[None]:  # type: ignore[override,unused-ignore]
        """Nothing, as above."""
        return contextlib.nullcontext()

    async def on_tick(self, counter: int) -> bool:
        """Keep Date and Server out of answers, as the gateway adds its own; before 0.12 no setting does this."""
        done = await super().on_tick(counter)
        self.server_state.default_headers = []
        return done

    def restart_websockets(self) -> None:
        """Close the WebSockets that are open, so that their clients connect again elsewhere."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, WebSocketProtocol):
                connection.restart()

    async def close_connections(self, patience_s: float) -> None:
        """Close each connection as soon as its last answer was read, and wait so long for that.

        Left to itself, an old uvicorn on Python ≥ 3.12 waits for ever for connections that it does not close.
        """
        loop = asyncio.get_event_loop()
        deadline = loop.time() + patience_s
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections and loop.time() < deadline:  # noqa: ASYNC110  uvicorn tells of no end
            await asyncio.sleep(0.01)

    async def cut(self, patience_s: float) -> None:
        """Cancel what is still in flight, and give it so long to clean up. Its callers see their connections close.

        Nothing else would be true: the gateway says of a closed connection that the replica was lost.
        """
        self.force_exit = True
        self.restart_websockets()
        for connection in list(self.server_state.connections):
            if not isinstance(connection, WebSocketProtocol):
                connection.transport.abort()
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=patience_s)


def make_server(app: Any) -> Server:
    """Return a server for ``app``, with those of our settings that this uvicorn knows."""
    known = inspect.signature(uvicorn.Config.__init__).parameters
    return Server(uvicorn.Config(app, **{k: v for k, v in SETTINGS.items() if k in known}))
