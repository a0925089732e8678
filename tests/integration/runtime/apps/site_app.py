"""An ingress app for the runtime's tests, as ``fngw.ingress`` mounts it."""

import contextlib
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


async def chat(websocket):
    await websocket.accept(subprotocol=(websocket.scope["subprotocols"] or [None])[0])
    await websocket.send_json({"path": websocket.url.path, "root_path": websocket.scope["root_path"]})
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


async def refusing(websocket):
    await websocket.close()


async def failing(websocket):
    await websocket.accept()
    raise ValueError("socket is broken")


@contextlib.asynccontextmanager
async def lifespan(app):
    if os.environ.get("TEST_FAIL"):
        raise RuntimeError("no database")
    yield {"opened": "yes"}
    (pathlib.Path(os.environ["TEST_FOLDER"]) / "shut-down").touch()


app = Starlette(
    routes=[
        Route("/items/{item}", where),
        Route("/broken", broken),
        Mount("/sub", routes=[Route("/page", where)]),
        WebSocketRoute("/chat", chat),
        WebSocketRoute("/refusing", refusing),
        WebSocketRoute("/failing", failing),
    ],
    lifespan=lifespan,
)


class Site:
    __fngw_ingress_app__ = app

    def helper(self):
        return "by handle"
