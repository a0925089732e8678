"""An engine without NVIDIA's hook but with CDI: the real one, behind a proxy that hands out devices in its place.

What the real engine cannot do where there is no GPU the proxy does: it notes the devices that are asked for, and by
whom they are to be given, and passes the request on without them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

HEADERS = ("content-type",)


class CdiEngine:
    """The proxy.

    Args:
        host: the real engine's address.
        known: names of the devices that its CDI files describe.
    """

    def __init__(self, host: str, known: set[str]) -> None:
        self._host = urlsplit(host)
        self._known = known
        self.asked: list[Any] = []  # the device requests, in their order

    @contextlib.asynccontextmanager
    async def serve(self, path: Path) -> AsyncIterator[str]:
        """Listen on a Unix socket until the block ends; yields the address."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()
        try:
            yield f"unix://{path}"
        finally:
            await runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.path.endswith("/containers/create"):
            body, refusal = self._without_devices(json.loads(body))
            if refusal:
                return web.json_response({"message": refusal}, status=500)
        local = self._host.scheme == "unix"
        connector = aiohttp.UnixConnector(self._host.path) if local else aiohttp.TCPConnector()
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://{'engine' if local else self._host.netloc}{request.rel_url}"
            headers = {name: request.headers[name] for name in HEADERS if name in request.headers}
            async with session.request(request.method, url, data=body or None, headers=headers) as answer:
                kept = {name: answer.headers[name] for name in HEADERS if name in answer.headers}
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    def _without_devices(self, body: dict[str, Any]) -> tuple[bytes, str]:
        """Return a container's description without its devices; and why the engine refuses them, if it does."""
        refusal = ""
        for request in body["HostConfig"].pop("DeviceRequests", []):
            self.asked.append(request)
            unknown = [device for device in request["DeviceIDs"] if device not in self._known]
            if request["Driver"] != "cdi":
                refusal = f'could not select device driver "{request["Driver"]}" with capabilities: [[gpu]]'
            elif unknown:
                refusal = f"CDI device injection failed: unresolvable CDI devices {', '.join(unknown)}"
        return json.dumps(body).encode(), refusal
