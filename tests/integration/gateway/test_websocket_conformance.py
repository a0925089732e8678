"""WebSockets through the gateway to a real replica, by the `websockets` library: RFC 6455 as others read it."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from ..runtime.replica_process import ReplicaProcess
from .conftest import Site
from .ground import Ground, all_quiet, shared_site
from .wire import eventually

APPS = Path(__file__).parent / "apps"
#: The largest message that a replica takes.
LARGEST = 16 * 1024 * 1024
Talk = Callable[[ClientConnection], Awaitable[Any]]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where the app tells how its connections ended, a file each."""
    path = Path(tempfile.mkdtemp(prefix="ws-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def replica(folder: Path) -> Iterator[ReplicaProcess]:
    options: dict[str, Any] = {"is_class": True, "route_prefix": "/f", "app_dir": str(APPS)}
    process = ReplicaProcess(folder / "r", "socket_echo:Echo", env={"TEST_FOLDER": str(folder)}, **options)
    try:
        assert process.ready().status_code == 200, process.log.read_text()
        yield process
    finally:
        process.close()


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with shared_site() as ground:
        yield ground


@pytest.fixture
def talk(ground: Ground, replica: ReplicaProcess) -> Callable[..., None]:
    """Open a WebSocket, hold a conversation, and see that nothing of it stays."""

    def hold(conversation: Talk, path: str = "/f/echo", **options: Any) -> None:
        async def work(site: Site) -> None:
            site.route(replica.socket)
            options.setdefault("compression", None)
            url = f"ws://127.0.0.1:{site.port}{path}"
            async with connect(
                url, max_size=None, proxy=None, open_timeout=10, close_timeout=5, **options
            ) as socket:
                await conversation(socket)
            await all_quiet(site)

        ground.run(work)

    return hold


async def closed(socket: ClientConnection) -> tuple[int, str]:
    """The code and the reason that came, once the connection has ended."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            await socket.recv()
    assert caught.value.rcvd is not None, "it ended without a close frame"
    return caught.value.rcvd.code, caught.value.rcvd.reason


async def write(socket: ClientConnection, *frames: bytes) -> None:
    """Write bytes as they are, past the library's own care."""
    assert socket.transport is not None
    for frame in frames:
        socket.transport.write(frame)


def frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bool = True) -> bytes:
    return Frame(Opcode(opcode), payload, fin).serialize(mask=mask)


SIZES = [0, 1, 125, 126, 65_535, 65_536, 2**20]


@pytest.mark.parametrize("size", SIZES)
def test_binary_and_text_of_all_lengths_come_back(talk: Callable[..., None], size: int) -> None:
    async def conversation(socket: ClientConnection) -> None:
        for message in (bytes(n % 251 for n in range(size)), "ü" * (size // 2)):
            await socket.send(message)
            assert await socket.recv() == message

    talk(conversation)


def test_fragments_are_put_together(talk: Callable[..., None]) -> None:
    async def conversation(socket: ClientConnection) -> None:
        await socket.send(["grü", "", "ezi"])
        assert await socket.recv() == "grüezi"
        await socket.send([b"a" * 70_000, b"b"])
        assert await socket.recv() == b"a" * 70_000 + b"b"
        split = "ü".encode()
        await write(socket, frame(1, split[:1], fin=False), frame(0, split[1:]))
        assert await socket.recv() == "ü"

    talk(conversation)


def test_pings_are_answered_also_between_fragments(talk: Callable[..., None]) -> None:
    async def conversation(socket: ClientConnection) -> None:
        await (await socket.ping(b"x" * 125))
        await write(socket, frame(2, b"a", fin=False))
        await (await socket.ping(b""))
        await socket.pong(b"unasked")
        await write(socket, frame(0, b"b"))
        assert await socket.recv() == b"ab"

    talk(conversation)


def test_many_messages_keep_their_order(talk: Callable[..., None]) -> None:
    async def conversation(socket: ClientConnection) -> None:
        for n in range(200):
            await socket.send(str(n))
        assert [await socket.recv() for _ in range(200)] == [str(n) for n in range(200)]

    talk(conversation)


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_codes_of_the_client_reach_the_app(talk: Callable[..., None], folder: Path, code: int) -> None:
    async def conversation(socket: ClientConnection) -> None:
        await socket.close(code, "grüezi")
        assert socket.close_code == code
        told = folder / f"told{code}"
        await eventually(lambda: told.exists() and told.read_text("utf-8") == f"{code} grüezi")

    talk(conversation, f"/f/told{code}")


def test_a_client_that_leaves_without_a_word(talk: Callable[..., None], folder: Path) -> None:
    async def conversation(socket: ClientConnection) -> None:
        socket.transport.abort()
        await eventually(lambda: (folder / "left").exists() and (folder / "left").read_text().startswith("1006"))

    talk(conversation, "/f/left")


@pytest.mark.parametrize("code", [1000, 1011, 4321])
def test_codes_of_the_app_reach_the_client(talk: Callable[..., None], code: int) -> None:
    async def conversation(socket: ClientConnection) -> None:
        assert await closed(socket) == (code, "grüezi")

    talk(conversation, f"/f/{code}")


BROKEN = {
    "text that is not UTF-8": (1007, frame(1, b"\xff")),
    "a character cut off": (1007, frame(1, "ü".encode()[:1])),
    "fragments that are not UTF-8": (1007, frame(1, b"a", fin=False) + frame(0, b"\xff")),
    "a reason that is not UTF-8": (1007, frame(8, struct.pack(">H", 1000) + b"\xff")),
    "a frame without a mask": (1002, frame(1, b"hi", mask=False)),
    "a reserved bit": (1002, b"\xc1\x82\0\0\0\0hi"),
    "a reserved opcode": (1002, b"\x83\x80\0\0\0\0"),
    "a reserved control opcode": (1002, b"\x8b\x80\0\0\0\0"),
    "a ping in fragments": (1002, b"\x09\x80\0\0\0\0"),
    "a ping that is too long": (1002, b"\x89\xfe\0\x7e" + bytes(4 + 126)),
    "a fragment of nothing": (1002, frame(0, b"hi")),
    "a message within fragments": (1002, frame(1, b"a", fin=False) + frame(1, b"b")),
    "a close frame of one byte": (1002, frame(8, b"\x03")),
    "a code that is never sent": (1002, frame(8, struct.pack(">H", 1005))),
    "a code that is none": (1002, frame(8, struct.pack(">H", 999))),
    "a message that is too large, said": (1009, b"\x82\xff" + struct.pack(">Q", LARGEST + 1) + bytes(4)),
    "a length of 64 bits": (1009, b"\x82\xff" + b"\xff" * 8 + bytes(4)),
    "too large in fragments": (1009, (frame(2, bytes(2**20), fin=False) + frame(0, bytes(2**20), fin=False) * 16)),
}


@pytest.mark.parametrize(("code", "sent"), BROKEN.values(), ids=BROKEN)
def test_what_breaks_the_protocol_is_closed_with_its_code(
    talk: Callable[..., None], code: int, sent: bytes
) -> None:
    async def conversation(socket: ClientConnection) -> None:
        await write(socket, sent)
        assert (await closed(socket))[0] == code

    talk(conversation)


def test_who_sends_too_much_is_told_so(talk: Callable[..., None]) -> None:
    """The close frame arrives although the client is still sending."""

    async def conversation(socket: ClientConnection) -> None:
        await write(socket, frame(2, bytes(LARGEST + 1)), frame(2, bytes(LARGEST)))
        assert (await closed(socket))[0] == 1009

    talk(conversation)


def test_a_message_of_the_largest_size(talk: Callable[..., None]) -> None:
    async def conversation(socket: ClientConnection) -> None:
        await socket.send(bytes(LARGEST))
        assert len(await socket.recv()) == LARGEST

    talk(conversation)


def test_subprotocols(talk: Callable[..., None]) -> None:
    async def conversation(socket: ClientConnection) -> None:
        assert socket.subprotocol == "b"

    talk(conversation, subprotocols=["a", "b"])


def test_compression_is_not_agreed_on(talk: Callable[..., None]) -> None:
    async def conversation(socket: ClientConnection) -> None:
        assert socket.response is not None
        assert "permessage-deflate" in socket.request.headers["Sec-WebSocket-Extensions"]
        assert "Sec-WebSocket-Extensions" not in socket.response.headers
        await socket.send("a" * 1000)
        assert await socket.recv() == "a" * 1000

    talk(conversation, compression="deflate")


@pytest.mark.parametrize(("path", "status", "body"), [("/f/refused", 403, b""), ("/f/unpaid", 402, b"pay")])
def test_handshakes_that_are_refused(talk: Callable[..., None], path: str, status: int, body: bytes) -> None:
    with pytest.raises(InvalidStatus) as caught:
        talk(None, path)
    assert (caught.value.response.status_code, caught.value.response.body or b"") == (status, body)
