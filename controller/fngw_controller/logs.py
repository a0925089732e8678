"""Serves replicas' logs on a Unix socket: only the controller can read them from the engine; gateways ask here.

``GET /logs/<deployment>?tail=N&since=SECONDS&follow=1`` streams text, each line after the replica's id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from fngw_controller.engines.base import Engine, Instance
from fngw_state.layout import Layout

DEFAULT_TAIL = 100


class LogServer:
    """The log endpoint.

    Args:
        engine: where running replicas' logs are.
        layout: where those of replicas that are gone are kept, and where the socket is.
    """

    def __init__(self, engine: Engine, layout: Layout) -> None:
        self._engine = engine
        self._layout = layout
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/logs/{deployment}", self._logs)
        app.router.add_get("/healthz", self._healthz)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        self._layout.controller_socket.unlink(missing_ok=True)
        await web.UnixSite(self._runner, str(self._layout.controller_socket)).start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        deployment, query = request.match_info["deployment"], request.query
        tail = int(query.get("tail", DEFAULT_TAIL))
        since = float(query["since"]) if "since" in query else None
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        running = [i for i in await self._engine.list() if i.deployment == deployment]
        for path in await asyncio.to_thread(self._gone, deployment, {i.id for i in running}):
            await response.write(await asyncio.to_thread(_last_lines, path, tail))
        follow = query.get("follow", "") not in ("", "0", "false")
        async for line in self._merge(running, tail, since, follow):
            await response.write(line)
        await response.write_eof()
        return response

    def _gone(self, deployment: str, running: set[str]) -> list[Path]:
        """Log files of replicas that are gone, oldest first."""
        directory = self._layout.logs / "replicas" / deployment
        files = [p for p in directory.glob("*.log") if p.stem not in running]
        return sorted(files, key=lambda p: p.stat().st_mtime)

    async def _merge(
        self, instances: list[Instance], tail: int, since: float | None, follow: bool
    ) -> AsyncIterator[bytes]:
        """Yield the lines of several replicas as they come."""
        lines: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1000)

        async def pump(instance: Instance) -> None:
            try:
                chunks = self._engine.logs(instance.id, tail=tail, since=since, follow=follow)
                async for line in _split(chunks):
                    await lines.put(_labelled(instance.id, line))
            finally:
                await lines.put(None)

        tasks = [asyncio.create_task(pump(i)) for i in instances]
        try:
            left = len(tasks)
            while left:
                line = await lines.get()
                left -= line is None
                if line is not None:
                    yield line
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)


async def _split(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield whole lines of a stream that comes in chunks of any size."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


def _labelled(replica_id: str, line: bytes) -> bytes:
    return replica_id.encode() + b" | " + line + b"\n"


def _last_lines(path: Path, count: int) -> bytes:
    lines = path.read_bytes().splitlines()[-count:] if count > 0 else []
    return b"".join(_labelled(path.stem, line) for line in lines)
