"""The corpus of answers: what replicas answer with, and what the client gets of it."""

from __future__ import annotations

from .corpus import HOST, Case, get, reply

__all__ = ["REPLIES"]

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
HELLO = OK + b"content-length: 5\r\n\r\nhello"
SILENT = "nginx had not begun to answer, and closes"
LENIENT = "nginx takes it for no length"
STRICTER = "nginx is more lenient"
HEAD = b"HEAD /f/case HTTP/1.1\r\n" + HOST + b"\r\n"
UPLOAD = b"POST /f/case HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000
NO_FRAME = (b"content-length", b"transfer-encoding")


def headed(name: str, head: bytes, **more: object) -> Case:
    """A HEAD that is answered with ``head``."""
    return reply(f"HEAD: {name}", head, sent=(HEAD,), methods=("HEAD",), **more)  # type: ignore[arg-type]


def lost(name: str, *answer: bytes, **more: object) -> Case:
    """No answer: 502, and another connection for the next request."""
    return reply(name, *answer, **{"status": 502, "lines": 2, "body": None, **more})  # type: ignore[arg-type]


def cut(name: str, *answer: bytes, **more: object) -> Case:
    """An answer that begins well: it is passed on as far as it goes, and seen to be no more than that."""
    fields = {"cut": True, "kept": False, "body": None, **more}
    return reply(name, *answer, lines=2, **fields)  # type: ignore[arg-type]


