"""An ASGI app mounted on a real replica: routing, lifespan, WebSockets without any WebSocket package."""

from __future__ import annotations

import struct

import pytest

from fngw_runtime import frames

from .replica_process import eventually
from .websocket_client import KEY


@pytest.fixture
def site(start, folder):
    return start("site_app:Site", is_class=True, env={"TEST_FOLDER": str(folder)})


def test_routes_and_lifespan_state(site, folder):
    expected = {"path": "/tested/items/5", "root_path": "/tested", "item": "5", "state": "yes"}
    assert site.get("/tested/items/5").json() == expected
    assert site.get("/items/5", prefix="").json()["path"] == "/items/5"
    page = site.get("/tested/sub/page").json()
    assert (page["path"], page["root_path"]) == ("/tested/sub/page", "/tested/sub")
    assert site.get("/tested/none").status_code == 404
    assert site.call("helper") == "by handle"
    site.terminate()
    assert site.wait() == 0
    assert (folder / "shut-down").exists()


def test_an_app_that_raises_is_logged_once(site):
    answer = site.get("/tested/broken")
    assert answer.status_code == 500
    eventually(lambda: "ValueError: page is broken\n" in site.text(), "the traceback is logged")
    assert site.text().count("ValueError: page is broken\n") == 1


def test_a_lifespan_that_fails_is_a_failed_start(start, folder):
    env = {"TEST_FOLDER": str(folder), "TEST_FAIL": "1"}
    problem = start("site_app:Site", ready=False, is_class=True, env=env).ready().json()
    assert (problem["code"], problem["title"]) == ("lifespan_failed", "RuntimeError: no database")


def test_websocket_messages(site, connect, folder):
    socket = connect(site, "/tested/chat", "sec-websocket-protocol: a, b")
    assert socket.head.startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-accept: " + frames.accept_key(KEY) in socket.head
    assert b"sec-websocket-protocol: a" in socket.head
    opcode, payload = socket.receive()
    assert (opcode, payload) == (frames.TEXT, b"/tested/chat /tested")
    socket.send(frames.TEXT, "grüezi".encode())
    assert socket.receive() == (frames.TEXT, "grüezi".encode())
    socket.send(frames.BINARY, b"a" * 300, final=False)
    socket.send(frames.PING, b"there?")
    socket.send(0, b"b" * 300)
    assert socket.receive() == (frames.PONG, b"there?")
    assert socket.receive() == (frames.BINARY, b"a" * 300 + b"b" * 300)
    socket.send(frames.CLOSE, struct.pack(">H", 4321))
    assert socket.receive() == (frames.CLOSE, struct.pack(">H", 4321))
    eventually((folder / "left-4321").exists, "the app is told")


def test_websockets_that_end(site, connect, folder):
    socket = connect(site, "/tested/chat")
    socket.receive()
    socket.send(frames.TEXT, b"bye")
    assert socket.receive() == (frames.CLOSE, struct.pack(">H", 4000))
    assert connect(site, "/tested/refusing").head.startswith(b"HTTP/1.1 403 ")
    assert connect(site, "/tested/failing").receive() == (frames.CLOSE, struct.pack(">H", 1011))
    assert "socket is broken" in site.text()
    leaving = connect(site, "/tested/chat")
    leaving.connection.close()
    eventually((folder / "left-1006").exists, "the app is told")


def test_websockets_are_counted_and_told_of_the_end(start, connect, folder):
    env = {"TEST_FOLDER": str(folder)}
    site = start("site_app:Site", is_class=True, env=env, max_concurrent_queries=1)
    first = connect(site, "/tested/chat")
    first.receive()
    refused = connect(site, "/tested/chat")
    assert refused.head.startswith(b"HTTP/1.1 503 ") and b"fngw-at-capacity: 1" in refused.head
    site.terminate()
    assert site.wait() == 0, "it does not take its whole grace"
    assert first.receive() == (frames.CLOSE, struct.pack(">H", 1012))
    assert (folder / "left-1012").exists()
    assert "unfinished" not in site.text()


def test_a_drain_waits_for_the_handshake_and_the_end_of_a_websocket(start, connect, folder):
    site = start("site_app:Site", is_class=True, env={"TEST_FOLDER": str(folder)})
    socket = connect(site, "/tested/slow")
    eventually((folder / "begun-handshake").exists, "the handshake is under way")
    site.terminate()
    eventually(lambda: site.text().count("requests in flight: 1") > 1, "a turn of the wait is over")
    (folder / "go").touch()
    assert socket.head.startswith(b"HTTP/1.1 101 ")
    assert socket.receive() == (frames.CLOSE, struct.pack(">H", 1012))
    assert site.wait() == 0
    assert (folder / "ended").exists()


def test_a_websocket_that_outlasts_the_drain_is_cut(start, connect, folder):
    options = {"graceful_shutdown_wait_loop_s": 60, "graceful_shutdown_timeout_s": 0.3}
    site = start("site_app:Site", is_class=True, env={"TEST_FOLDER": str(folder)}, **options)
    socket = connect(site, "/tested/chat")
    socket.receive()
    site.terminate()
    assert socket.receive() == (frames.CLOSE, struct.pack(">H", 1012))
    assert site.wait() == 0
    assert "requests unfinished: 1" in site.text()


def test_a_websocket_to_a_function_is_refused(start, connect):
    assert connect(start("functions:hello"), "/tested").head.startswith(b"HTTP/1.1 500 ")
