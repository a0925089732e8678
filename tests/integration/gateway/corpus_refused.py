"""The corpus of requests that are refused: each is answered once, nothing of it reaches a replica, the line ends.

The names of the desync literature: CL is Content-Length, TE is Transfer-Encoding.
"""

from __future__ import annotations

from .corpus import HOST, SMUGGLED, Case, bad, get, post

__all__ = ["REFUSED"]

STRICTER = "nginx is more lenient"
ANY_METHOD = "nginx passes methods on that it does not know"
CLOSES = "nginx closes without an answer"
LIMITS = "nginx has other limits"
IDENTITY = b"Transfer-Encoding: identity"
CHUNKED = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"


def line(line: bytes) -> bytes:
    """A request with this first line."""
    return line + b"\r\n" + HOST + b"\r\n"


def framed(*fields: bytes) -> bytes:
    """A POST with these headers about its framing, and a last chunk, which is five bytes of a body, too."""
    return post(END, *fields)


def field(raw: bytes) -> bytes:
    """A GET with this among its headers, as it is."""
    return b"GET /f/x HTTP/1.1\r\n" + HOST + raw + b"\r\n\r\n"


FRAMING = [
    bad("CL twice, different", framed(b"Content-Length: 5", b"Content-Length: 6")),
    bad("CL twice, equal", framed(b"Content-Length: 5", b"Content-Length: 5")),
    bad("CL as a list", framed(b"Content-Length: 5, 5")),
    bad("CL and TE", framed(b"Content-Length: 5", CHUNKED)),
    bad("TE and CL", framed(CHUNKED, b"Content-Length: 5")),
    bad("CL negative", framed(b"Content-Length: -1")),
    bad("CL with a plus", framed(b"Content-Length: +5")),
    bad("CL in hex", framed(b"Content-Length: 0x5")),
    bad("CL with a space within", framed(b"Content-Length: 5 5")),
    bad("CL empty", framed(b"Content-Length:")),
    bad("CL of no number", framed(b"Content-Length: five")),
    bad("CL beyond 64 bits", framed(b"Content-Length: 18446744073709551621")),
    bad("CL with an underscore", framed(b"Content-Length: 1_0")),
    bad("TE xchunked", framed(b"Transfer-Encoding: xchunked"), nginx="nginx says 501"),
    bad("TE chunked, identity", framed(b"Transfer-Encoding: chunked, identity"), nginx="nginx says 501"),
    bad("TE identity", framed(IDENTITY), nginx="nginx says 501"),
    bad("TE gzip, chunked", framed(b"Transfer-Encoding: gzip, chunked"), 501),
    bad("TE chunked, chunked", framed(b"Transfer-Encoding: chunked, chunked"), nginx="nginx says 501"),
    bad("TE twice", framed(CHUNKED, CHUNKED)),
    bad(
        "TE twice, one of them identity",
        framed(b"Transfer-Encoding: identity", CHUNKED),
        501,
        nginx="nginx says 400",
    ),
    bad("TE empty", framed(b"Transfer-Encoding:"), nginx="nginx says 501"),
    bad("TE in quotes", framed(b'Transfer-Encoding: "chunked"'), nginx="nginx says 501"),
    bad("TE with a vertical tab", framed(b"Transfer-Encoding: \x0bchunked"), nginx="nginx says 501"),
    bad("TE, a space before the colon", framed(b"Transfer-Encoding : chunked")),
    bad("TE, a tab before the colon", framed(b"Transfer-Encoding\t: chunked")),
    bad("TE, a space before the name", framed(b" Transfer-Encoding: chunked")),
    bad("TE folded", framed(b"Transfer-Encoding:\r\n chunked"), nginx="nginx says 501"),
    bad("TE after a bare CR", framed(b"X: y\rTransfer-Encoding: chunked")),
    bad("TE by HTTP/1.0", b"POST /f/x HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n\r\n" + END),
]
FIELDS = [
    bad("a bare LF after the request line", b"GET /f/x HTTP/1.1\n" + HOST + b"\r\n", nginx=STRICTER),
    bad("a bare LF after a header", field(b"X: y\nZ: z"), nginx=STRICTER),
    bad("a bare LF at the head's end", b"GET /f/x HTTP/1.1\r\nHost: t\r\n\n", nginx=STRICTER),
    bad("a bare CR in a value", field(b"X: y\rz"), nginx=STRICTER),
    bad("a bare CR in a name", field(b"X\ry: z")),
    bad("a folded value", field(b"X: y\r\n z")),
    bad("a value folded by a tab", field(b"X: y\r\n\tz")),
    bad("a folded first header", b"GET /f/x HTTP/1.1\r\n X: y\r\n" + HOST + b"\r\n"),
    bad("NUL in a value", field(b"X: y\0z")),
    bad("NUL in a name", field(b"X\0: z")),
    bad("a control character in a value", field(b"X: y\x01z"), nginx=STRICTER),
    bad("a space before a colon", field(b"X : y")),
    bad("a header without a colon", field(b"no colon"), nginx=STRICTER),
    bad("a header without a name", field(b": y"), nginx=STRICTER),
    bad("a name that is no token", field(b"X(y): z"), nginx=STRICTER),
    bad("no Host", b"GET /f/x HTTP/1.1\r\n\r\n"),
    bad("Host twice, equal", field(b"Host: t")),
    bad("Host twice, different", field(b"host: u")),
    bad("Host twice by HTTP/1.0", b"GET /f/x HTTP/1.0\r\nHost: t\r\nHost: u\r\n\r\n"),
    bad("Host with a path", b"GET /f/x HTTP/1.1\r\nHost: t/u\r\n\r\n"),
    bad("Host with a space", b"GET /f/x HTTP/1.1\r\nHost: t u\r\n\r\n", nginx=STRICTER),
    bad("Host as a list", b"GET /f/x HTTP/1.1\r\nHost: t@u\r\n\r\n", nginx=STRICTER),
    bad("a header larger than all may be", field(b"X: " + b"y" * 2**17), 431, nginx=LIMITS),
    bad("too many headers", field(b"\r\n".join(b"x-%d: y" % n for n in range(3000))), 431, nginx=LIMITS),
]
LINES = [
    bad("a method that is none", line(b"FROB /f/x HTTP/1.1"), nginx=ANY_METHOD),
    bad("a method in small letters", line(b"get /f/x HTTP/1.1")),
    bad("a method that is no token", line(b"GE(T /f/x HTTP/1.1")),
    bad("a method that only begins like one", line(b"GETX /f/x HTTP/1.1"), nginx=ANY_METHOD),
    bad("a tab before the target", line(b"GET\t/f/x HTTP/1.1")),
    bad("a space within the target", line(b"GET /f/x y HTTP/1.1")),
    bad("a space after the version", line(b"GET /f/x HTTP/1.1 "), nginx=STRICTER),
    bad("NUL in the target", line(b"GET /f/\0x HTTP/1.1")),
    bad("a control character in the target", line(b"GET /f/\x01x HTTP/1.1")),
    bad("no version (HTTP/0.9)", b"GET /f/x\r\n\r\n", nginx="nginx still speaks it"),
    bad("HTTP/0.9, said", line(b"GET /f/x HTTP/0.9")),
    bad("HTTP/1.2", line(b"GET /f/x HTTP/1.2"), nginx="nginx takes it for 1.1"),
    bad("HTTP/2.0", line(b"GET /f/x HTTP/2.0"), 505),
    bad("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", nginx=CLOSES),
    bad("HTTPS in place of HTTP", line(b"GET /f/x HTTPS/1.1")),
    bad("http in small letters", line(b"GET /f/x http/1.1")),
    bad("authority-form", line(b"GET t:80 HTTP/1.1")),
    bad("CONNECT", line(b"CONNECT t:80 HTTP/1.1"), nginx="nginx says 405"),
    bad("CONNECT to a path", line(b"CONNECT /f/x HTTP/1.1"), nginx="nginx says 405"),
    bad("an absolute-form without a host", line(b"GET http:///f/x HTTP/1.1")),
    bad("an absolute-form with a user", line(b"GET http://u@t/f/x HTTP/1.1")),
    bad("a relative target", line(b"GET f/x HTTP/1.1")),
    bad("an asterisk to GET", line(b"GET * HTTP/1.1")),
    bad("a target beyond ASCII", line(b"GET /f/\xc3\xa9 HTTP/1.1"), nginx=STRICTER),
    bad("a line that is too long", line(b"GET /f/x?" + b"y" * 2**17 + b" HTTP/1.1"), 414, nginx=LIMITS),
    bad("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n"),
    bad("no HTTP", b"hello\r\n\r\n"),
]