WHOLE = [
    reply("declared length", HELLO, body=b"hello"),
    reply("in many parts", *[HELLO[n : n + 1] for n in range(len(HELLO))], body=b"hello"),
    reply("chunks", OK + CHUNKED + b"\r\n5\r\nhello\r\n", b"0\r\n\r\n", body=b"hello"),
    reply("chunks with extensions", OK + CHUNKED + b"\r\n5;a=b\r\nhello\r\n0;c\r\n\r\n", body=b"hello"),
    reply(
        "trailers end here",
        OK + CHUNKED + b"trailer: x-t\r\n\r\n2\r\nhi\r\n0\r\nx-t: 1\r\n\r\n",
        body=b"hi",
        lacks=(b"x-t", b"trailer"),
        nginx="nginx passes them on",
    ),
    reply("until the connection ends", OK + b"\r\nhello", closes=True, body=b"hello", lines=2),
    reply("nothing until the connection ends", OK + b"\r\n", closes=True, lines=2),
    reply(
        "Connection: close",
        OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello",
        closes=True,
        body=b"hello",
        lacks=(b"connection",),
        lines=2,
    ),
    reply("HTTP/1.0 without a length", b"HTTP/1.0 200 OK\r\n\r\nhello", closes=True, body=b"hello", lines=2),
    reply(
        "HTTP/1.0 with a length",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        closes=True,
        body=b"hello",
        lines=2,
    ),
    reply("no reason", b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello", body=b"hello"),
    reply("an unknown status", b"HTTP/1.1 299 Odd\r\ncontent-length: 5\r\n\r\nhello", status=299, body=b"hello"),
    reply("204", b"HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n", status=204, lacks=NO_FRAME, has=(b"x-a: 1",)),
    reply("304", b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n", status=304, lacks=NO_FRAME, has=(b"etag: x",)),
    reply("304 with a length", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", status=304),
    reply(
        "204 with a length of nothing", b"HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n", status=204, lacks=NO_FRAME
    ),
    reply(
        "204 and chunked",
        b"HTTP/1.1 204 No\r\n" + CHUNKED + b"\r\n",
        status=204,
        lacks=NO_FRAME,
        nginx="nginx waits for the chunks",
    ),
    reply("205", b"HTTP/1.1 205 Reset\r\ncontent-length: 0\r\n\r\n", status=205),
    reply(
        "1xx before it",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + HELLO,
        body=b"hello",
        lacks=(b"link",),
        nginx="nginx knows one only",
    ),
    reply(
        "headers twice",
        OK + b"set-cookie: a\r\nx: y\r\nset-cookie: b\r\ncontent-length: 5\r\n\r\nhello",
        body=b"hello",
        has=(b"set-cookie: a", b"set-cookie: b"),
    ),
    reply(
        "hop-by-hop ends here",
        OK + b"connection: x-a\r\nx-a: 1\r\nkeep-alive: 9\r\nproxy-authenticate: x\r\nupgrade: h2\r\n"
        b"fngw-x: 1\r\ncontent-length: 5\r\n\r\nhello",
        body=b"hello",
        lacks=(b"x-a", b"keep-alive", b"proxy-authenticate", b"upgrade", b"fngw-x", b"connection"),
    ),
    reply(
        "a value beyond ASCII",
        OK + b"x: \xc3\xa9\r\ncontent-length: 5\r\n\r\nhello",
        body=b"hello",
        has=(b"x: \xc3\xa9",),
    ),
    headed("with a length", OK + b"content-length: 5\r\n\r\n", has=(b"content-length: 5",)),
    headed("without", OK + b"\r\n"),
    headed("chunked", OK + CHUNKED + b"\r\n"),
    headed("204", b"HTTP/1.1 204 No Content\r\n\r\n", status=204),
    headed("Connection: close", OK + b"connection: close\r\n\r\n", closes=True, lines=2),
    headed("with a body after all", HELLO, lines=2),
    headed("with chunks after all", OK + CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n", lines=2),
    reply(
        "to HTTP/1.0: no chunks",
        OK + CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n",
        body=b"hello",
        kept=False,
        sent=(b"GET /f/case HTTP/1.0\r\n\r\n",),
        lacks=(b"transfer-encoding",),
    ),
    reply(
        "to HTTP/1.0: a HEAD",
        OK + CHUNKED + b"\r\n",
        sent=(b"HEAD /f/case HTTP/1.0\r\n\r\n",),
        methods=("HEAD",),
        kept=False,
        lacks=(b"transfer-encoding",),
    ),
    reply(
        "too early: before the body was read",
        b"HTTP/1.1 403 No\r\ncontent-length: 5\r\n\r\nhello",
        sent=(UPLOAD,),
        status=403,
        early=True,
        body=b"hello",
        lines=2,
    ),
    reply(
        "too early, and closed",
        b"HTTP/1.1 403 No\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
        sent=(UPLOAD,),
        status=403,
        early=True,
        closes=True,
        body=b"hello",
        lines=2,
    ),
]
TOO_MUCH = [
    reply("two answers for one request", HELLO + HELLO, body=b"hello", lines=2),
    reply("two answers, one after the other", HELLO, HELLO, body=b"hello", lines=2),
    reply("an answer and a half", HELLO + OK + b"content-le", body=b"hello", lines=2),
    reply("bytes after the answer", HELLO + b"!", body=b"hello", lines=2),
    reply("an empty line after the answer", HELLO + b"\r\n", body=b"hello"),
    reply("bytes after the last chunk", OK + CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\nmore", body=b"hello", lines=2),
    reply(
        "204 with a body", b"HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\nhello", status=204, lines=2, lacks=NO_FRAME
    ),
    reply("304 with a body", b"HTTP/1.1 304 No\r\ncontent-length: 5\r\n\r\nhello", status=304, lines=2),
    reply("closed between requests", HELLO, closes=True, body=b"hello", lines=2),
]
BROKEN = [
    lost("nonsense", b"SSH-2.0-OpenSSH_9.2\r\n", nginx="nginx takes it for HTTP/0.9"),
    lost("nothing", closes=True, lines=None),
    lost("half a head", OK + b"content-le", closes=True),
    lost("a head without an end", OK + b"x: " + b"y" * 400_000),
    lost("a status that is none", b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n", nginx=STRICTER),
    lost("a status of two digits", b"HTTP/1.1 20 Odd\r\ncontent-length: 0\r\n\r\n", nginx=SILENT),
    lost("a status below 100", b"HTTP/1.1 042 Odd\r\ncontent-length: 0\r\n\r\n", nginx=STRICTER),
    lost("101 unasked", b"HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", nginx="nginx passes it on"),
    lost("1xx and then nothing", b"HTTP/1.1 103 Early Hints\r\n\r\n", closes=True, nginx="nginx passes it on"),
    lost("1xx without end", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 10_000, nginx="nginx knows one only"),
    lost("a bad length", OK + b"content-length: x\r\n\r\n", nginx=LENIENT),
    lost("a negative length", OK + b"content-length: -5\r\n\r\nhello", nginx=LENIENT),
    lost("a length beyond 64 bits", OK + b"content-length: 18446744073709551621\r\n\r\nhello", nginx=LENIENT),
    lost("two lengths", OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", nginx=LENIENT),
    lost(
        "a length and chunks",
        OK + b"content-length: 5\r\n" + CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n",
        nginx="nginx trusts the chunks",
    ),
    lost(
        "chunks and a length",
        OK + CHUNKED + b"content-length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        nginx="nginx trusts the chunks",
    ),
    lost("a header without a colon", OK + b"no colon\r\ncontent-length: 5\r\n\r\nhello", nginx=STRICTER),
    lost("a folded header", OK + b"x: y\r\n z\r\ncontent-length: 5\r\n\r\nhello", nginx=STRICTER),
    lost("a bare LF", b"HTTP/1.1 200 OK\ncontent-length: 5\n\nhello", nginx=STRICTER),
    lost("a bare CR", OK + b"x: y\rz\r\ncontent-length: 5\r\n\r\nhello", nginx=STRICTER),
    lost("NUL in a header", OK + b"x: y\0z\r\ncontent-length: 5\r\n\r\nhello"),
    lost("never", sent=(get(b"/f/case"),), status=504, timeout_s=1.5),
    cut("half a body", OK + b"content-length: 100\r\n\r\nhalf of it", closes=True),
    cut("half a chunk", OK + CHUNKED + b"\r\n64\r\nhalf of it", closes=True),
    cut("no last chunk", OK + CHUNKED + b"\r\na\r\nhalf of it\r\n", closes=True),
    cut("chunks that break", OK + CHUNKED + b"\r\na\r\nhalf of it\r\nnonsense\r\n", nginx=SILENT),
    cut("a chunk without an end", OK + CHUNKED + b"\r\n2\r\nhi2\r\nhi\r\n0\r\n\r\n", nginx=SILENT),
    cut("a chunk's size that is huge", OK + CHUNKED + b"\r\nfffffffffffffffff\r\nhi\r\n", nginx=SILENT),
    cut("never the rest", OK + b"content-length: 100\r\n\r\nhalf of it", timeout_s=1.5),
    reply(
        "half a body to HTTP/1.0, which cannot tell",
        OK + CHUNKED + b"\r\na\r\nhalf of it\r\n",
        closes=True,
        kept=False,
        body=b"half of it",
        lines=2,
        sent=(b"GET /f/case HTTP/1.0\r\n\r\n",),
    ),
]
REPLIES = [*WHOLE, *TOO_MUCH, *BROKEN]
