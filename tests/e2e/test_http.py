"""HTTP as a client sees it, through a whole stack: routes, answers, streams, errors, the gateway's own pages."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

SITE = """
import asyncio
import datetime
import fngw
from starlette.responses import RedirectResponse, Response

@fngw.deployment(route_prefix="/site")
class Site:
    def __init__(self):
        self.events = {}
        self.progress = 0

    async def __call__(self, request):
        what = request.url.path.rpartition("/")[2]
        return await getattr(self, "get_" + what, self.get_site)(request)

    async def get_site(self, request):
        return {
            "path": request.url.path, "root": request.scope["root_path"], "method": request.method,
            "query": dict(request.query_params), "id": request.headers.get("x-request-id"),
            "forwarded": request.headers.get("x-forwarded-proto"),
            "private": [k for k in request.headers if k.startswith("fngw-")],
        }

    async def get_none(self, request): return None
    async def get_text(self, request): return "Grüße"
    async def get_bytes(self, request): return b"\\x00\\xff"
    async def get_list(self, request): return [1, 2.5, None, True, {"ü": "x"}]
    async def get_tuple(self, request): return (1, "a")
    async def get_number(self, request): return 7
    async def get_time(self, request): return {"at": datetime.datetime(2030, 1, 2, 3, 4, 5)}
    async def get_response(self, request):
        return Response("made", 201, {"x-own": "1", "server-timing": "db;dur=5"}, "text/x-own")
    async def get_redirect(self, request): return RedirectResponse("/elsewhere", 303)
    async def get_set(self, request): return {1, 2}
    async def get_boom(self, request): raise ValueError("no such thing")
    async def get_exit(self, request): raise SystemExit("out")

    async def get_generator(self, request):
        def lines():
            yield "one\\n"
            yield "two\\n"
        return lines()

    async def get_steps(self, request):
        async def steps():
            yield b"first"
            await self.event("steps").wait()
            yield b"second"
        return steps()

    async def get_release(self, request):
        self.event(request.query_params["event"]).set()

    async def get_seen(self, request):
        return self.progress

    async def get_slowly(self, request):
        async for chunk in request.stream():
            self.progress += len(chunk)
        return "all"

    async def get_digest(self, request):
        import hashlib
        digest, size = hashlib.sha256(), 0
        async for chunk in request.stream():
            digest.update(chunk)
            size += len(chunk)
        return {"sha256": digest.hexdigest(), "size": size}

    async def get_large(self, request):
        for_each = b"x" * 2**20
        async def pieces():
            for _ in range(int(request.query_params["mib"])):
                yield for_each
        return pieces()

    async def get_breaks(self, request):
        async def breaking():
            yield b"x"
            raise ValueError("in the midst")
        return breaking()

    def event(self, name):
        return self.events.setdefault(name, asyncio.Event())

@fngw.deployment(route_prefix="/sync")
def sync(request):
    if request.query_params.get("fail"):
        raise KeyError("gone")
    def lines():
        yield "a"
        yield "b"
    return lines() if request.query_params.get("stream") else request.url.path

@fngw.deployment(route_prefix="/nothing")
def nothing():
    return "no argument"
