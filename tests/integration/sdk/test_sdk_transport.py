"""The transport against servers that misbehave, over real sockets: what is sent again, and what is not."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

import fngw
from fngw import http1, transport
from fngw.endpoint import Endpoint
from fngw.http1 import Reply

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Script = Callable[[socket.socket], None]


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\nbody"):
        piece = connection.recv(65536)
        if not piece:
            break
        data += piece
    return data


def answer(data: bytes) -> Script:
    def run(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(data)

    return run


def close_unread(connection: socket.socket) -> None:
    """Wait for a request, and close without reading it: what a server's idle timeout may do at the wrong time."""
    select.select([connection], [], [], 60)


def close_read(connection: socket.socket) -> None:
    """Read a request, and die."""
    read_request(connection)


@contextmanager
def serving(server: socket.socket, *connections: list[Script]) -> Iterator[list[int]]:
    """Accept one connection after the other, and treat each by its scripts; yields the requests seen on each."""
    seen: list[int] = []

    def run() -> None:
        for scripts in connections:
            connection, _ = server.accept()
            seen.append(0)
            with connection:
                for script in scripts:
                    script(connection)
                    seen[-1] += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seen
    finally:
        thread.join(60)
        transport.close()
    assert not thread.is_alive()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset counts as one of these servers', however late this machine lets it be seen."""
    monkeypatch.setattr(http1, "RESET_WITHIN_S", 60)


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, Endpoint]]:
    unix = request.param == "unix"
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as listening:
        path = str(tmp_path / "s")
        listening.bind(path if unix else ("127.0.0.1", 0))
        listening.listen()
        url = "http://unused" if unix else f"http://127.0.0.1:{listening.getsockname()[1]}/base"
        yield listening, Endpoint(url, socket=path if unix else None)


def call(endpoint: Endpoint) -> Reply:
    return transport.submit(transport.request(endpoint, "POST", "/x", {}, [b"body"])).result(60)


def test_connections_are_kept(server: tuple[socket.socket, Endpoint]) -> None:
    with serving(server[0], [answer(OK), answer(OK)]) as seen:
        assert [call(server[1]).body for _ in range(2)] == [b"ok", b"ok"]
    assert seen == [2]


def test_a_connection_that_was_closed_meanwhile_is_not_used(server: tuple[socket.socket, Endpoint]) -> None:
    with serving(server[0], [answer(OK)], [answer(OK)]) as seen:
        assert [call(server[1]).body for _ in range(2)] == [b"ok", b"ok"]
    assert seen == [1, 1]


def test_an_unread_request_is_sent_again(server: tuple[socket.socket, Endpoint]) -> None:
    with serving(server[0], [answer(OK), close_unread], [answer(OK)]) as seen:
        assert [call(server[1]).body for _ in range(2)] == [b"ok", b"ok"]
    assert seen == [2, 1]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_connection_that_closes_as_it_is_written_to_was_not_read(
    server: tuple[socket.socket, Endpoint], loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def exchange() -> None:
        connection = await http1.connect(server[1])
        try:
            assert connection.reusable
            server[0].accept()[0].close()
            while connection.reusable:  # the kernel has told it, the loop has not
                pass
            with pytest.raises(http1.NeverRead):
                await connection.exchange("POST", "/", {}, [])
        finally:
            connection.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(exchange())


def test_a_request_that_may_have_run_is_not_sent_again(server: tuple[socket.socket, Endpoint]) -> None:
    with serving(server[0], [answer(OK), close_read]) as seen:
        call(server[1])
        with pytest.raises(fngw.Unreachable, match="not repeated") as caught:
            call(server[1])
    assert caught.value.code == "connection_lost"
    assert seen == [2]


def test_a_fresh_connection_is_never_retried(server: tuple[socket.socket, Endpoint]) -> None:
    with serving(server[0], [close_unread]), pytest.raises(fngw.Unreachable) as caught:
        call(server[1])
    assert caught.value.code == "connection_lost"


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: v\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 204 None\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\nConnection: close\r\ncontent-length: 1\r\n\r\nx", b"x"),
    ],
)
def test_shapes_of_answers(server: tuple[socket.socket, Endpoint], raw: bytes, body: bytes) -> None:
    with serving(server[0], [answer(raw)]):
        assert call(server[1]).body == body


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 300_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_answer(server: tuple[socket.socket, Endpoint], raw: bytes) -> None:
    with serving(server[0], [answer(raw)]), pytest.raises(fngw.Unreachable, match="during a call"):
        call(server[1])


def test_the_path_below_a_base_and_the_token(server: tuple[socket.socket, Endpoint]) -> None:
    heads: list[bytes] = []

    def note(connection: socket.socket) -> None:
        heads.append(read_request(connection))
        connection.sendall(OK)

    listening, endpoint = server
    with serving(listening, [note]):
        call(Endpoint(endpoint.url, "secret", endpoint.socket))
    lines = heads[0].split(b"\r\n")
    assert lines[0] == (b"POST /x HTTP/1.1" if endpoint.socket else b"POST /base/x HTTP/1.1")
    assert b"authorization: Bearer secret" in lines
    assert lines[1].startswith(b"host: ")


def test_a_gateway_that_comes_back_is_waited_for_in_replicas(tmp_path: Path) -> None:
    path = str(tmp_path / "late")
    with socket.socket(socket.AF_UNIX) as listening:
        future = transport.submit(transport.request(Endpoint(socket=path), "POST", "/x", {}, [b"body"]))
        listening.bind(path)
        listening.listen()
        with serving(listening, [answer(OK)]):
            assert future.result(60).status == 200


def test_a_full_accept_queue_is_no_error(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(0)
        waiting = [
            transport.submit(transport.request(Endpoint(socket=path), "POST", "/x", {}, [b"body"]))
            for _ in range(8)
        ]
        with serving(listening, *[[answer(OK)]] * 8):
            assert [w.result(60).status for w in waiting] == [200] * 8
