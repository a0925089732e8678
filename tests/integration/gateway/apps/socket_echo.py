"""An ASGI app that sends WebSocket messages back, and does otherwise where its path says so."""

import os
import pathlib

import fngw


async def app(scope, receive, send):
    """The path's last part is what it does."""
    if scope["type"] != "websocket":
        raise NotImplementedError
    await receive()
    what = scope["path"].rsplit("/", 1)[1]
    if what == "refused":
        await send({"type": "websocket.close"})
    elif what == "unpaid":
        head = {"type": "websocket.http.response.start", "status": 402, "headers": [(b"content-length", b"3")]}
        await send(head)
        await send({"type": "websocket.http.response.body", "body": b"pay"})
    else:
        await send({"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[-1]})
        if what.isdigit():
            await send({"type": "websocket.close", "code": int(what), "reason": "grüezi"})
        else:
            await echo(what, receive, send)


async def echo(what, receive, send):
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})
    told = "%s %s" % (message["code"], message["reason"])
    (pathlib.Path(os.environ["TEST_FOLDER"]) / what).write_text(told, "utf-8")


@fngw.deployment
@fngw.ingress(app)
class Echo:
    """The target."""
