"""WebSocket frames against RFC 6455."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fngw_runtime import frames
from fngw_runtime.frames import Frame, Malformed, Parser, encode_frame


def masked(opcode: int, payload: bytes, *, final: bool = True, key: bytes = b"\x01\x02\x03\x04") -> bytes:
    """A client's frame, made from a server's."""
    frame = bytearray(encode_frame(opcode, payload))
    if not final:
        frame[0] &= 0x7F
    frame[1] |= 0x80
    head = len(frame) - len(payload)
    return bytes(frame[:head]) + key + bytes(b ^ key[i % 4] for i, b in enumerate(payload))


def test_the_examples_of_the_rfc():
    assert encode_frame(frames.TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert Parser(100).feed(bytes.fromhex("818537fa213d7f9f4d5158")) == [Frame(frames.TEXT, b"Hello")]
    assert frames.accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@given(st.lists(st.binary(max_size=300), max_size=4), st.integers(1, 50), st.binary(min_size=4, max_size=4))
def test_any_cut_of_the_stream_gives_the_same_messages(payloads, step, key):
    stream = b"".join(masked(frames.BINARY, p, key=key) for p in payloads)
    parser, got = Parser(1000), []
    for start in range(0, len(stream), step):
        got += parser.feed(stream[start : start + step])
    assert got == [Frame(frames.BINARY, p) for p in payloads]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_every_length_field(size):
    payload = bytes(size)
    assert Parser(1 << 20).feed(masked(frames.BINARY, payload)) == [Frame(frames.BINARY, payload)]


def test_fragments_with_a_ping_between():
    stream = masked(frames.TEXT, b"a", final=False) + masked(frames.PING, b"?") + masked(0, b"b")
    assert Parser(10).feed(stream) == [Frame(frames.PING, b"?"), Frame(frames.TEXT, b"ab")]


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (encode_frame(frames.TEXT, b"unmasked"), 1002),
        (masked(0, b"a continuation of nothing"), 1002),
        (masked(frames.TEXT, b"a", final=False) + masked(frames.TEXT, b"b"), 1002),
        (masked(3, b"unknown"), 1002),
        (b"\xc1\x80", 1002),
        (masked(frames.PING, b"", final=False), 1002),
        (masked(frames.PING, bytes(126)), 1002),
        (masked(frames.BINARY, bytes(1001)), 1009),
        (masked(frames.BINARY, bytes(600), final=False) + masked(0, bytes(600)), 1009),
        (b"\x82\xff" + struct.pack(">Q", 1 << 62), 1009),
    ],
)
def test_what_breaks_the_protocol(stream, code):
    with pytest.raises(Malformed) as caught:
        Parser(1000).feed(stream)
    assert caught.value.code == code


def test_close_frames():
    assert (Frame(8, b"").close_code(), Frame(8, b"").close_reason()) == (1005, "")
    frame = Frame(8, struct.pack(">H", 4000) + "größer".encode())
    assert (frame.close_code(), frame.close_reason()) == (4000, "größer")


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999])
def test_close_codes_that_may_be_sent(code):
    payload = struct.pack(">H", code) + "grüezi".encode()
    (frame,) = Parser(100).feed(masked(frames.CLOSE, payload))
    assert (frame.close_code(), frame.close_reason()) == (code, "grüezi")


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", 1002),
        *[(struct.pack(">H", n), 1002) for n in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)],
        (struct.pack(">H", 1000) + b"\xff", 1007),
    ],
)
def test_close_frames_that_break_the_protocol(payload, code):
    with pytest.raises(Malformed) as caught:
        Parser(100).feed(masked(frames.CLOSE, payload))
    assert caught.value.code == code
