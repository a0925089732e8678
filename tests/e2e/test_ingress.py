"""ASGI apps mounted by ``fngw.ingress``: FastAPI views, Starlette, WebSockets, on whole stacks."""

from __future__ import annotations

import concurrent.futures
import json
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

STARLETTE = """
import fngw
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute


async def where(request):
    return JSONResponse({"path": request.url.path, "root": request.scope["root_path"], "q": request.url.query})


async def cookies(request):
    answer = PlainTextResponse("two")
    answer.set_cookie("a", "1")
    answer.set_cookie("b", "2")
    return answer


async def events(request):
    async def stream():
        for number in range(3):
            yield f"data: {number}\\n\\n"
    return StreamingResponse(stream(), media_type="text/event-stream")


async def echo(socket):
    await socket.accept(subprotocol="chat" if "chat" in socket.scope["subprotocols"] else None)
    await socket.send_json({"path": socket.url.path, "id": socket.headers["x-request-id"]})
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") == "bye":
            await socket.close(4321, "as you wish")
            return
        if message.get("text") is not None:
            await socket.send_text(message["text"])
        else:
            await socket.send_bytes(message["bytes"])


async def refuse(socket):
    await socket.close()


app = Starlette(routes=[
    Route("/where", where), Route("/cookies", cookies), Route("/events", events),
    WebSocketRoute("/echo", echo), WebSocketRoute("/refuse", refuse),
])


@fngw.deployment(name="NAME", route_prefix="/NAME", graceful_shutdown_timeout_s=1)
@fngw.ingress(app)
class Site:
    pass


if __name__ == "__main__":
    Site.deploy()
"""

FASTAPI = """
import fngw
from fastapi import Depends, FastAPI, Header

app = FastAPI(title="shared")
seen = []


@app.on_event("startup")
def startup():
    seen.append("startup")


def word(x_word: str = Header("hello")):
    return word


@fngw.deployment(name="NAME", route_prefix="/NAME", num_replicas=2)
@fngw.ingress(app)
class First:
    def __init__(self):
        seen.append("constructed")
        self.count = 0

    @app.get("/greet/{name}")
    def greet(self, name: str, times: int = 1):
        return {"text": f"hello {name}" * times, "seen": seen}

    @app.post("/items", status_code=201)
    async def add(self, item: dict):
        self.count += 1
        return {**item, "count": self.count}


@fngw.deployment(name="NAME2", route_prefix="/NAME/second")
@fngw.ingress(app)
class Second:
    @app.get("/only")
    def only(self):
        return "second"
"""


@pytest.fixture
def site(stack: Any, unique: str, tmp_path: Path) -> str:
    """A Starlette app, deployed; its path."""
    (tmp_path / "site_app.py").write_text(STARLETTE.replace("NAME", unique))
    stack.fngw("deploy", str(tmp_path / "site_app.py"))
    return f"/{unique}"


def ws(stack: Any, path: str, **more: Any) -> Any:
    return connect(stack.url.replace("http", "ws") + path, open_timeout=60, max_size=2**23, **more)


def test_an_app_sees_whole_paths_and_streams_and_sets_two_cookies(stack: Any, site: str):
    with stack.http as http:
        where = http.get(f"{site}/where?a=1").json()
        assert where == {"path": f"{site}/where", "root": site, "q": "a=1"}
        cookies = http.get(f"{site}/cookies").headers.get_list("set-cookie")
        assert [c.split(";")[0] for c in cookies] == ["a=1", "b=2"]
        with http.stream("GET", f"{site}/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert list(answer.iter_text()) and answer.status_code == 200
        assert http.get(f"{site}/nothing").status_code == 404


def test_websockets_pass_through_both_ways_with_close_codes(stack: Any, site: str):
    headers = {"X-Request-Id": "from-the-client"}
    with ws(stack, f"{site}/echo", additional_headers=headers, subprotocols=["chat"]) as socket:
        assert socket.response.headers["x-request-id"] == "from-the-client"
        assert socket.subprotocol == "chat"
        assert json.loads(socket.recv(60)) == {"path": f"{site}/echo", "id": "from-the-client"}
        for message in ("text", b"bytes", "x" * 300_000, b"y" * 3_000_000):
            socket.send(message)
            assert socket.recv(60) == message
        assert socket.ping().wait(60)
        socket.send("bye")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(60)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "as you wish")


def test_refused_websockets_are_answers(stack: Any, site: str):
    for path, status in ((f"{site}/refuse", 403), ("/nobody", 404)):
        with pytest.raises(InvalidStatus) as refused, ws(stack, path):
            raise AssertionError("it was let in")
        assert refused.value.response.status_code == status
        assert "x-request-id" in refused.value.response.headers


def test_many_websockets_at_once_do_not_mix(stack: Any, site: str):
    def talk(number: int) -> bool:
        with ws(stack, f"{site}/echo") as socket:
            socket.recv(60)
            for turn in range(20):
                socket.send(f"{number}-{turn}")
                if socket.recv(60) != f"{number}-{turn}":
                    return False
        return True

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        assert all(pool.map(talk, range(20)))


def test_websockets_end_when_their_deployment_does(stack: Any, site: str, unique: str):
    with ws(stack, f"{site}/echo") as socket:
        socket.recv(60)
        stack.fngw("delete", unique)
        with pytest.raises(ConnectionClosed):
            socket.recv(60)


def test_fastapi_views_bind_to_the_replica_and_two_classes_share_an_app(
    process_stack: Any, unique: str, tmp_path: Path
):
    path = tmp_path / "views_app.py"
    path.write_text(FASTAPI.replace("NAME", unique))
    process_stack.fngw("deploy", str(path))
    with process_stack.http as http:
        greeting = http.get(f"/{unique}/greet/Ada?times=2").json()
        assert greeting == {"text": "hello Adahello Ada", "seen": ["constructed", "startup"]}
        assert http.get(f"/{unique}/greet/Ada?times=x").status_code == 422
        assert http.post(f"/{unique}/items", json={"a": 1}).json()["a"] == 1
        assert http.get(f"/{unique}/only").status_code == 404
        assert http.get(f"/{unique}/second/only").json() == "second"
        docs = http.get(f"/{unique}/docs").text
        assert f"/{unique}/openapi.json" in docs
        paths = http.get(f"/{unique}/openapi.json").json()["paths"]
        assert set(paths) == {"/greet/{name}", "/items"}
