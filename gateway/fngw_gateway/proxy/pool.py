"""The connections to one replica: kept alive, the last used one first, closed when idle for long or retired."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fngw_gateway.proxy.connection import Connection

__all__ = ["IDLE_S", "Pool"]

P = TypeVar("P", bound=asyncio.BaseProtocol)

#: Idle connections are closed after this, long before the replica does it (fngw's runtime keeps them an hour): a
#: request that meets its connection's end on the way is lost, unless it may be repeated.
IDLE_S = 60.0
CONNECT_TIMEOUT_S = 5.0


class Pool:
    """The connections to one replica.

    Args:
        address: a Unix socket's path, or ``host:port``.
    """

    __slots__ = ("_connections", "_idle", "_retired", "_sweeper", "address")

    def __init__(self, address: str) -> None:
        self.address = address
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._retired = False

    def idle(self) -> Connection | None:
        """Return a connection that waits for a request, the last used one first, or None."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable():
                return connection
            connection.close()
        return None

    async def connect(self) -> Connection:
        """Return a new connection.

        Raises:
            OSError: nobody answers there, or not in time.
        """
        return await self.open(lambda: Connection(self))

    async def open(self, protocol: Callable[[], P]) -> P:
        """Return a new connection that speaks ``protocol``, which is its owner's to close.

        Raises:
            OSError: nobody answers there, or not in time, or the replica has left.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if "/" in self.address:
                transport, connection = await loop.create_unix_connection(protocol, self.address)
            else:
                host, _, port = self.address.rpartition(":")
                transport, connection = await loop.create_connection(protocol, host.strip("[]"), int(port))
        if self._retired:  # nobody waits for what is sent there now: it may end with the request half read
            transport.abort()
            raise ConnectionAbortedError("it left while it was connected to")
        return connection

    def add(self, connection: Connection) -> None:
        """A connection was opened."""
        self._connections.add(connection)

    def put_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, unless the replica has left."""
        if self._retired:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_S, self._sweep, loop)

    def forget(self, connection: Connection) -> None:
        """A connection was closed."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def retire(self) -> None:
        """Close the idle connections now, and the others when their requests have ended."""
        self._retired = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def abort(self) -> None:
        """Close everything at once."""
        self.retire()
        for connection in list(self._connections):
            connection.close()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweeper = None
        limit = loop.time() - IDLE_S
        while self._idle and self._idle[0].idle_since <= limit:  # the longest idle come first
            self._idle.pop(0).close()
        if self._idle:
            wait = self._idle[0].idle_since - limit
            self._sweeper = loop.call_later(wait, self._sweep, loop)
