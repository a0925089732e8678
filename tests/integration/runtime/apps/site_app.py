"""An ingress app for the runtime's tests, as ``fngw.ingress`` mounts it."""

import asyncio
import os
import pathlib

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute


async def where(request):
    return JSONResponse(
        {
            "path": request.url.path,
            "root_path": request.scope["root_path"],
            "item": request.path_params.get("item"),
            "state": request.state.opened,
        }
    )


async def broken(request):
    raise ValueError("page is broken")


async def stuck(request):
    (pathlib.Path(os.environ["TEST_FOLDER"]) / "begun-stuck").touch()
    await asyncio.sleep(3600)


async def chat(websocket):
    await websocket.accept(subprotocol=(websocket.scope["subprotocols"] or [None])[0])
    await websocket.send_text(websocket.url.path + " " + websocket.scope["root_path"])
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            (pathlib.Path(os.environ["TEST_FOLDER"]) / ("left-%d" % message["code"])).touch()
            return
        if message.get("text") == "bye":
            await websocket.close(code=4000)
            return
        if message.get("bytes") is not None:
            await websocket.send_bytes(message["bytes"])
        else:
            await websocket.send_text(message["text"])


async def slow(websocket):
    folder = pathlib.Path(os.environ["TEST_FOLDER"])
    (folder / "begun-handshake").touch()
    while not (folder / "go").exists():  # noqa: ASYNC110  told from another process
        await asyncio.sleep(0.01)
    await websocket.accept()
    await websocket.receive()
    await asyncio.sleep(0.05)  # saving something, say
    (folder / "ended").touch()


async def refusing(websocket):
    await websocket.close()


async def failing(websocket):
    await websocket.accept()
    raise ValueError("socket is broken")


class WithLifespan:
    """Middleware with a lifespan of its own: Starlette's changed between versions, the protocol did not."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def lifespan(self, scope, receive, send):
        assert (await receive())["type"] == "lifespan.startup"
        if os.environ.get("TEST_FAIL"):
            await send({"type": "lifespan.startup.failed", "message": "as raised"})
            raise RuntimeError("no database")
        scope["state"]["opened"] = "yes"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        (pathlib.Path(os.environ["TEST_FOLDER"]) / "shut-down").touch()
        await send({"type": "lifespan.shutdown.complete"})


app = WithLifespan(
    Starlette(
        routes=[
            Route("/items/{item}", where),
            Route("/broken", broken),
            Route("/stuck", stuck),
            Mount("/sub", routes=[Route("/page", where)]),
            WebSocketRoute("/chat", chat),
            WebSocketRoute("/slow", slow),
            WebSocketRoute("/refusing", refusing),
            WebSocketRoute("/failing", failing),
        ]
    )
)


class Site:
    __fngw_ingress_app__ = app

    def helper(self):
        return "by handle"
