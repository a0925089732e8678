"""The corpus of requests that are served: framing, hop-by-hop headers, upgrades, targets."""

from __future__ import annotations

from .corpus import HOST, SMUGGLED, Case, get, post

__all__ = ["SERVED"]

STRICTER = "nginx is more lenient"
OWN_PATHS = "/-/ is the gateway's own"
CHUNKED = b"Transfer-Encoding: chunked"
HEAD = b"HEAD /f/x HTTP/1.1\r\n" + HOST + b"\r\n"
X = b"GET /f/x "


def chunked(rest: bytes) -> bytes:
    return post(rest, CHUNKED)


SERVED = [
    Case("two spaces before the target", (b"GET  /f/x HTTP/1.1\r\n" + HOST + b"\r\n",), reached=(X,)),
    Case(
        "RTSP is taken for HTTP/1.0",
        (b"OPTIONS /f/x RTSP/1.0\r\n" + HOST + b"\r\n",),
        kept=False,
        reached=(b"OPTIONS /f/x ",),
        nginx="nginx refuses; the parser does not tell them apart, and nothing but HTTP is passed on",
    ),
    Case("a GET", (get(),), reached=(X,), lines=1),
    Case("a HEAD", (HEAD,), methods=("HEAD",), reached=(b"HEAD /f/x ",), has=(b"content-length: 10",), lines=1),
    Case(
        "HEAD and GET in turns",
        ((HEAD + get()) * 2,),
        (200,) * 4,
        methods=("HEAD", "GET") * 2,
        reached=(b"HEAD /f/x ", X) * 2,
        lines=1,
    ),
    Case(
        "a body of declared length", (post(b"hello", b"Content-Length: 5"),), reached=(b"POST /f/x hello",), lines=1
    ),
    Case(
        "a declared body of nothing",
        (post(b"", b"Content-Length: 0"),),
        reached=(b"POST /f/x ",),
        lines=1,
        passed=(b"content-length: 0\r\n",),
    ),
    Case("a POST without a body", (post(b""),), reached=(b"POST /f/x ",), lines=1),
    Case(
        "a GET with a body",
        (b"GET /f/x HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi",),
        reached=(b"GET /f/x hi",),
        lines=1,
    ),
    Case(
        "chunks",
        (chunked(b"5\r\nhello\r\n6\r\n there\r\n0\r\n\r\n"),),
        reached=(b"POST /f/x hello there",),
        lines=1,
    ),
    Case(
        "chunks in capitals and with leading zeros",
        (chunked(b"0000A\r\n0123456789\r\n00\r\n\r\n"),),
        reached=(b"POST /f/x 0123456789",),
        lines=1,
    ),
    Case(
        "chunks, spelt Chunked",
        (post(b"2\r\nhi\r\n0\r\n\r\n", b"transfer-encoding: Chunked"),),
        reached=(b"POST /f/x hi",),
        lines=1,
    ),
    Case(
        "chunk extensions end here",
        (chunked(b'2;a=b;c="d e"\r\nhi\r\n0;z\r\n\r\n'),),
        reached=(b"POST /f/x hi",),
        held=(b"a=b", b";z"),
        lines=1,
    ),
    Case(
        "trailers end here",
        (chunked(b"2\r\nhi\r\n0\r\nX-Late: 1\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"),),
        reached=(b"POST /f/x hi",),
        held=(b"late", b"6.6.6.6"),
        lines=1,
    ),
    Case("three requests in one write", (get() * 3,), (200,) * 3, reached=(X,) * 3, lines=1),
    Case(
        "bodies and none, in one write",
        (post(b"one", b"Content-Length: 3") + get() + chunked(b"3\r\ntwo\r\n0\r\n\r\n") + get(),),
        (200,) * 4,
        reached=(b"POST /f/x one", X, b"POST /f/x two", X),
        lines=1,
    ),
    Case(
        "a body that looks like a request",
        (post(SMUGGLED, b"Content-Length: %d" % len(SMUGGLED)),),
        reached=(b"POST /f/x " + SMUGGLED,),
        lines=1,
    ),
    Case("empty lines before a request", (b"\r\n\r\n" + get(),), reached=(X,), lines=1),
    Case(
        "HTTP/1.0 is answered, and ends",
        (b"GET /f/x HTTP/1.0\r\n\r\n",),
        kept=False,
        reached=(X,),
        has=(b"connection: close",),
        lacks=(b"transfer-encoding",),
        passed=(b"host: \r\n",),
        lines=1,
    ),
    Case(
        "HTTP/1.0 with Host and keep-alive",
        (b"GET /f/x HTTP/1.0\r\nHost: t\r\nConnection: keep-alive\r\n\r\n",),
        kept=False,
        reached=(X,),
        nginx="keep-alive of HTTP/1.0 is optional",
    ),
    Case(
        "HTTP/1.0 with a body",
        (b"POST /f/x HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi",),
        kept=False,
        reached=(b"POST /f/x hi",),
        lines=1,
    ),
    Case(
        "Connection: close, and no request after it",
        (get(b"/f/x", b"Connection: close") + SMUGGLED,),
        kept=False,
        reached=(X,),
        has=(b"connection: close",),
        held=(b"connection: close",),
        lines=1,
    ),
    Case(
        "Connection: Close among others",
        (get(b"/f/x", b"Connection: x-a, Close", b"X-A: 1"),),
        kept=False,
        reached=(X,),
        held=(b"x-a",),
        lines=1,
    ),
    Case(
        "headers that occur twice pass twice",
        (get(b"/f/x", b"X-A: 1", b"Accept: a", b"X-A: 2", b"Accept: b"),),
        reached=(X,),
        passed=(b"x-a: 1\r\n", b"x-a: 2\r\n", b"accept: a\r\n", b"accept: b\r\n"),
        lines=1,
    ),
    Case(
        "what Connection names ends here",
        (get(b"/f/x", b"Connection: X-A,x-b ,", b"X-A: 1", b"X-B: 2", b"X-C: 3"),),
        reached=(X,),
        held=(b"x-a", b"x-b", b"connection"),
        passed=(b"x-c: 3",),
        lines=1,
    ),
    Case(
        "Connection cannot name what a request needs",
        (post(b"hi", b"Connection: host, content-length, x-request-id, x-forwarded-for", b"Content-Length: 2"),),
        reached=(b"POST /f/x hi",),
        passed=(b"host: t", b"x-forwarded-for: ", b"x-request-id: "),
        lines=1,
    ),
    Case(
        "hop-by-hop headers end here",
        (
            get(
                b"/f/x",
                b"Keep-Alive: timeout=9",
                b"TE: trailers",
                b"Trailer: x",
                b"Proxy-Connection: x",
                b"Proxy-Authorization: x",
                b"Upgrade: foo",
            ),
        ),
        reached=(X,),
        lines=1,
        held=(b"keep-alive", b"\r\nte:", b"trailer", b"proxy-", b"upgrade"),
    ),
    Case(
        "private headers end here",
        (get(b"/f/x", b"Fngw-Root-Path: /evil", b"FNGW-At-Capacity: 1"),),
        reached=(X,),
        held=(b"evil", b"capacity"),
        passed=(b"fngw-root-path: /f\r\n",),
        lines=1,
    ),
    Case(
        "spaces and tabs around a value",
        (get(b"/f/x", b"X-A: \t a b\t "),),
        reached=(X,),
        passed=(b"x-a: a b",),
    ),
    Case("an empty value", (get(b"/f/x", b"X-A:"),), reached=(X,), passed=(b"x-a: \r\n",)),
    Case(
        "a value beyond ASCII",
        (get(b"/f/x", b"X-A: \xc3\xa9\xff"),),
        reached=(X,),
        passed=(b"x-a: \xc3\xa9\xff\r\n",),
    ),
    Case(
        "absolute-form: its host counts, not Host",
        (b"GET http://real:8/f/x?q HTTP/1.1\r\nHost: fake\r\n\r\n",),
        reached=(b"GET /f/x?q ",),
        passed=(b"host: real:8\r\n", b"x-forwarded-host: real:8\r\n"),
        held=(b"fake",),
    ),
    Case("absolute-form without a path", (b"GET http://real HTTP/1.1\r\nHost: real\r\n\r\n",), (404,)),
    Case("an empty Host", (b"GET /f/x HTTP/1.1\r\nHost:\r\n\r\n",), reached=(X,), nginx=STRICTER),
    Case("a fragment ends here", (get(b"/f/x#y"),), reached=(X,)),
    Case(
        "an upgrade nobody knows is ignored",
        (get(b"/f/x", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),),
        reached=(X,),
        held=(b"upgrade", b"http2-settings"),
        lacks=(b"upgrade",),
        lines=1,
    ),
    Case(
        "and so is what came with it: a body",
        (post(b"hello", b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 5"),),
        reached=(b"POST /f/x hello",),
        lines=1,
    ),
    Case(
        "chunks with an upgrade",
        (post(b"5\r\nhello\r\n0\r\n\r\n", b"Connection: Upgrade", b"Upgrade: h2c", CHUNKED),),
        reached=(b"POST /f/x hello",),
        lines=1,
    ),
    Case(
        "a body that looks like a request, with an upgrade",
        (post(SMUGGLED, b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: %d" % len(SMUGGLED)),),
        reached=(b"POST /f/x " + SMUGGLED,),
        lines=1,
    ),
    Case(
        "the requests after it",
        (get(b"/f/x", b"Connection: Upgrade", b"Upgrade: h2c") + get() * 2,),
        (200,) * 3,
        reached=(X,) * 3,
        lines=1,
    ),
    Case(
        "a WebSocket by POST is no WebSocket",
        (post(b"hi", b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 2"),),
        reached=(b"POST /f/x hi",),
        held=(b"upgrade",),
    ),
    Case(
        "a WebSocket by HTTP/1.0 is no WebSocket",
        (b"GET /f/x HTTP/1.0\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",),
        kept=False,
        reached=(X,),
        held=(b"upgrade",),
    ),
    Case(
        "a WebSocket that does not wait for its turn",
        (get() + get(b"/f/x", b"Connection: Upgrade", b"Upgrade: websocket"),),
        (200, 200),
        reached=(X, X),
        held=(b"upgrade",),
    ),
    Case(
        "Expect: the body is asked for",
        (post(b"hello", b"Content-Length: 5", b"Expect: 100-continue"),),
        reached=(b"POST /f/x hello",),
        lines=1,
    ),
    Case(
        "Expect by HTTP/1.0 is ignored",
        (b"POST /f/x HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi",),
        kept=False,
        reached=(b"POST /f/x hi",),
        lines=1,
    ),
    Case("a path with dots, resolved", (get(b"/f/a/../%2e/x"),), reached=(X,)),
    Case("a path with %2F, left alone", (get(b"/f/a%2Fb"),), reached=(b"GET /f/a%2Fb ",)),
    Case("no route", (get(b"/other"),), (404,), has=(b"content-type: application/problem+json",)),
    Case("no route for a body", (b"POST /other HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello",), (404,)),
    Case("dots towards the gateway's own", (get(b"/f/../-/healthz"),), reached=(), nginx=OWN_PATHS),
    Case("hidden dots towards it", (get(b"/f/%2e%2E/%2d/healthz"),), reached=(), nginx=OWN_PATHS),
    Case("what would only seem its own", (get(b"/-%2Fhealthz"),), (404,), nginx=OWN_PATHS),
    Case("slashes towards it", (get(b"//-/healthz"),), (404,), nginx=OWN_PATHS),
    Case("dots out of the root", (get(b"/../../f/x"),), reached=(X,), nginx="nginx refuses"),
]
