"""Calls that wait, over real sockets: how they are taken in, looked at, and answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fngw import protocol
from fngw_state.payloads import Payloads

from .calls_desk import LATER, Desk, desk_of
from .conftest import RedisServer
from .wire import eventually, samples


@pytest.fixture
async def desk(short_dir: Path, redis: RedisServer) -> AsyncIterator[Desk]:
    async with desk_of(short_dir, redis) as desk:
        yield desk


# -- taken in ---------------------------------------------------------------------------------------------


async def test_a_call_is_taken_in_and_can_be_looked_at(desk: Desk) -> None:
    answer = await desk.later(
        "POST", "/f/a%20b/../c?x=1&y=%2F", "X-Request-Id: r1\r\nX-Mine: 5\r\n", b"\0\xff body"
    )
    assert (answer.status, answer.get("preference-applied"), answer.get("x-request-id")) == (
        202,
        "respond-async",
        "r1",
    )
    call_id = answer.json()["id"]
    assert answer.json() == {"id": call_id, "status": "queued"}
    assert (answer.get("location"), answer.get("fngw-call-status")) == (f"/-/calls/{call_id}", "queued")
    assert "accept;dur=" in str(answer.get("server-timing"))
    status = (await desk.ask("GET", str(answer.get("location")))).json()
    expected = {"id": call_id, "status": "queued", "deployment": "f", "method": "POST", "attempts": 0, "retries": 3}
    assert {k: status[k] for k in expected} == expected
    assert status["target"] == "/f/c?x=1&y=%2F"
    assert desk.upstreams[0].requests == []
    record = await desk.stored(call_id)
    assert record["body"].encode("latin-1") == b"\0\xff body"


async def test_headers_are_replayed_but_for_those_of_the_connection_and_of_the_call(desk: Desk) -> None:
    sent = (
        "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nExpect: \r\n"
        "Fngw-Retries: 2\r\nFngw-Call-Id: forged\r\nFngw-Anything: 1\r\nAuthorization: Basic eA==\r\n"
        "X-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Host: evil\r\nAccept: text/plain\r\nCookie: a=1\r\n"
        "X-Twice: 1\r\nX-Twice: 2\r\nIdempotency-Key: k\r\nPrefer: return=minimal; x=y\r\nX-Request-Id: r2\r\n"
    )
    answer = await desk.later("GET", "/f", sent)
    record = await desk.stored(answer.json()["id"])
    assert sorted(map(tuple, record["headers"])) == sorted(
        [
            ("accept", "text/plain"),
            ("authorization", "Basic eA=="),
            ("cookie", "a=1"),
            ("host", "t"),
            ("idempotency-key", "k"),
            ("prefer", "return=minimal; x=y"),
            ("x-forwarded-for", "10.9.9.9, 127.0.0.1"),
            ("x-request-id", "r2"),
            ("x-twice", "1"),
            ("x-twice", "2"),
        ]
    )
    assert record["retries"] == "2"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_any_method_can_wait(desk: Desk, method: str) -> None:
    client = await desk.client()
    answer = await client.ask(method, "/f", LATER)
    assert answer.status == 202
    call_id = str(answer.get("location")).rpartition("/")[2]
    assert (await desk.calls.find(call_id)).method == method


async def test_chunked_and_large_bodies_are_kept_as_they_are(desk: Desk) -> None:
    body = bytes(range(256)) * 1024
    client = await desk.client()
    client.write(f"POST /f HTTP/1.1\r\nHost: t\r\n{LATER}Transfer-Encoding: chunked\r\n\r\n".encode())
    for start in range(0, len(body), 65536):
        client.write(b"10000\r\n" + body[start : start + 65536] + b"\r\n")
    client.write(b"0\r\n\r\n")
    answer = await client.answer()
    record = await desk.stored(answer.json()["id"])
    assert Payloads(desk.directory / "payloads").read(record["body_digest"]) == body


async def test_a_call_by_handle_waits_as_well(desk: Desk) -> None:
    frame = b"".join(protocol.encode_frame(((1,), {})))
    answer = await desk.later("POST", "/-/call/f/predict", "Authorization: Bearer x\r\n", frame)
    record = await desk.stored(answer.json()["id"])
    assert (record["target"], record["deployment"]) == ("/-/call/f/predict", "f")
    assert "authorization" not in dict(record["headers"])


async def test_a_request_that_prefers_nothing_of_ours_is_answered_at_once(desk: Desk) -> None:
    for prefer in ("wait=10", "return=minimal", 'note="respond-async"', "handling=lenient, wait=1"):
        answer = await desk.ask("GET", "/f", f"Prefer: {prefer}\r\n")
        assert answer.status == 200
        assert ["prefer", prefer] in answer.json()["headers"]


async def test_the_dispatcher_tells_the_function_of_its_call_and_nobody_else_can(desk: Desk) -> None:
    told = "Fngw-Call-Id: c1\r\nFngw-Attempt: 2\r\nX-Forwarded-For: 1.2.3.4\r\n"
    client = await desk.client(unix=True)
    seen = {name: value for name, value in (await client.ask("GET", "/f", told)).json()["headers"]}
    assert (seen["fngw-call-id"], seen["fngw-attempt"], seen["x-forwarded-for"]) == ("c1", "2", "1.2.3.4")
    seen = {name: value for name, value in (await desk.ask("GET", "/f", told)).json()["headers"]}
    assert "fngw-call-id" not in seen
    assert "fngw-attempt" not in seen


# -- refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ("Prefer: respond-async, wait=soon\r\n", 400, "prefer_invalid"),
        ("Prefer: respond-async=1\r\n", 400, "prefer_invalid"),
        (LATER + "Fngw-Retries: 21\r\n", 400, "call_option_invalid"),
        (LATER + "Fngw-Delay: soon\r\n", 400, "call_option_invalid"),
        (LATER + "Fngw-Priority: urgent\r\n", 400, "call_option_invalid"),
        (LATER + "Idempotency-Key: \r\n", 400, "call_option_invalid"),
        (LATER + "Fngw-Callback-Url: http://127.0.0.1:9/\r\n", 422, "callback_refused"),
        (LATER + "Fngw-Callback-Url: http://169.254.169.254/\r\n", 422, "callback_refused"),
        (LATER + "Fngw-Callback-Url: http://[::ffff:10.0.0.1]/\r\n", 422, "callback_refused"),
        (LATER + "Fngw-Callback-Url: http://localhost/\r\n", 422, "callback_refused"),
        (LATER + "Fngw-Callback-Url: gopher://x\r\n", 422, "callback_invalid"),
        (LATER + "Fngw-Callback-Url: http://no-such-host.invalid/\r\n", 422, "callback_unresolved"),
    ],
)
async def test_what_cannot_be_meant_is_refused(desk: Desk, headers: str, status: int, code: str) -> None:
    answer = await desk.ask("POST", "/f", headers, b"x")
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert answer.json()["hint"]
    assert answer.get("x-request-id")
    assert await desk.open() == 0


async def test_a_callback_to_a_network_that_is_allowed(short_dir: Path, redis: RedisServer) -> None:
    async with desk_of(short_dir, redis, callback_allow="127.0.0.0/8") as desk:
        answer = await desk.later("POST", "/f", "Fngw-Callback-Url: http://127.0.0.1:9/done\r\n")
        status = (await desk.ask("GET", str(answer.get("location")))).json()
        assert status["callback"] == {"url": "http://127.0.0.1:9/done", "id": None}


async def test_what_has_no_route_is_not_taken_in(desk: Desk) -> None:
    assert (await desk.later("GET", "/nobody")).json()["code"] == "route_not_found"
    assert (await desk.later("POST", "/-/call/nobody/x")).json()["code"] == "deployment_not_found"


async def test_a_body_over_the_limit(short_dir: Path, redis: RedisServer) -> None:
    async with desk_of(short_dir, redis, max_call_body=1000) as desk:
        declared = await desk.client()
        declared.write(f"POST /f HTTP/1.1\r\nHost: t\r\n{LATER}Content-Length: 1001\r\n\r\n".encode())
        answer = await declared.answer()  # none of the body was sent
        assert (answer.status, answer.json()["code"]) == (413, "body_too_large")
        assert "FNGW_MAX_CALL_BODY" in answer.json()["hint"]
        chunked = await desk.client()
        chunked.write(f"POST /f HTTP/1.1\r\nHost: t\r\n{LATER}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunked.write(b"3e9\r\n" + b"x" * 1001 + b"\r\n")
        assert (await chunked.answer()).status == 413
        assert (await desk.later("POST", "/f", body=b"x" * 1000)).status == 202
        assert await desk.open() == 1


async def test_a_full_queue(short_dir: Path, redis: RedisServer) -> None:
    async with desk_of(short_dir, redis, max_queued_calls=2) as desk:
        assert [(await desk.later("GET", "/f")).status for _ in range(2)] == [202, 202]
        answer = await desk.later("GET", "/f")
        assert (answer.status, answer.json()["code"]) == (429, "calls_full")
        assert int(answer.get("retry-after") or 0) >= 1


async def test_a_client_that_leaves_before_its_body_is_here_made_no_call(desk: Desk) -> None:
    client = await desk.client()
    client.write(f"POST /f HTTP/1.1\r\nHost: t\r\n{LATER}Content-Length: 10\r\n\r\nhalf".encode())
    await client.writer.drain()
    client.abort()
    assert (await desk.later("GET", "/f")).status == 202
    assert await desk.open() == 1


async def test_redis_down(desk: Desk, redis: RedisServer) -> None:
    kept = (await desk.later("GET", "/f")).json()["id"]
    await redis.kill()
    answer = await desk.later("POST", "/f", body=b"x")
    assert (answer.status, answer.json()["code"], answer.get("retry-after")) == (503, "calls_unavailable", "1")
    looked = await desk.ask("GET", f"/-/calls/{kept}")
    assert (looked.status, looked.json()["code"], looked.get("retry-after")) == (503, "redis_unreachable", "1")
    assert (await desk.ask("GET", "/f")).status == 200


# -- idempotency ------------------------------------------------------------------------------------------


async def test_an_idempotency_key_names_one_call(desk: Desk) -> None:
    first, again = [await desk.later("POST", "/f", "Idempotency-Key: k1\r\n", b"a") for _ in range(2)]
    assert first.json()["id"] == again.json()["id"]
    other = await desk.later("POST", "/f", "Idempotency-Key: k1\r\n", b"b")
    assert (other.status, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (await desk.later("POST", "/f", "Idempotency-Key: k2\r\n", b"b")).status == 202
    assert await desk.open() == 2


async def test_the_same_key_from_many_at_once_is_one_call(desk: Desk) -> None:
    asked = [desk.later("POST", "/f", "Idempotency-Key: same\r\n", b"a") for _ in range(20)]
    assert len({answer.json()["id"] for answer in await asyncio.gather(*asked)}) == 1
    assert await desk.open() == 1


# -- looking, cancelling, listing -------------------------------------------------------------------------


async def test_an_unknown_call(desk: Desk) -> None:
    for path in (
        "/-/calls/nonsense",
        "/-/calls/01KAQ7V2M4ZJ0C3S9W8X5T6RNE",
        "/-/calls/01KAQ7V2M4ZJ0C3S9W8X5T6RNE/result",
    ):
        answer = await desk.ask("GET", path)
        assert (answer.status, answer.json()["code"]) == (404, "call_not_found")
    assert (await desk.ask("DELETE", "/-/calls/01KAQ7V2M4ZJ0C3S9W8X5T6RNE")).status == 404
    assert (await desk.ask("POST", "/-/calls/01KAQ7V2M4ZJ0C3S9W8X5T6RNE/retry")).status == 404


async def test_an_expired_call(desk: Desk) -> None:
    gone = "01KAQ7V2M4ZJ0C3S9W8X5T6RNE"
    await desk.store.redis.set(f"{{fngw}}:call-gone:{gone}", "finished")
    for path in (f"/-/calls/{gone}", f"/-/calls/{gone}/result"):
        answer = await desk.ask("GET", path)
        assert (answer.status, answer.json()["code"]) == (410, "call_expired")


async def test_a_pending_result_is_a_202(desk: Desk) -> None:
    call_id = (await desk.later("GET", "/f")).json()["id"]
    answer = await desk.ask("GET", f"/-/calls/{call_id}/result")
    assert (answer.status, answer.json()) == (202, {"id": call_id, "status": "queued"})
    assert (answer.get("location"), answer.get("fngw-call-status")) == (f"/-/calls/{call_id}", "queued")


async def test_a_wait_that_makes_no_sense(desk: Desk) -> None:
    call_id = (await desk.later("GET", "/f")).json()["id"]
    for wait in ("61", "-1", "x"):
        assert (await desk.ask("GET", f"/-/calls/{call_id}?wait={wait}")).status == 422


async def test_cancelling_is_idempotent(desk: Desk) -> None:
    call_id = (await desk.later("GET", "/f", "Fngw-Delay: 60\r\n")).json()["id"]
    first, again = [await desk.ask("DELETE", f"/-/calls/{call_id}") for _ in range(2)]
    assert (first.status, first.json()["status"], again.json()["status"]) == (200, "cancelled", "cancelled")
    result = await desk.ask("GET", f"/-/calls/{call_id}/result")
    assert (result.status, result.json()["code"]) == (409, "call_cancelled")
    assert await desk.open() == 0


async def test_calls_are_listed(desk: Desk) -> None:
    ids = [(await desk.later("GET", "/f", f"Fngw-Priority: {p}\r\n")).json()["id"] for p in ("low", "high")]
    await desk.ask("DELETE", f"/-/calls/{ids[0]}")
    listed = (await desk.ask("GET", "/-/calls")).json()["calls"]
    assert [(c["id"], c["priority"]) for c in listed] == [(ids[1], "high"), (ids[0], "low")]
    only = (await desk.ask("GET", "/-/calls?status=cancelled&deployment=f&limit=1")).json()["calls"]
    assert [c["id"] for c in only] == [ids[0]]
    assert (await desk.ask("GET", "/-/calls?deployment=g")).json() == {"calls": []}
    assert (await desk.ask("GET", "/-/calls?status=odd")).status == 422


async def test_calls_are_counted_for_prometheus(desk: Desk) -> None:
    bare = await desk.ask("GET", "/-/metrics")
    assert b"fngw_calls" not in bare.body
    for priority in ("low", "high", "high"):
        call_id = (await desk.later("GET", "/f", f"Fngw-Priority: {priority}\r\n")).json()["id"]
    await desk.later("GET", "/f", "Fngw-Delay: 60\r\n")
    await desk.ask("DELETE", f"/-/calls/{call_id}")
    answer = await desk.ask("GET", "/-/metrics")
    told = samples(answer)
    assert [told[f'calls_waiting{{deployment="f",priority="{p}"}}'] for p in ("high", "default", "low")] == [
        1,
        0,
        1,
    ]
    assert (told['calls_delayed{deployment="f"}'], told['calls_running{deployment="f"}']) == (1, 0)
    assert told['calls_ended_total{deployment="f",status="cancelled"}'] == 1
    assert 0 <= told['calls_oldest_waiting_seconds{deployment="f"}'] < 60
    assert told["callbacks_pending"] == 0
    for name in ("calls_waiting gauge", "calls_ended_total counter", "callbacks_pending gauge"):
        assert f"# TYPE fngw_{name}\n".encode() in answer.body


async def test_who_may_do_what(short_dir: Path, redis: RedisServer) -> None:
    async with desk_of(short_dir, redis, token="secret") as desk:
        call_id = (await desk.later("GET", "/f")).json()["id"]
        assert (await desk.later("POST", "/-/call/f/x")).status == 401
        assert (await desk.ask("GET", f"/-/calls/{call_id}")).status == 200  # who has the id may look, and cancel
        assert (await desk.ask("GET", f"/-/calls/{call_id}/result")).status == 202
        assert (await desk.ask("GET", "/-/calls")).status == 401
        assert (await desk.ask("POST", f"/-/calls/{call_id}/retry")).status == 401
        assert (await desk.ask("GET", "/-/calls", "Authorization: Bearer secret\r\n")).status == 200
        replica = await desk.client(unix=True)
        assert (await replica.ask("GET", "/-/calls")).json()["code"] == "forbidden_from_replica"
        assert (await replica.ask("POST", f"/-/calls/{call_id}/retry")).json()["code"] == "forbidden_from_replica"
        assert (await replica.ask("DELETE", f"/-/calls/{call_id}")).status == 200


async def test_only_a_failed_call_can_be_tried_again(desk: Desk) -> None:
    call_id = (await desk.later("GET", "/f")).json()["id"]
    answer = await desk.ask("POST", f"/-/calls/{call_id}/retry")
    assert (answer.status, answer.json()["code"]) == (409, "call_not_failed")


async def test_waiting_both_ways_when_nobody_does_it(desk: Desk) -> None:
    answer = await desk.ask("GET", "/f", "Prefer: respond-async, wait=1\r\n")
    assert (answer.status, answer.get("preference-applied")) == (202, "respond-async")
    asked = asyncio.create_task(desk.ask("GET", f"{answer.get('location')}?wait=30"))
    await eventually(lambda: desk.calls._ended)
    await desk.ask("DELETE", str(answer.get("location")))
    assert (await asked).json()["status"] == "cancelled"
