"""The dispatcher's HTTP client, against a scripted server on a real Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fngw_dispatcher.http import Client, Lost, TooLarge, Unreached, tcp, unix

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Answers requests with the given bytes, one after the other; then it closes. Counts its connections."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers
        self.connections = 0
        self.requests: list[bytes] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.tasks.append(asyncio.current_task())  # type: ignore[arg-type]  # within one
        while self._answers:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            self.requests.append(head)
            answer = self._answers.pop(0)
            writer.write(answer)
            if b"close" in answer or b"content-length" not in answer:
                break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def serving(*answers: bytes, limit: int = 1000) -> AsyncIterator[tuple[Server, Client]]:
    server = Server(list(answers))
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "s")
        listener = await asyncio.start_unix_server(server.serve, path)
        client = Client(unix(path), limit)
        yield server, client
        await client.close()
        await asyncio.gather(*server.tasks, return_exceptions=True)
        listener.close()
        await listener.wait_closed()


async def test_connections_are_kept() -> None:
    async with serving(OK, OK, OK) as (server, client):
        for _ in range(3):
            answer = await client.send("GET", "/x", (), b"")
            assert (answer.status, answer.body) == (200, b"ok")
        assert server.connections == 1


async def test_what_is_sent() -> None:
    async with serving(OK) as (server, client):
        headers = (("X-A", "b"), ("Connection", "close"), ("Content-Length", "9"), ("Host", "h"))
        await client.send("PUT", "/a%20b?c", headers, b"body")
        (request,) = server.requests
        assert request == b"PUT /a%20b?c HTTP/1.1\r\nX-A: b\r\nHost: h\r\ncontent-length: 4\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "text", "body"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nto the end", b"to the end"),
        ("GET", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        ("GET", b"HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n", b""),
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", b""),
    ],
)
async def test_forms_of_answers(method: str, text: bytes, body: bytes) -> None:
    async with serving(text, OK) as (_, client):
        assert (await client.send(method, "/", (), b"")).body == body
        assert (await client.send("GET", "/", (), b"")).body == b"ok"


async def test_repeated_headers_are_kept() -> None:
    text = b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\ncontent-length: 0\r\n\r\n"
    async with serving(text) as (_, client):
        answer = await client.send("GET", "/", (), b"")
        assert [v for n, v in answer.headers if n == "Set-Cookie"] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + b"x" * 2000, TooLarge),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2000, TooLarge),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nshort", Lost),
        (b"220 this is no HTTP\r\n", Lost),
        (b"", Lost),
    ],
)
async def test_what_goes_wrong(text: bytes, error: type[Exception]) -> None:
    async with serving(text) as (_, client):
        with pytest.raises(error):
            await client.send("POST", "/", (), b"")


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Unreached):
        await Client(unix(str(tmp_path / "none")), 10).send("GET", "/", (), b"")


async def test_the_first_address_that_lets_one_in() -> None:
    server = Server([b"HTTP/1.1 204 No Content\r\n\r\n"])
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    client = Client(tcp(["::1", "127.0.0.2", "127.0.0.1"], port), 10)
    assert (await client.send("GET", "/", (), b"")).status == 204
    await client.close()
    listener.close()
    with pytest.raises(Unreached):
        await Client(tcp(["127.0.0.2", "127.0.0.1"], port), 10).send("GET", "/", (), b"")


async def test_a_cancelled_request_closes_its_connection() -> None:
    gone = asyncio.Event()
    came = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        came.set()
        await reader.read()
        gone.set()
        writer.close()

    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "s")
        listener = await asyncio.start_unix_server(silent, path)
        sending = asyncio.create_task(Client(unix(path), 10).send("GET", "/", (), b""))
        await came.wait()
        sending.cancel()
        async with asyncio.timeout(60):
            await gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await sending
        listener.close()
        await listener.wait_closed()
