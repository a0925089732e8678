"""Asks a gateway whether it is healthy: one HTTP/1.0 request over its Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

_REQUEST = b"GET /-/healthz HTTP/1.0\r\nHost: fngw\r\nConnection: close\r\n\r\n"


async def is_healthy(gateway_socket: Path, timeout_s: float = 2.0) -> bool:
    """Return whether a gateway answers ``GET /-/healthz`` with 200 within ``timeout_s``."""
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(timeout_s):
            return await _status(gateway_socket) == 200
    return False


async def _status(path: Path) -> int:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(_REQUEST)
        await writer.drain()
        fields = (await reader.readline()).split()
        return int(fields[1]) if len(fields) > 1 else 0
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
