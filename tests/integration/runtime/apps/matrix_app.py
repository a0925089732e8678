"""What the matrix runs on every Python: only what the oldest FastAPI knows."""

import asyncio

from fastapi import FastAPI, WebSocket
from starlette.responses import StreamingResponse

app = FastAPI()


async def count():
    for number in range(3):
        yield b"part %d\n" % number
        await asyncio.sleep(0)


class Site:
    """An ingress that calls others by handle."""

    __fngw_ingress_app__ = app

    def __init__(self, *others):
        self.others = others

    @app.get("/items/{item}")
    async def item(self, item: int, q: str = "none"):
        return {"item": item, "q": q}

    @app.get("/stream")
    def stream(self):
        return StreamingResponse(count())

    @app.websocket("/chat")
    async def chat(self, websocket: WebSocket):
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    def greetings(self, name, end):
        return [other.greet.remote(name, end=end).result(30) for other in self.others]

    async def crash_of_another(self):
        try:
            await self.others[0].crash.remote()
        except Exception as error:
            return type(error).__name__, error.code, type(error.cause).__name__