def broken(name: str, chunks: bytes, status: int = 400, *, nginx: str = "") -> Case:
    """A body whose chunks are wrong: what was right of it may be on its way, but it never gets to its end."""
    return bad(f"chunks: {name}", post(chunks, CHUNKED), status, lines=None, nginx=nginx)


BODIES = [
    broken("a size that is no number", b"zz\r\nhi\r\n" + END),
    broken("a negative size", b"-2\r\nhi\r\n" + END),
    broken("a size with a plus", b"+2\r\nhi\r\n" + END),
    broken("a size in hex as in C", b"0x2\r\nhi\r\n" + END),
    broken("no size", b"\r\nhi\r\n" + END),
    broken("a size of 64 bits and more", b"10000000000000002\r\nhi\r\n" + END),
    broken("a size of 20 digits", b"f" * 20 + b"\r\nhi\r\n" + END),
    broken("a space before the size", b" 2\r\nhi\r\n" + END),
    broken("a space after the size", b"2 \r\nhi\r\n" + END, nginx=STRICTER),
    broken("a bare LF after the size", b"2\nhi\r\n" + END, nginx=STRICTER),
    broken("a bare CR after the size", b"2\rhi\r\n" + END),
    broken("nothing after the data", b"2\r\nhi0\r\n\r\n"),
    broken("a bare LF after the data", b"2\r\nhi\n" + END, nginx=STRICTER),
    broken("data longer than said", b"2\r\nhi there\r\n" + END),
    broken("NUL in an extension", b"2;a=\0\r\nhi\r\n" + END, nginx=STRICTER),
    broken("a bare LF in an extension", b"2;a\nhi\r\n" + END, nginx=STRICTER),
    broken("a bare LF after the last", b"2\r\nhi\r\n0\n\n", nginx=STRICTER),
    broken(
        "framing among the trailers",
        b"0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        nginx=STRICTER,
    ),
    broken("a trailer that is none", b"0\r\nno colon\r\n\r\n", nginx=STRICTER),
    bad(
        "chunks: an extension that is too long",
        post(b"2;x=" + b"y" * 2**18 + b"\r\nhi\r\n" + END, CHUNKED),
        431,
        lines=None,
        nginx=LIMITS,
    ),
    bad(
        "chunks: trailers that are too large",
        post(b"0\r\nx: " + b"y" * 2**18 + b"\r\n\r\n", CHUNKED),
        431,
        lines=None,
        nginx=LIMITS,
    ),
    bad("a body over the limit, declared", post(b"", b"Content-Length: 10000000"), 413),
    bad("a body over the limit, asked about", post(b"", b"Content-Length: 10000000", b"Expect: 100-continue"), 413),
]
MIXED = [
    Case(
        "garbage after a request",
        (get() + b"garbage\r\n\r\n",),
        (200,),
        kept=False,
        reached=(b"GET /f/x ",),
        nginx="nginx answers it, too",
    ),
    Case(
        "a body longer than declared",
        (post(b"hello there\r\n\r\n", b"Content-Length: 5"),),
        (200,),
        kept=False,
        reached=(b"POST /f/x hello",),
        nginx="nginx answers it, too",
    ),
    Case(
        "a broken body behind a good request",
        (get() + post(b"zz\r\n", CHUNKED) + SMUGGLED,),
        (200,),
        kept=False,
        reached=(b"GET /f/x ",),
        nginx="nginx answers it, too",
    ),
    Case(
        "too large behind a good request",
        (get() + field(b"X: " + b"y" * 2**17),),
        (200,),
        kept=False,
        reached=(b"GET /f/x ",),
        nginx="nginx answers it, too",
    ),
]
REFUSED = [*FRAMING, *FIELDS, *LINES, *BODIES, *MIXED]
