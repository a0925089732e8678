"""Calls from acceptance to their end, by a real dispatcher and a stand-in gateway."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rq import Queue
from rq.command import send_stop_job_command
from rq.job import Job, JobStatus
from rq.worker import Worker

from fngw.errors import CallNotFound, FngwError, Overloaded, ValidationError
from fngw_state import keys
from fngw_state.call_records import Call, CallFailure, CallLimits, Expired, NewCall
from fngw_state.call_work import CallWork, Ending
from fngw_state.calls import Calls

from .conftest import Answer, Request, Site, eventually


def new(body: bytes = b"hi", deployment: str = "G", **more: object) -> NewCall:
    given = {"method": "POST", "target": f"/{deployment}/x?y=%20", "headers": (("x-a", "b"),), **more}
    return NewCall(deployment, body=body, **given)  # type: ignore[arg-type]


async def ended(site: Site, call_id: str) -> Call:
    call = await site.calls.wait(call_id, 60)
    assert call.has_ended, call
    return call


async def test_a_call_reaches_the_function_and_its_answer_is_kept(site: Site) -> None:
    await site.dispatcher()
    raw = bytes(range(256))

    async def echo(request: Request) -> Answer:
        return 201, {"content-type": "x/y", "x-method": request.method, "x-url": request.url}, request.body

    site.gateway.behave = echo
    accepted = await site.calls.accept(new(raw))
    call = await ended(site, accepted.id)
    assert (call.status, call.attempt, call.allowed, call.result_status) == ("finished", 1, 4, 201)
    result = await site.calls.result(accepted.id)
    assert result is not None
    assert result.body == raw
    assert dict(result.headers)["x-url"] == "/G/x?y=%20"
    (request,) = site.gateway.seen
    assert request.headers["x-a"] == "b"
    assert (request.headers["fngw-call-id"], request.headers["fngw-attempt"]) == (accepted.id, "1")


async def test_large_bodies_and_results_lie_in_files_until_they_expire(site: Site) -> None:
    await site.dispatcher(call_result_ttl=600, call_lease_s=1)

    async def echo(request: Request) -> Answer:
        return 200, {}, request.body[::-1]

    site.gateway.behave = echo
    body = bytes(range(256)) * 400
    accepted = await site.calls.accept(new(body))
    assert list(site.payloads.digests())
    await ended(site, accepted.id)
    result = await site.calls.result(accepted.id)
    assert result is not None
    assert result.body == body[::-1]
    assert 0 < await site.store.redis.zscore(keys.CALLS_EXPIRY, accepted.id) - time.time() <= 601
    await site.store.redis.zadd(keys.CALLS_EXPIRY, {accepted.id: 1})  # ten minutes later

    async def expired() -> bool:
        return isinstance(await site.calls.get(accepted.id), Expired)

    await eventually(expired, "expiry")
    with pytest.raises(CallNotFound) as caught:
        await site.calls.result(accepted.id)
    assert (caught.value.code, caught.value.status) == ("call_expired", 410)
    assert await site.store.redis.hgetall(keys.PAYLOADS) == {}
    await eventually(lambda: not list(site.payloads.digests()), "removal")
    assert await site.store.redis.hgetall(keys.PAYLOAD_SIZES) == {"": "0"}
    left = [k for k in await site.store.redis.keys("*") if accepted.id in k]
    assert left == [keys.CALL_GONE + accepted.id]


async def test_what_accept_refuses(site: Site) -> None:
    limits = CallLimits(max_body=1000, inline=10, max_queued=2, max_payloads=100)
    calls = Calls(site.store, site.payloads, limits)
    with pytest.raises(FngwError) as caught:
        await calls.accept(new(b"x" * 1001))
    assert (caught.value.code, caught.value.status) == ("body_too_large", 413)
    with pytest.raises(ValidationError):
        await calls.accept(new(retries=21))
    with pytest.raises(Overloaded) as full:
        await calls.accept(new(b"x" * 101))
    assert (full.value.code, full.value.status) == ("calls_full", 429)
    first = await calls.accept(new(idempotency_key="k"))
    assert await calls.accept(new(idempotency_key="k")) == type(first)(first.id, created=False)
    with pytest.raises(ValidationError) as reused:
        await calls.accept(new(b"other", idempotency_key="k"))
    assert (reused.value.code, reused.value.status) == ("idempotency_key_reused", 422)
    assert (await calls.accept(new(b"other", deployment="H", idempotency_key="k"))).created
    await calls.accept(new())
    with pytest.raises(Overloaded):
        await calls.accept(new())
    assert await calls.get("0" * 26) is None
    with pytest.raises(CallNotFound):
        await calls.cancel("nonsense")


async def test_a_4xx_is_a_result_and_a_5xx_is_tried_again(site: Site) -> None:
    await site.dispatcher()
    said = iter([(503, {"retry-after": "0"}, b"not yet"), (200, {}, b"now")])

    async def behave(request: Request) -> Answer:
        return (404, {}, b"no such thing") if request.body == b"404" else next(said)

    site.gateway.behave = behave
    no, later = await site.calls.accept(new(b"404")), await site.calls.accept(new())
    assert ((await ended(site, no.id)).status, site.gateway.attempts[no.id]) == ("finished", 1)
    call = await ended(site, later.id)
    assert (call.status, call.attempt, call.result_status) == ("finished", 2, 200)
    (failure,) = call.tries
    assert (failure.code, failure.attempt, failure.status) == ("http_503", 1, 503)


async def test_after_the_last_attempt_it_is_a_dead_letter_that_can_be_sent_again(site: Site) -> None:
    await site.dispatcher()

    async def broken(request: Request) -> Answer:
        problem = {"code": "user_exception", "title": "ValueError: no"}
        return 500, {"content-type": "application/problem+json", "retry-after": "0"}, json.dumps(problem).encode()

    site.gateway.behave = broken
    accepted = await site.calls.accept(new(b"keep me", retries=2))
    call = await ended(site, accepted.id)
    assert (call.status, call.attempt) == ("failed", 3)
    assert call.error is not None
    assert (call.error.code, call.error.message) == ("user_exception", "ValueError: no")
    assert [f.attempt for f in call.tries] == [1, 2, 3]
    site.gateway.behave = site.gateway.ok
    await site.calls.retry(accepted.id)
    call = await ended(site, accepted.id)
    assert (call.status, call.attempt, call.error) == ("finished", 4, None)
    assert site.gateway.seen[-1].body == b"keep me"
    with pytest.raises(FngwError) as caught:
        await site.calls.retry(accepted.id)
    assert (caught.value.code, caught.value.status) == ("call_not_failed", 409)


async def test_what_no_function_saw_is_no_attempt(site: Site) -> None:
    await site.dispatcher()
    waiting = {"code": "no_replicas", "title": "no replica came"}
    said: list[Answer] = [
        (503, {"content-type": "application/problem+json", "retry-after": "0"}, json.dumps(waiting).encode())
    ] * 3

    async def behave(request: Request) -> Answer:
        return said.pop() if said else (200, {}, b"at last")

    site.gateway.behave = behave
    accepted = await site.calls.accept(new(retries=0))
    call = await ended(site, accepted.id)
    assert (call.status, call.attempt) == ("finished", 1)
    assert [r.headers["fngw-attempt"] for r in site.gateway.seen] == ["1"] * 4


async def test_a_deleted_deployments_calls_fail_at_once(site: Site) -> None:
    await site.dispatcher()

    async def gone(request: Request) -> Answer:
        problem = {"code": "route_not_found", "title": "nothing is at /G"}
        return 404, {"content-type": "application/problem+json"}, json.dumps(problem).encode()

    site.gateway.behave = gone
    call = await ended(site, (await site.calls.accept(new())).id)
    assert (call.status, call.attempt) == ("failed", 1)
    assert call.error is not None
    assert call.error.code == "deployment_gone"


async def test_a_result_too_large_fails(site: Site) -> None:
    await site.dispatcher(max_call_body="20KiB")

    async def much(request: Request) -> Answer:
        return 200, {}, b"x" * 30_000

    site.gateway.behave = much
    call = await ended(site, (await site.calls.accept(new())).id)
    assert call.status == "failed"
    assert call.error is not None
    assert call.error.code == "result_too_large"


async def test_a_lost_connection_is_tried_again(site: Site) -> None:
    await site.dispatcher()

    async def behave(request: Request) -> Answer | None:
        return None if request.headers["fngw-attempt"] == "1" else (200, {}, b"")

    site.gateway.behave = behave
    call = await ended(site, (await site.calls.accept(new())).id)
    assert (call.status, call.attempt, call.tries[0].code) == ("finished", 2, "connection_lost")


@pytest.mark.parametrize("when", ["queued", "delayed", "running"])
async def test_cancel(site: Site, when: str) -> None:
    async def hang(request: Request) -> None:
        await asyncio.get_running_loop().create_future()

    site.gateway.behave = hang
    if when == "running":
        await site.dispatcher()
    accepted = await site.calls.accept(new(delay_s=60 if when == "delayed" else 0))
    if when == "running":
        (request,) = await eventually(lambda: site.gateway.seen, "the request")
    await site.calls.cancel(accepted.id)
    call = await ended(site, accepted.id)
    assert call.status == "cancelled"
    assert await site.calls.cancel(accepted.id) == call
    if when == "running":
        async with asyncio.timeout(60):
            await request.gone.wait()
    assert Job.fetch(accepted.id, connection=site.sync, serializer="json").get_status() is JobStatus.CANCELED


async def test_a_delayed_call_starts_when_it_is_due(site: Site) -> None:
    await site.dispatcher()
    later = await site.calls.accept(new(delay_s=3600))
    soon = await site.calls.accept(new(delay_s=0.3))
    call = await ended(site, soon.id)
    assert call.started is not None
    assert call.started - call.created >= 0.3
    assert (await site.calls.find(later.id)).status == "delayed"
    assert Queue("calls", connection=site.sync).scheduled_job_registry.get_job_ids() == [later.id]
    assert [request.headers["fngw-call-id"] for request in site.gateway.seen] == [soon.id]


async def test_a_backlog_takes_only_its_share_and_others_pass_it(site: Site) -> None:
    release = asyncio.Event()

    async def behave(request: Request) -> Answer:
        if request.url.startswith("/H"):
            await release.wait()
        return 200, {}, b""

    site.gateway.behave = behave
    backlog = [await site.calls.accept(new(deployment="H")) for _ in range(20)]
    other = await site.calls.accept(new(deployment="G"))
    await site.dispatcher()
    await site.dispatcher()
    assert (await ended(site, other.id)).status == "finished"
    await eventually(lambda: site.gateway.under_way == 1, "the first of the backlog")  # half of 2
    queue = Queue("calls", connection=site.sync)
    assert len(queue) + len(queue.deferred_job_registry) == 19
    cancelled = await site.calls.cancel(backlog[-1].id)
    assert cancelled.status == "cancelled"
    release.set()
    for accepted in backlog[:-1]:
        assert (await ended(site, accepted.id)).status == "finished"
    order = [r.headers["fngw-call-id"] for r in site.gateway.seen if r.url.startswith("/H")]
    assert order == [accepted.id for accepted in backlog[:-1]]
    assert site.gateway.most <= 2
    assert await site.store.redis.hgetall(keys.CALLS_RUNNING) == {}
    assert await site.store.redis.hgetall(keys.CALLS_OPEN) == {}


async def test_the_urgent_go_first_and_the_others_do_not_starve(site: Site) -> None:
    for priority in ("low", "default", "high"):
        for _ in range(36):
            await site.calls.accept(new(deployment="H", priority=priority, headers=(("p", priority),)))
    await site.dispatcher(dispatcher_calls=1)
    await eventually(lambda: len(site.gateway.seen) == 108, "all calls")
    early = [r.headers["p"] for r in site.gateway.seen[:36]]
    assert early.count("high") > early.count("default") > early.count("low") > 0


async def test_rq_shows_the_truth(site: Site) -> None:
    hold = asyncio.Event()

    async def behave(request: Request) -> Answer:
        await hold.wait()
        return (200, {}, b"") if request.body == b"good" else (500, {}, b"")

    site.gateway.behave = behave
    queued = await site.calls.accept(new(b"good"))
    bad = await site.calls.accept(new(retries=0, priority="high"))
    job = Job.fetch(queued.id, connection=site.sync, serializer="json")
    assert (job.get_status(), job.args, job.origin) == (JobStatus.QUEUED, [queued.id], "calls")
    assert job.created_at is not None
    assert abs(job.created_at.timestamp() - (await site.calls.find(queued.id)).created) < 0.001
    calls, high = Queue("calls", connection=site.sync), Queue("calls-high", connection=site.sync)
    assert (calls.job_ids, high.job_ids) == ([queued.id], [bad.id])
    dispatcher = await site.dispatcher()
    await eventually(lambda: len(site.gateway.seen) == 2, "both calls")
    assert calls.started_job_registry.get_job_ids() == [queued.id]
    (worker,) = Worker.all(connection=site.sync)
    assert worker.pid == dispatcher.pid
    (execution,) = job.get_executions()
    assert execution.worker_name == worker.name
    hold.set()
    for accepted in (queued, bad):
        await ended(site, accepted.id)
    assert calls.finished_job_registry.get_job_ids() == [queued.id]
    assert high.failed_job_registry.get_job_ids() == [bad.id]
    assert (len(calls.started_job_registry), calls.job_ids, job.get_executions()) == (0, [], [])
    failed = Job.fetch(bad.id, connection=site.sync, serializer="json").latest_result()
    assert failed is not None
    assert failed.exc_string == "http_500: answered 500"
    worker.refresh()
    assert (worker.successful_job_count, worker.failed_job_count) == (1, 1)
    spans = [Job.fetch(i.id, connection=site.sync, serializer="json") for i in (queued, bad)]
    took = sum((job.ended_at - job.started_at).total_seconds() for job in spans if job.ended_at and job.started_at)
    assert worker.total_working_time == pytest.approx(took, abs=0.001)
    high.failed_job_registry.requeue(bad.id)  # as `rq requeue` does
    await eventually(lambda: len(site.gateway.seen) == 3, "the call again")
    assert (await ended(site, bad.id)).attempt == 2


async def rq(site: Site, *words: str) -> str:
    """Run RQ's command; return what it says."""
    command = [str(Path(sys.executable).with_name("rq")), *words, "--url", site.url]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    return done.stdout


