"""How replicas leave with something under way: what callers are told, and how long it may take."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SOURCE = """
import asyncio
import fngw

@fngw.deployment(graceful_shutdown_wait_loop_s=0.1)
class App:
    async def __call__(self, request):
        print("stuck in", request.method, flush=True)
        if "stream" in request.query_params:
            return self.endless()
        await asyncio.sleep(3600)

    async def endless(self):
        while True:
            yield "more"
            await asyncio.sleep(0.01)

    async def method(self):
        print("stuck in a call", flush=True)
        await asyncio.sleep(3600)
"""

CHAT = """
import fngw
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

async def chat(socket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)

@fngw.deployment(graceful_shutdown_wait_loop_s=0.5, graceful_shutdown_timeout_s=300)
@fngw.ingress(Starlette(routes=[WebSocketRoute("/chat", chat)]))
class App:
    pass
"""

CALLER = """
import json, sys
import fngw
try:
    fngw.get_deployment(sys.argv[1]).get_handle().method.remote().result(60)
except fngw.FngwError as error:
    print(json.dumps([type(error).__name__, error.code, error.status]))
"""


@pytest.fixture
def app(process_stack, project):
    found = project(process_stack)
    found.write(SOURCE)
    return found


def read(url: str, begun: threading.Event) -> None:
    """Read a stream, which must break off after it has begun."""
    with httpx.stream("GET", url, timeout=60) as answer:
        assert answer.status_code == 200
        try:
            for _ in answer.iter_bytes():
                begun.set()
        except httpx.RemoteProtocolError:
            return
    raise AssertionError("the stream looks whole")


def test_what_outlasts_the_drain_is_lost_and_not_a_failure_of_the_function(app, wait):
    stack, url = app.stack, f"{app.stack.url}/{app.name}"
    app.deployed(version="1", graceful_shutdown_timeout_s=1)
    streaming = threading.Event()
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(httpx.request, method, url, timeout=60) for method in ("GET", "POST")]
        stream = pool.submit(read, url + "?stream=1", streaming)
        call = pool.submit(stack.python, CALLER.replace("sys.argv[1]", repr(app.name)))
        for line in ("stuck in POST", "stuck in a call"):
            wait(lambda line=line: line in stack.logs(app.name), line)
        wait(lambda: stack.logs(app.name).count("stuck in GET") == 2, "two GETs")
        wait(streaming.is_set, "a piece of the stream")
        stack.fngw("delete", app.name)
        answers = [future.result() for future in asked]
        assert [(a.status_code, a.json()["code"]) for a in answers] == [(502, "replica_lost")] * 2
        assert f"fngw logs {app.name}" in answers[0].json()["hint"]
        stream.result()
        assert json.loads(call.result().stdout) == ["FngwError", "replica_lost", 502]


def test_the_grace_follows_a_deploy_that_keeps_the_replicas(app, wait):
    before = app.deployed(version="1", graceful_shutdown_timeout_s=600)
    assert app.deployed(version="1", graceful_shutdown_timeout_s=1) == before
    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(httpx.post, f"{app.stack.url}/{app.name}", timeout=200)
        wait(lambda: "stuck in POST" in app.stack.logs(app.name), "the request")
        began = time.monotonic()
        app.stack.fngw("delete", app.name)
        assert 1 <= time.monotonic() - began < 150  # and not 600
        assert stuck.result().status_code == 502


def test_a_websocket_is_told_to_connect_again(stack, project):
    app = project(stack)
    app.write(CHAT)
    app.deployed(version="1")
    url = f"{stack.url.replace('http', 'ws', 1)}/{app.name}/chat"
    with connect(url, open_timeout=60) as socket:
        socket.send("hello")
        assert socket.recv(timeout=60) == "hello"
        app.deployed(version="2")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=60)  # a fifth of its grace
        assert closed.value.rcvd.code == 1012
    with connect(url, open_timeout=60) as socket:
        socket.send("again")
        assert socket.recv(timeout=60) == "again"
