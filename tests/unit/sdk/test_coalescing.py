"""What is written, and when, by a transport that holds heads back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fngw.coalescing import Coalescing

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Wire(asyncio.Transport):
    """Notes each system call that a real transport would make."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def write(self, data: Any) -> None:
        self.calls.append(bytes(data))

    def writelines(self, parts: Any) -> None:
        self.calls.append(b"".join(parts))

    def get_write_buffer_size(self) -> int:
        return 3

    def write_eof(self) -> None:
        self.calls.append("eof")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


@pytest.fixture
async def wire() -> Wire:
    return Wire()


@pytest.fixture
async def transport(wire: Wire) -> Coalescing:
    return Coalescing(wire)


async def test_a_head_goes_with_the_body(wire: Wire, transport: Coalescing):
    transport.write(HEAD)
    transport.write(b"ok")
    assert wire.calls == [HEAD + b"ok"]
    await asyncio.sleep(0)
    assert wire.calls == [HEAD + b"ok"]


async def test_a_head_alone_goes_with_the_next_turn_of_the_loop(wire: Wire, transport: Coalescing):
    transport.write(HEAD)
    assert wire.calls == [] and transport.get_write_buffer_size() == len(HEAD) + 3
    await asyncio.sleep(0)
    assert wire.calls == [HEAD] and transport.get_write_buffer_size() == 3


async def test_two_heads_after_each_other_keep_their_order(wire: Wire, transport: Coalescing):
    transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    transport.write(HEAD)
    await asyncio.sleep(0)
    assert b"".join(wire.calls) == b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD


@pytest.mark.parametrize(
    "data", [b"", b"ok", b"HTTP/1.1 200 OK\r\n", b"2\r\nok\r\n\r\n", bytearray(b"x"), memoryview(b"y")]
)
async def test_all_else_goes_at_once(wire: Wire, transport: Coalescing, data: Any):
    transport.write(data)
    assert wire.calls == [bytes(data)]


@pytest.mark.parametrize("end", ["close", "eof"])
async def test_what_is_held_goes_before_the_end(wire: Wire, transport: Coalescing, end: str):
    transport.write(HEAD)
    (transport.close if end == "close" else transport.write_eof)()
    await asyncio.sleep(0)
    assert wire.calls == [HEAD, end]


async def test_lines_go_after_what_is_held(wire: Wire, transport: Coalescing):
    transport.write(HEAD)
    transport.writelines([b"o", b"k"])
    assert wire.calls == [HEAD, b"ok"]


async def test_nothing_goes_after_an_abort(wire: Wire, transport: Coalescing):
    transport.write(HEAD)
    transport.abort()
    await asyncio.sleep(0)
    assert wire.calls == ["abort"]
