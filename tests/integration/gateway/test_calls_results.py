"""Calls that wait, to their end: over real sockets, with a dispatcher, and answers as functions give them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import fngw
from fngw import endpoint, protocol, transport
from fngw.endpoint import Endpoint
from fngw.handles import DeploymentHandle

from .calls_desk import Desk, desk_of, dispatching
from .conftest import RedisServer
from .wire import Message, Peer, Script, Upstream, eventually


@pytest.fixture
async def desk(short_dir: Path, redis: RedisServer) -> AsyncIterator[Desk]:
    async with desk_of(short_dir, redis) as desk, dispatching(desk, redis):
        yield desk


def says(raw: bytes, *more: bytes) -> Script:
    """A replica that gives these answers, the last one for ever, byte by byte as they are."""
    answers = [raw, *more]

    async def script(peer: Peer, upstream: Upstream) -> None:
        while (request := await peer.request()) is not None:
            upstream.requests.append(request)
            peer.write(answers.pop(0) if len(answers) > 1 else answers[0])

    return script


async def result_of(desk: Desk, script: Script, method: str = "POST") -> Message:
    """Make a call of a function, and return its result once it has ended."""
    await desk.one(script)
    asked = await desk.later(method, "/f")
    assert asked.status == 202
    call_id = str(asked.get("location"))
    ended = await desk.ask("GET", f"{call_id}?wait=20")
    assert ended.json()["ended"]
    answer: Message = await desk.ask("GET", f"{call_id}/result")
    return answer


async def test_the_function_sees_the_request_as_it_was_and_which_attempt_it_is(desk: Desk) -> None:
    body = bytes(range(256)) * 200
    asked = await desk.later("PUT", "/f/a%20b?x=1&x=2", "X-Mine: 1\r\nCookie: a=1\r\nX-Request-Id: r7\r\n", body)
    result = await desk.ask("GET", f"{asked.get('location')}/result?wait=20")
    seen = result.json()
    headers = dict(seen["headers"])
    assert seen["first"] == "PUT /f/a%20b?x=1&x=2 HTTP/1.1"
    assert seen["body"].encode("latin-1") == body
    told = {name: headers[name] for name in ("x-mine", "cookie", "x-request-id", "host", "x-forwarded-for")}
    assert told == {
        "x-mine": "1",
        "cookie": "a=1",
        "x-request-id": "r7",
        "host": "t",
        "x-forwarded-for": "127.0.0.1",
    }
    assert (headers["fngw-call-id"], headers["fngw-attempt"]) == (asked.json()["id"], "1")
    assert "prefer" not in headers


async def test_a_result_is_given_as_the_function_gave_it(desk: Desk) -> None:
    raw = (
        b"HTTP/1.1 418 I'm a teapot\r\nset-cookie: a=1; Path=/\r\nset-cookie: b=2\r\nx-y: \xe9\r\n"
        b"retry-after: 9\r\ncontent-type: text/x-tea\r\nfngw-secret: 1\r\n"
        b"connection: x-hop\r\nx-hop: 1\r\ncontent-length: 3\r\n\r\ntea"
    )
    answer = await result_of(desk, says(raw))
    assert (answer.status, answer.body, answer.all("set-cookie")) == (418, b"tea", ["a=1; Path=/", "b=2"])
    assert (answer.get("content-type"), answer.get("content-length"), answer.get("x-y")) == (
        "text/x-tea",
        "3",
        "\xe9",
    )
    assert (answer.get("fngw-call-status"), answer.get("retry-after")) == ("finished", "9")
    assert [answer.get(name) for name in ("fngw-secret", "x-hop")] == [None, None]
    assert len(answer.all("x-request-id")) == 1
    assert len(answer.all("date")) == 1


async def test_a_result_without_a_body(desk: Desk) -> None:
    client = await desk.client()
    await desk.one(says(b"HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n"))
    asked = await desk.later("DELETE", "/f")
    await desk.ask("GET", f"{asked.get('location')}?wait=20")
    answer = await client.ask("GET", f"{asked.get('location')}/result")
    assert (answer.status, answer.get("x-a"), answer.get("content-length")) == (204, "1", None)
    assert (await client.ask("GET", "/-/healthz")).status == 200  # the connection is still in step


async def test_head(desk: Desk) -> None:
    head = says(b"HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 5\r\n\r\n")
    answer = await result_of(desk, head, "HEAD")
    assert (answer.status, answer.get("x-a"), answer.get("content-length")) == (200, "1", "0")
    await desk.one(says(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"))
    asked = await desk.later("GET", "/f")
    await desk.ask("GET", f"{asked.get('location')}?wait=20")
    client = await desk.client()
    answer = await client.ask("HEAD", f"{asked.get('location')}/result")
    assert (answer.status, answer.get("content-length")) == (200, "5")
    assert (await client.ask("HEAD", str(asked.get("location")))).status == 200
    waited = await client.ask("HEAD", "/f", "Prefer: respond-async, wait=20\r\n")
    assert (waited.status, waited.get("preference-applied")) == (200, "wait=20")
    assert (await client.ask("GET", "/-/healthz")).status == 200


async def test_a_stream_becomes_a_result(desk: Desk) -> None:
    chunks = b"".join(b"4\r\nab\r\n\r\n" for _ in range(1000))
    raw = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = await result_of(desk, says(raw + chunks + b"0\r\n\r\n"))
    assert (answer.body, answer.get("content-type")) == (b"ab\r\n" * 1000, "text/event-stream")


async def test_a_stream_without_an_end_is_too_large(short_dir: Path, redis: RedisServer) -> None:
    async def endless(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        peer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            peer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await peer.writer.drain()

    limit = {"max_call_body": 100_000}
    async with desk_of(short_dir, redis, **limit) as desk, dispatching(desk, redis, **limit):
        answer = await result_of(desk, endless)
        assert (answer.status, answer.json()["code"]) == (502, "call_failed")
        assert "larger than a result may be" in answer.json()["title"]


async def test_a_4xx_is_a_result_and_a_5xx_is_tried_again(desk: Desk) -> None:
    no = says(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno")
    assert (await result_of(desk, no)).body == b"no"
    assert len(desk.upstreams[-1].requests) == 1
    bad = b"HTTP/1.1 500 Oh\r\nretry-after: 0\r\ncontent-length: 3\r\n\r\nbad"
    answer = await result_of(desk, says(bad, bad, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"))
    assert (answer.status, answer.body) == (200, b"ok")
    attempts = [request.get("fngw-attempt") for request in desk.upstreams[-1].requests]
    assert attempts == ["1", "2", "3"]


async def test_a_dead_letter_keeps_its_last_answer_and_can_be_tried_again(desk: Desk) -> None:
    bad = b"HTTP/1.1 503 Oh\r\nretry-after: 0\r\ncontent-length: 3\r\n\r\nbad"
    await desk.one(says(bad, bad, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"))
    asked = await desk.later("POST", "/f", "Fngw-Retries: 1\r\n", b"x")
    where = str(asked.get("location"))
    status = (await desk.ask("GET", f"{where}?wait=20")).json()
    assert (status["status"], status["attempts"], len(status["tries"])) == ("failed", 2, 2)
    assert status["error"]["status"] == 503
    answer = await desk.ask("GET", f"{where}/result")
    assert (answer.status, answer.body, answer.get("fngw-call-status")) == (503, b"bad", "failed")
    assert (await desk.ask("POST", f"{where}/retry")).status == 202
    answer = await desk.ask("GET", f"{where}/result?wait=20")
    assert (answer.status, answer.body) == (200, b"ok")
    status = (await desk.ask("GET", where)).json()
    assert (status["attempts"], status["allowed"]) == (3, 4)
    assert [request.body for request in desk.upstreams[-1].requests] == [b"x"] * 3


async def test_waiting_for_the_result_with_prefer(desk: Desk) -> None:
    answer = await desk.ask("POST", "/f", "Prefer: respond-async, wait=20\r\nX-Mine: 4\r\n", b"hi")
    assert (answer.status, answer.json()["body"], answer.get("preference-applied")) == (200, "hi", "wait=20")
    assert str(answer.get("content-location")).startswith("/-/calls/")
    assert answer.get("location") is None


async def test_cancelling_what_runs(desk: Desk) -> None:
    async def hold(peer: Peer, upstream: Upstream) -> None:
        request = await peer.request()
        if request is not None:
            upstream.requests.append(request)
            await peer.request()  # until the connection ends

    holder = await desk.one(hold)
    asked = await desk.later("POST", "/f")
    await eventually(lambda: holder.requests)
    cancelled = (await desk.ask("DELETE", str(asked.get("location")))).json()
    assert (cancelled["status"], cancelled["cancelling"]) in (("running", True), ("cancelled", False))
    ended = (await desk.ask("GET", f"{asked.get('location')}?wait=20")).json()
    assert ended["status"] == "cancelled"
    await eventually(lambda: holder.ended == holder.connections)


# -- from Python ------------------------------------------------------------------------------------------


async def answering(peer: Peer, upstream: Upstream) -> None:
    """A replica that knows calls by handle."""
    while (request := await peer.request()) is not None:
        upstream.requests.append(request)
        args, kwargs = protocol.decode_frame(bytearray(request.body))
        if args == ("fail",):
            told = {"type": "LookupError", "message": "nothing there", "traceback": "", "cause": None, "code": ""}
            frame, kind, status = protocol.encode_frame(told), protocol.ERROR_TYPE, "500 Oh"
        else:
            frame, kind, status = protocol.encode_frame((args, kwargs)), protocol.RESULT_TYPE, "200 OK"
        peer.answer(b"".join(frame), status, f"content-type: {kind}\r\nretry-after: 0\r\n")


@pytest.fixture
async def handle(desk: Desk) -> AsyncIterator[DeploymentHandle]:
    await desk.one(answering)
    endpoint.choose(Endpoint(f"http://127.0.0.1:{desk.port}"))
    yield DeploymentHandle("f")
    await asyncio.to_thread(transport.close)
    endpoint.choose(None)


def in_thread(work: Any, *args: Any, **kwargs: Any) -> Any:
    return asyncio.to_thread(work, *args, **kwargs)


async def test_submit_and_result(desk: Desk, handle: DeploymentHandle) -> None:
    call = await in_thread(handle.submit, 1, [2], key="x")
    assert await in_thread(call.result, 20) == ((1, [2]), {"key": "x"})
    assert await in_thread(call.status) == "finished"
    assert await fngw.Call.from_id(call.id) == ((1, [2]), {"key": "x"})
    assert (await in_thread(call.info))["target"] == "/-/call/f/__call__"
    assert not await in_thread(call.cancel)


async def test_a_ref_among_the_arguments_arrives_as_its_value(handle: DeploymentHandle) -> None:
    ref = handle.remote("first")
    call = await in_thread(handle.method.submit, ref)
    assert await in_thread(call.result, 20) == (((("first",), {}),), {})


async def test_a_remote_error_is_raised_after_the_last_attempt(desk: Desk, handle: DeploymentHandle) -> None:
    call = await in_thread(handle.options(retries=1).submit, "fail")
    with pytest.raises(fngw.RemoteError, match="LookupError: nothing there"):
        await in_thread(call.result, 20)
    assert [r.get("fngw-attempt") for r in desk.upstreams[-1].requests] == ["1", "2"]
    await in_thread(call.retry)
    with pytest.raises(fngw.RemoteError):
        await call


async def test_wishes_of_a_handle(desk: Desk, handle: DeploymentHandle) -> None:
    wishing = handle.options(delay_s=60, priority="low", idempotency_key="once")
    call, again = await in_thread(wishing.submit, 1), await in_thread(wishing.submit, 1)
    assert call == again
    info = await in_thread(call.info)
    assert (info["status"], info["priority"]) == ("delayed", "low")
    with pytest.raises(TimeoutError, match=call.id):
        await in_thread(call.result, 0.2)
    assert await in_thread(call.cancel)
    with pytest.raises(fngw.FngwError) as caught:
        await in_thread(call.result, 5)
    assert caught.value.code == "call_cancelled"
    with pytest.raises(fngw.ValidationError, match="Fngw-Retries"):
        await in_thread(handle.options(retries=50).submit, 1)


async def test_calls_that_there_are_not(handle: DeploymentHandle) -> None:
    with pytest.raises(fngw.CallNotFound):
        await in_thread(fngw.Call.from_id("01KAQ7V2M4ZJ0C3S9W8X5T6RNE").result, 5)
    with pytest.raises(fngw.CallNotFound):
        await in_thread(fngw.Call.from_id("../x").status)
    with pytest.raises(fngw.DeploymentNotFound):
        await in_thread(DeploymentHandle("nobody").submit)
    with pytest.raises(TypeError):
        fngw.Call.from_id(5)  # type: ignore[arg-type]


async def test_the_result_of_a_call_by_http(desk: Desk, handle: DeploymentHandle) -> None:
    for kind, body, value in (
        ("application/json; charset=utf-8", b'{"a": 1}', {"a": 1}),
        ("text/plain; charset=utf-8", "ä".encode(), "ä"),
        ("image/png", b"\x89", b"\x89"),
    ):
        raw = f"HTTP/1.1 202 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        await desk.one(says(raw))
        asked = await desk.later("POST", "/f")
        assert await fngw.Call.from_id(asked.json()["id"]) == value
    await desk.one(says(b"HTTP/1.1 403 No\r\ncontent-length: 4\r\n\r\nnope"))
    asked = await desk.later("POST", "/f")
    with pytest.raises(fngw.RemoteError, match="403: nope") as caught:
        await fngw.Call.from_id(asked.json()["id"])
    assert (caught.value.code, caught.value.status) == ("answered_error", 403)