"""


@pytest.fixture
def site(stack, files) -> Iterator[httpx.Client]:
    """The three deployments above, and a client."""
    stack.fngw("deploy", "site_app.py", cwd=files({"site_app.py": SITE}))
    with stack.http as http:
        yield http


def problem(answer: httpx.Response, status: int, code: str) -> dict:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    told = answer.json()
    assert (answer.status_code, told["status"], told["code"]) == (status, status, code), told
    assert answer.headers["x-request-id"] and told["title"]
    return told


def test_paths_answers_and_errors(site, stack, wait):
    about = site.get("/site/a/b%20c", params={"q": "1"}).json()
    assert (about["path"], about["root"], about["query"]) == ("/site/a/b c", "/site", {"q": "1"})
    assert about["forwarded"] == "http" and about["private"] == []
    assert site.get("/site").json()["path"] == "/site"
    assert site.request("PROPFIND", "/site/x").json()["method"] == "PROPFIND"
    assert site.get("/sync/deep/er").text == "/sync/deep/er"
    assert site.get("/nothing").text == "no argument"

    answers(site)
    errors(site, stack, wait)
    ids_and_timing(site)


def answers(site: httpx.Client) -> None:
    """Each kind of return value."""
    expected = {
        "none": (b"", None),
        "text": ("Grüße".encode(), "text/plain; charset=utf-8"),
        "bytes": (b"\x00\xff", "application/octet-stream"),
        "list": ('[1,2.5,null,true,{"ü":"x"}]'.encode(), "application/json"),
        "tuple": (b'[1,"a"]', "application/json"),
        "number": (b"7", "application/json"),
        "time": (b'{"at":"2030-01-02T03:04:05"}', "application/json"),
        "generator": (b"one\ntwo\n", "text/plain; charset=utf-8"),
    }
    for kind, (body, content_type) in expected.items():
        got = site.get(f"/site/{kind}")
        assert (got.status_code, got.content, got.headers.get("content-type")) == (200, body, content_type), kind
    made = site.get("/site/response")
    assert (made.status_code, made.text, made.headers["x-own"]) == (201, "made", "1")
    assert made.headers["content-type"].startswith("text/x-own")
    moved = site.get("/site/redirect")
    assert (moved.status_code, moved.headers["location"]) == (303, "/elsewhere")
    assert site.get("/sync", params={"stream": "1"}).text == "ab"

    whole, head = site.get("/site/text"), site.head("/site/text")
    assert head.content == b"" and head.status_code == 200
    assert head.headers["content-length"] == whole.headers["content-length"] == "7"
    assert site.get("/site/text").text == "Grüße"  # the connection is still in step after the HEAD


def errors(site: httpx.Client, stack, wait) -> None:
    """Problem documents, and what their traceback is kept out of."""
    unknown = problem(site.get("/nowhere/at/all"), 404, "route_not_found")
    assert "/nowhere/at/all" in unknown["title"] and "/-/routes" in unknown["hint"]
    problem(site.get("/sitex"), 404, "route_not_found")  # whole segments only
    problem(site.get("/site%2Fx"), 404, "route_not_found")

    raised = problem(site.get("/site/boom"), 500, "user_exception")
    assert raised["title"] == "ValueError: no such thing"
    assert "Traceback" not in str(raised) and "site_app" not in str(raised)
    assert problem(site.get("/sync?fail=1"), 500, "user_exception")["title"] == "KeyError: 'gone'"
    assert problem(site.get("/site/exit"), 500, "user_exception")["title"] == "SystemExit: out"
    strange = problem(site.get("/site/set"), 500, "unserialisable_result")
    assert "set" in strange["title"] and "JSON" in strange["hint"]
    with pytest.raises(httpx.RemoteProtocolError):  # it was 200 already: the only honest end is a broken one
        site.get("/site/breaks")
    assert site.get("/site/text").status_code == 200

    wanted = httpx.get(f"{stack.url}/site/boom", headers={"x-request-id": "find-me-1"}, timeout=60)
    assert wanted.headers["x-request-id"] == "find-me-1"
    # An engine's log has a line a moment after it was written; one of them is of the traceback.
    parts = ("ValueError: no such thing", "find-me-1", 'raise ValueError("no such thing")')
    wait(lambda: all(part in stack.logs("Site") for part in parts), "the exception in the log")


def ids_and_timing(site: httpx.Client) -> None:
    own = site.get("/site")
    assert re.fullmatch(r"[!-~]{8,128}", own.headers["x-request-id"])
    assert own.json()["id"] == own.headers["x-request-id"] != site.get("/site").headers["x-request-id"]
    given = site.get("/site", headers={"x-request-id": "mine/1"})
    assert given.headers["x-request-id"] == given.json()["id"] == "mine/1"
    for bad in ("x" * 129, "two words"):
        replaced = site.get("/site", headers={"x-request-id": bad})
        assert replaced.headers["x-request-id"] == replaced.json()["id"] != bad
    timing = site.get("/site/response").headers.get_list("server-timing")
    assert "db;dur=5" in ",".join(timing)
    assert re.search(r"queue;dur=[\d.]+.*replica;dur=[\d.]+", ",".join(timing)) and "cold" not in str(timing)
    assert "queue;dur=" in site.get("/nowhere").headers["server-timing"]


def test_streams(site, stack):
    # The second piece is only made when the first one has arrived.
    with site.stream("GET", "/site/steps") as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"first"
        assert httpx.get(f"{stack.url}/site/release?event=steps", timeout=60).status_code == 200
        assert b"".join(pieces) == b"second"

    # The function sees the first piece before the client makes the next one.
    def seen() -> int:
        return httpx.get(f"{stack.url}/site/seen", timeout=60).json()

    def upload() -> Iterator[bytes]:
        for number in range(1, 4):
            yield b"x" * 1000
            until(lambda n=number: seen() == 1000 * n)

    assert site.post("/site/slowly", content=upload()).text == "all"

    block, count = b"0123456789abcdef" * 2**16, 48
    told = site.post("/site/digest", content=(block for _ in range(count)), timeout=100).json()
    assert told == {"sha256": hashlib.sha256(block * count).hexdigest(), "size": len(block) * count}
    with site.stream("GET", "/site/large?mib=48", timeout=100) as answer:
        assert sum(len(piece) for piece in answer.iter_raw(2**20)) == 48 * 2**20

    # Expect: 100-continue, and a client that speaks HTTP/1.0.
    assert b"100 Continue" in raw(
        stack, b"POST /site/digest HTTP/1.1", b"Content-Length: 1", b"Expect: 100-continue"
    )
    old = raw(stack, b"GET /site/generator HTTP/1.0")
    assert old.startswith(b"HTTP/1.") and old.endswith(b"one\ntwo\n") and b"chunked" not in old.lower()


def until(condition) -> None:
    """Poll, for at most 30 s."""
    pause = threading.Event()
    for _ in range(1500):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("it did not come to pass within 30 s")


def raw(stack, *lines: bytes) -> bytes:
    """Send a request as it stands; return what comes until the end, or until an interim answer."""
    where = urlsplit(stack.url)
    with socket.create_connection((where.hostname, where.port), 30) as connection:
        connection.sendall(b"\r\n".join((*lines, b"Host: x", b"", b"")))
        got = b""
        while b"100 Continue" not in got and (piece := connection.recv(65536)):
            got += piece
        return got


def test_the_longest_prefix_wins(process_stack, files):
    text = """
