"""Requests and answers through the proxy, byte by byte."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from .conftest import Site, served, site_of
from .wire import Peer, Upstream, echo, eventually


async def test_a_request_arrives_as_it_was_sent(site: Site) -> None:
    await site.one(echo)
    answer = await site.ask("POST", "/f/%61b/../x%2Fy?q=%20&r", "X-Mine: 1\r\nX-Request-Id: abc\r\n", b"body")
    assert answer.status == 200
    seen = answer.json()
    assert seen["first"] == "POST /f/x%2Fy?q=%20&r HTTP/1.1"
    assert seen["body"] == "body"
    headers = {name: value for name, value in seen["headers"]}
    assert headers["fngw-root-path"] == "/f"
    assert headers["x-mine"] == "1"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == headers["host"] == "t"
    assert headers["x-request-id"] == "abc" == answer.get("x-request-id")
    queue, replica = answer.all("server-timing")[-1].split(", ")
    assert queue.startswith("queue;dur=")
    assert float(replica.removeprefix("replica;dur=")) > 0
    assert len(answer.all("date")) == 1


async def test_the_root_route_has_an_empty_root_path(site: Site) -> None:
    await site.one(echo, prefix="/")
    seen = (await site.ask("GET", "/any/thing")).json()
    assert ["fngw-root-path", ""] in seen["headers"]


async def test_connections_are_kept_on_both_sides(site: Site) -> None:
    upstream = await site.one(echo)
    client = await site.client()
    for _ in range(20):
        assert (await client.ask("GET", "/f")).status == 200
    assert upstream.connections == 1


async def test_private_headers_end_at_the_gateway(site: Site) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        while request := await peer.request():
            upstream.requests.append(request)
            peer.answer(b"{}", "500 Internal Server Error", "fngw-user-error: 1\r\nserver-timing: db;dur=2\r\n")

    upstream = await site.one(script)
    answer = await site.ask("GET", "/f", "fngw-root-path: /evil\r\nfngw-x: 1\r\n")
    assert answer.status == 500
    assert answer.body == b"{}"
    assert answer.get("fngw-user-error") is None
    assert answer.all("server-timing")[0] == "db;dur=2"
    assert upstream.requests[0].all("fngw-root-path") == ["/f"]
    assert upstream.requests[0].get("fngw-x") is None


# -- framing ----------------------------------------------------------------------------------------------


async def test_chunked_uploads_are_passed_on(site: Site) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        while request := await peer.request():
            assert request.get("expect") == "100-continue"
            peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            peer.answer(await peer.body(request))

    upstream = await site.one(script)
    client = await site.client()
    for _ in range(2):
        client.write(b"POST /f HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
        client.write(b"3;ext=1\r\nfgh\r\n0\r\nx-trailer: 1\r\n\r\n")
        assert (await client.answer()).body == b"abcdefgh"
    assert upstream.connections == 1


async def test_expect_is_answered_when_the_function_reads(site: Site) -> None:
    asked = asyncio.Event()

    async def script(peer: Peer, upstream: Upstream) -> None:
        request = await peer.request()
        assert request is not None
        await asked.wait()
        peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.answer(await peer.body(request))

    await site.one(script)
    client = await site.client()
    client.write(b"POST /f HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    asked.set()
    interim = await client.head()
    assert interim is not None
    assert interim.status == 100
    client.write(b"body")
    assert (await client.answer()).body == b"body"


async def test_an_early_answer_needs_no_body(site: Site) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        peer.answer(b"no thanks", "403 Forbidden")
        await peer.reader.read()

    await site.one(script)
    client = await site.client()
    client.write(b"POST /f HTTP/1.1\r\nHost: t\r\nContent-Length: 10000000\r\nExpect: 100-continue\r\n\r\n")
    answer = await client.answer()
    assert (answer.status, answer.body) == (403, b"no thanks")


@pytest.mark.parametrize("asks", [True, False])
async def test_both_directions_stream_at_once(site: Site, asks: bool) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        peer.write(b"HTTP/1.1 100 Continue\r\n\r\n" if asks else b"")
        peer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while data := await peer.chunk():
            peer.write(b"%x\r\n%b\r\n" % (len(data), data.upper()))
        peer.write(b"0\r\n\r\n")

    await site.one(script)
    client = await site.client()
    client.write(b"POST /f HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await client.head()).status == 200  # type: ignore[union-attr]
    for word in (b"one", b"two", b"three"):
        client.write(b"%x\r\n%b\r\n" % (len(word), word))
        assert await client.chunk() == word.upper()
    client.write(b"0\r\n\r\n")
    assert await client.chunk() == b""


async def test_large_bodies_arrive_whole(site: Site) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        while request := await peer.request():
            if request.get("expect"):
                peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.body = await peer.body(request)
            peer.answer(request.body)

    await site.one(script)
    client = await site.client()
    for size in (1, 65_536, 128 * 1024, 128 * 1024 + 1, 5_000_000):
        body = bytes(size % 251 for size in range(size))
        assert (await client.ask("POST", "/f", body=body)).body == body


# -- a real replica ---------------------------------------------------------------------------------------


async def test_a_replica_on_uvicorn_over_tcp_and_unix(site: Site) -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        body, more = b"", True
        while more:
            message = await receive()  # type: ignore[operator]
            body += message["body"]
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        for part in (body[: len(body) // 2], body[len(body) // 2 :]):
            await send({"type": "http.response.body", "body": part, "more_body": True})  # type: ignore[operator]
        await send({"type": "http.response.body"})  # type: ignore[operator]

    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(site.directory / "app.sock"))
    async with served(app, tcp, unix):
        for address in (f"127.0.0.1:{tcp.getsockname()[1]}", str(site.directory / "app.sock")):
            site.route(Path(address))
            for size in (0, 10, 3_000_000):
                answer = await site.ask("POST", "/f", body=b"x" * size)
                assert answer.body == b"x" * size


# -- the gateway's own ------------------------------------------------------------------------------------


async def test_own_paths(site: Site) -> None:
    await site.one(echo, prefix="/")
    routes = await site.ask("GET", "/-/routes")
    assert routes.json() == {"/": "f"}
    assert routes.get("x-request-id")
    health = await site.ask("GET", "/x/..//../-/healthz", "X-Request-Id: me\r\n")
    assert (health.status, health.json()["status"], health.get("x-request-id")) == (200, "ok", "me")
    assert (await site.ask("HEAD", "/-/healthz")).status == 200
    refused = await site.ask("POST", "/-/healthz")
    assert (refused.status, refused.get("allow")) == (405, "GET")
    for path in ("/-", "/-/", "/-/api/v1/info", "/%2d/docs"):
        answer = await site.ask("GET", path, "X-Request-Id: me\r\n")
        assert answer.body.startswith(b"api /-")
        assert answer.all("x-request-id") == ["me"]
    assert (await site.ask("GET", "/-/api/a%2Fb/../c%2Fd")).body == b"api /-/api/c%2Fd /-/api/c%2Fd"
    for path in ("//-/api", "/-%2Fcall/f", "/x/..%2F-/ready"):
        assert (await site.ask("GET", path)).json()["code"] == "route_not_found"
    assert site.upstreams[0].requests == []


async def test_an_unknown_route(site: Site) -> None:
    await site.one(echo)
    answer = await site.ask("GET", "/fx", "X-Request-Id: me\r\n")
    assert answer.status == 404
    assert answer.get("content-type") == "application/problem+json"
    assert answer.get("x-request-id") == "me"
    assert answer.get("server-timing")
    problem = answer.json()
    assert (problem["code"], problem["status"]) == ("route_not_found", 404)
    assert "/fx" in problem["title"]
    assert "/-/routes" in problem["hint"]


async def test_without_a_table_requests_are_told_to_come_back(short_dir: Path) -> None:
    async with site_of(short_dir) as site:
        answer = await site.ask("GET", "/f")
        assert (answer.status, answer.json()["code"], answer.get("retry-after")) == (503, "not_ready", "1")


# -- calls ------------------------------------------------------------------------------------------------


async def test_a_call_goes_to_the_deployment_by_its_name(site: Site) -> None:
    await site.one(echo, prefix=None)
    answer = await site.ask("POST", "/-/call/f/predict", "Authorization: Bearer x\r\n", b"frame")
    seen = answer.json()
    assert seen["first"] == "POST /-/call/predict HTTP/1.1"
    assert seen["body"] == "frame"
    assert not {"fngw-root-path", "authorization"} & {name for name, _ in seen["headers"]}


async def test_calls_to_nowhere(site: Site) -> None:
    await site.one(echo)
    answer = await site.ask("POST", "/-/call/g/m", body=b"x")
    assert (answer.status, answer.json()["code"]) == (404, "deployment_not_found")
    for path in ("/-/call/f", "/-/call/f/", "/-/call/f/m/n"):
        assert (await site.ask("POST", path)).status == 404
    refused = await site.ask("GET", "/-/call/f/m")
    assert (refused.status, refused.get("allow")) == (405, "POST")


async def test_calls_over_tcp_need_the_token(short_dir: Path) -> None:
    async with site_of(short_dir, token="secret") as site:
        await site.one(echo)
        for headers in ("", "Authorization: Bearer wrong\r\n", "Authorization: Basic secret\r\n"):
            answer = await site.ask("POST", "/-/call/f/m", headers)
            assert (answer.status, answer.json()["code"]) == (401, "unauthorized")
            assert (answer.get("www-authenticate") or "").startswith("Bearer")
        assert (await site.ask("POST", "/-/call/f/m", "Authorization: Bearer secret\r\n")).status == 200
        replica = await site.client(unix=True)
        assert (await replica.ask("POST", "/-/call/f/m")).status == 200
        assert (await site.ask("GET", "/f")).status == 200


# -- limits -----------------------------------------------------------------------------------------------


async def test_bodies_over_the_limit(short_dir: Path) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        while request := await peer.request():
            upstream.requests.append(request)
            peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            peer.answer(str(len(await peer.body(request))).encode())

    async with site_of(short_dir, max_body=300_000) as site:
        upstream = await site.one(script)
        assert (await site.ask("POST", "/f", body=b"x" * 300_000)).body == b"300000"
        declared = await site.ask("POST", "/f", body=b"x" * 300_001)
        assert (declared.status, declared.json()["code"]) == (413, "body_too_large")
        assert len(upstream.requests) == 1
        client = await site.client()
        client.write(b"POST /f HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            client.write(b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000))
        passed = await client.answer()
        assert (passed.status, passed.get("connection")) == (413, "close")
        client.write(b"0\r\n\r\n")
        assert await client.reader.read() == b""
        await eventually(lambda: upstream.ended == 1)


async def test_a_request_that_takes_too_long(site: Site) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        upstream.count += 1
        await peer.reader.read()

    upstream = await site.one(script, request_timeout_s=1.5)
    answer = await site.ask("GET", "/f")
    assert (answer.status, answer.json()["code"]) == (504, "timeout")
    assert answer.get("content-type") == "application/problem+json"
    await eventually(lambda: upstream.ended == 1)
    assert site.plane.backends["f"].in_flight == {"r0": 0}


async def test_an_answer_that_takes_too_long_is_cut_off(site: Site) -> None:
    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        peer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n")
        await peer.reader.read()

    upstream = await site.one(script, request_timeout_s=1.5)
    answer = await site.ask("GET", "/f")
    assert answer.status == 200
    assert not answer.complete
    await eventually(lambda: upstream.ended == 1)


async def test_problems_are_json(site: Site) -> None:
    site.route(prefix="/f", request_timeout_s=0.1)
    answer = await site.ask("GET", "/f")
    assert (answer.status, answer.get("retry-after")) == (503, "1")
    assert json.loads(answer.body)["code"] == "no_replicas"


async def test_a_fault_of_the_gateway_is_told_and_logged(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await site.one(echo)
    with monkeypatch.context() as patch:
        patch.setattr("fngw_gateway.proxy.headers.answer_headers", lambda *_: 1 // 0)
        answer = await site.ask("GET", "/f", "X-Request-Id: mine\r\n")
    assert (answer.status, answer.json()["code"], answer.get("x-request-id")) == (500, "internal_error", "mine")
    assert "request mine failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert (await site.ask("GET", "/f")).status == 200