async def test_rqs_command_line_requeues(site: Site) -> None:
    async def behave(request: Request) -> Answer:
        return (200 if len(site.gateway.seen) > 1 else 500), {}, b""

    site.gateway.behave = behave
    await site.dispatcher()
    accepted = await site.calls.accept(new(retries=0))
    assert (await ended(site, accepted.id)).status == "failed"
    assert "Requeueing 1 jobs" in await rq(site, "requeue", "--queue", "calls", accepted.id)

    async def again() -> bool:
        return (await site.calls.find(accepted.id)).status == "finished"

    await eventually(again, "the second attempt")


async def test_rqs_command_line_shows_calls(site: Site) -> None:
    await site.dispatcher()
    for body in (b"1", b"2"):
        await ended(site, (await site.calls.accept(new(body))).id)
    shown = await rq(site, "info", "--raw", "calls")
    assert "queue calls 0, 0 executing, 2 finished, 0 failed" in shown
    assert "worker dispatcher-" in shown
    assert "jobs: 2 finished, 0 failed" in shown


async def test_rqs_tools_show_a_call_in_each_of_its_states(site: Site) -> None:
    """As dashboards read them, by RQ's own classes; and so they still are after `rq info`, which cleans up."""
    work = CallWork(site.store, site.payloads, site.limits, "d", 60)
    runs, parked, fails, waits = [
        (await site.calls.accept(new(deployment=name))).id for name in ("H", "H", "G", "G")
    ]
    later = (await site.calls.accept(new(delay_s=60))).id
    stopped = (await site.calls.accept(new(delay_s=60))).id
    await site.calls.cancel(stopped)
    claimed = (await work.claim(keys.CALL_QUEUES, 2, {"G": 1, "H": 1})).calls
    assert [call.id for call in claimed] == [runs, fails]
    error = CallFailure("http_500", "answered 500", attempt=1)
    assert await work.end([Ending(fails, claimed[1].token, "failed", error=error)]) == [True]
    shown = (await rq(site, "info", "--raw", "calls")).splitlines()
    assert "queue calls 1, 1 executing, 0 finished, 1 failed" in shown
    queue = Queue("calls", connection=site.sync, serializer="json")
    registries = {
        JobStatus.STARTED: (queue.started_job_registry, runs),
        JobStatus.DEFERRED: (queue.deferred_job_registry, parked),
        JobStatus.FAILED: (queue.failed_job_registry, fails),
        JobStatus.SCHEDULED: (queue.scheduled_job_registry, later),
        JobStatus.CANCELED: (queue.canceled_job_registry, stopped),
    }
    for status, (registry, call_id) in registries.items():
        assert registry.get_job_ids() == [call_id]
        job = Job.fetch(call_id, connection=site.sync, serializer="json")
        assert (job.get_status(), job.origin, job.args) == (status, "calls", [call_id])
        assert job.description.startswith(("H: POST /H", "G: POST /G"))
    assert queue.job_ids == [waits]
    assert (await site.calls.find(runs)).status == "running"


