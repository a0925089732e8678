"""Serves replicas' logs on a Unix socket: only the controller can read them from the engine; gateways ask here.

``GET /logs/<deployment>?tail=N&since=SECONDS&follow=1`` streams text, each line after the replica's id.
"""

from __future__ import annotations

from aiohttp import web

from fngw.errors import FngwError, to_problem
from fngw.protocol import PROBLEM_TYPE
from fngw_controller.engines.base import Engine
from fngw_controller.log_reader import LogReader, Window
from fngw_state.layout import Layout
from fngw_state.store import LOST, Store

__all__ = ["LogServer"]

DEFAULT_TAIL = 100


class LogServer:
    """The log endpoint.

    Args:
        engine: where running replicas' logs are.
        layout: where those of replicas that are gone are kept, and where the socket is.
        store: knows which deployments there are: to follow one that is deleted comes to an end.
    """

    def __init__(self, engine: Engine, layout: Layout, store: Store) -> None:
        self._engine = engine
        self._layout = layout
        self._store = store
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/logs/{deployment}", self._logs)
        app.router.add_get("/healthz", self._healthz)
        # Without handler_cancellation, a reader who leaves would be noticed only at the next line.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
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
        window = Window(int(query.get("tail", DEFAULT_TAIL)), float(query["since"]) if "since" in query else None)
        follow = query.get("follow", "") not in ("", "0", "false")
        reader = LogReader(self._engine, self._layout, deployment, self._is_there)
        try:
            listed = await reader.listed()
        except FngwError as error:  # once the answer has begun, nothing can be told any more
            return web.json_response(to_problem(error), status=error.status, content_type=PROBLEM_TYPE)
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        async for lines in reader.read(listed, window, follow):
            await response.write(lines)
        await response.write_eof()
        return response

    async def _is_there(self, deployment: str) -> bool:
        try:
            return await self._store.desired(deployment) is not None
        except LOST:  # who cannot be asked has not said that it is gone
            return True