import fngw

def served(name, prefix):
    @fngw.deployment(name=name, route_prefix=prefix)
    def deployed(request):
        return [name, request.scope["root_path"], request.url.path]
    return deployed

root, api, v2 = served("root", "/"), served("api", "/api"), served("v2", "/api/v2")
"""
    process_stack.fngw("deploy", "prefixes.py", cwd=files({"prefixes.py": text}))
    with process_stack.http as http:
        expected = {
            "/": ["root", "", "/"],
            "/x/y": ["root", "", "/x/y"],
            "/apix": ["root", "", "/apix"],
            "/api": ["api", "/api", "/api"],
            "/api/": ["api", "/api", "/api/"],
            "/api/v1": ["api", "/api", "/api/v1"],
            "/api/v2": ["v2", "/api/v2", "/api/v2"],
            "/api/v2/x": ["v2", "/api/v2", "/api/v2/x"],
            "/api/v22": ["api", "/api", "/api/v22"],
        }
        assert {path: http.get(path).json() for path in expected} == expected
        assert http.get("/-/routes").json() == {"/": "root", "/api": "api", "/api/v2": "v2"}
        healthy = http.get("/-/healthz")
        assert healthy.status_code == 200 and http.head("/-/healthz").content == b""
        assert problem(http.get("/-/nothing"), 404, "not_found")  # the gateway's own, never the user's at "/"
        assert process_stack.fngw("delete", "v2").returncode == 0
        assert http.get("/api/v2/x").json() == ["api", "/api", "/api/v2/x"]