async def test_dispatchers_share_the_load(site: Site) -> None:
    hold = asyncio.Event()

    async def behave(request: Request) -> Answer:
        await hold.wait()
        return 200, {}, b""

    site.gateway.behave = behave
    accepted = [await site.calls.accept(new()) for _ in range(20)]
    processes = {(await site.dispatcher(dispatcher_calls=7)).pid for _ in range(3)}
    await eventually(lambda: site.gateway.under_way == 20, "all calls at once")
    workers = Worker.all(connection=site.sync)
    assert {worker.pid for worker in workers} == processes
    held = [site.sync.scard(f"{keys.RQ_WORKER}{worker.name}:executions") for worker in workers]
    assert sorted(held) == [6, 7, 7]
    hold.set()
    for call in accepted:
        assert (await ended(site, call.id)).attempt == 1


async def test_rqs_stop_job_cancels(site: Site) -> None:
    async def hang(request: Request) -> None:
        await asyncio.get_running_loop().create_future()

    site.gateway.behave = hang
    await site.dispatcher()
    accepted = await site.calls.accept(new())
    await eventually(lambda: site.gateway.seen, "the request")
    send_stop_job_command(site.sync, accepted.id, serializer="json")
    assert (await ended(site, accepted.id)).status == "cancelled"


async def test_a_stopping_dispatcher_hands_its_calls_over(site: Site) -> None:
    async def behave(request: Request) -> Answer:
        if len(site.gateway.seen) == 1:
            await asyncio.get_running_loop().create_future()
        return 200, {}, b""

    site.gateway.behave = behave
    first = await site.dispatcher(dispatcher_stop_timeout_s=0)
    accepted = await site.calls.accept(new(retries=0))
    await eventually(lambda: site.gateway.seen, "the request")
    first.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(first.wait, 60) == 0
    assert Worker.count(connection=site.sync) == 0
    await site.dispatcher()
    call = await ended(site, accepted.id)
    assert (call.status, call.attempt) == ("finished", 2)
