"""Asks a replica over its Unix socket: is the constructor through, is it healthy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from fngw import protocol
from fngw.errors import FngwError, from_problem

#: How often to look for the socket of a replica whose interpreter is still starting.
SOCKET_POLL_S = 0.015


class NotReady(Exception):
    """The replica answered that it cannot serve; ``error`` says why."""

    def __init__(self, error: FngwError) -> None:
        super().__init__(error.message)
        self.error = error


async def wait_ready(socket: Path) -> dict[str, Any]:
    """Wait until the replica's constructor has ended; return what it tells of itself (``pid``, ``config_number``).

    Waits as long as it takes: whoever calls cancels this when the process is gone.

    Raises:
        NotReady: the import, the constructor or ``reconfigure`` failed.
    """
    while True:
        if socket.exists():
            try:
                return await _get(socket, protocol.READY_PATH, timeout=None)
            except (aiohttp.ClientError, OSError):  # bound, but not listening yet, or died: the engine tells which
                pass
        await asyncio.sleep(SOCKET_POLL_S)


async def check_health(socket: Path, timeout_s: float) -> None:
    """Run the replica's health check.

    Raises:
        NotReady: ``check_health`` raised.
        TimeoutError: it did not answer within ``timeout_s``.
        OSError, aiohttp.ClientError: it cannot be reached.
    """
    await _get(socket, protocol.HEALTH_PATH, timeout=timeout_s)


async def _get(socket: Path, path: str, timeout: float | None) -> dict[str, Any]:
    limit = aiohttp.ClientTimeout(total=timeout)
    connector = aiohttp.UnixConnector(path=str(socket))
    async with (
        aiohttp.ClientSession(connector=connector, timeout=limit) as session,
        session.get(f"http://replica{path}") as answer,
    ):
        body = await answer.json(content_type=None)
        if answer.status != 200:
            raise NotReady(from_problem(body if isinstance(body, dict) else {}))
        return body if isinstance(body, dict) else {}
