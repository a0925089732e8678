"""No accepted call is lost, whatever dies; and none is ended by who no longer holds it."""

from __future__ import annotations

import asyncio
import signal

import pytest
from rq.worker import Worker

from fngw_dispatcher.dispatcher import UPKEEP_AT_MOST_EVERY_S
from fngw_dispatcher.settings import DispatcherSettings
from fngw_state import keys
from fngw_state.call_records import CallFailure, CallLimits, NewCall
from fngw_state.call_work import CallWork, Ending
from fngw_state.store import LOST

from .conftest import Answer, Request, Site, eventually, indexes_agree


def new(body: bytes = b"hi", **more: object) -> NewCall:
    return NewCall("G", "POST", "/G", body=body, **more)  # type: ignore[arg-type]


async def test_a_killed_dispatchers_calls_run_again(site: Site) -> None:
    site.lease_s = 1.0

    async def behave(request: Request) -> Answer:
        if request.headers["fngw-attempt"] == "1":
            await asyncio.get_running_loop().create_future()
        return 200, {}, b"second"

    site.gateway.behave = behave
    first = await site.dispatcher()
    accepted = await site.calls.accept(new())
    await eventually(lambda: site.gateway.seen, "the first attempt")
    await site.dispatcher(call_lease_s=30)  # or it might lose its own attempt, when the machine pauses
    first.kill()
    call = await site.calls.wait(accepted.id, 60)
    assert (call.status, call.attempt, call.tries[0].code) == ("finished", 2, "dispatcher_lost")
    assert await site.store.redis.hgetall(keys.CALLS_RUNNING) == {}


def test_a_dead_dispatcher_is_noticed_within_15_seconds() -> None:
    """A lease that was renewed just before, then the others' next look: what the test above does, with the settings
    as they are. Not by the clock: how long a busy machine takes is not what is promised."""
    assert DispatcherSettings(redis_url="redis://x").call_lease_s + UPKEEP_AT_MOST_EVERY_S < 15


async def test_the_last_attempt_lost_with_its_dispatcher_is_a_dead_letter(site: Site) -> None:
    work = CallWork(site.store, site.payloads, site.limits, "dead", lease_s=0.01)
    accepted = await site.calls.accept(new(retries=0))
    (claimed,) = (await work.claim(keys.CALL_QUEUES, 1, {"G": 1})).calls
    await eventually(work.lapse, "the end of the lease")
    call = await site.calls.find(accepted.id)
    assert (call.status, call.attempt) == ("failed", 1)
    assert call.error is not None
    assert (call.error.code, call.error.attempt) == ("dispatcher_lost", 1)
    assert await work.end([Ending(claimed.id, claimed.token, "finished", status=200)]) == [False]


async def test_a_paused_dispatcher_that_wakes_overwrites_nothing(site: Site) -> None:
    site.lease_s = 1.0
    answers = {"1": asyncio.Event(), "2": asyncio.Event()}

    async def behave(request: Request) -> Answer:
        attempt = request.headers["fngw-attempt"]
        await answers[attempt].wait()
        return 200, {}, f"of attempt {attempt}".encode()

    site.gateway.behave = behave
    sleeper = await site.dispatcher()
    accepted = await site.calls.accept(new())
    await eventually(lambda: site.gateway.seen, "the first attempt")
    sleeper.send_signal(signal.SIGSTOP)
    await site.dispatcher(call_lease_s=30)  # this one must not lose its own
    await eventually(lambda: len(site.gateway.seen) == 2, "the second attempt")
    answers["1"].set()  # waits in the sleeper's socket
    await eventually(lambda: site.gateway.under_way == 1, "the first answer")
    sleeper.send_signal(signal.SIGCONT)
    await eventually(lambda: "lease was lost" in site.log, "the sleeper to be told")
    assert (await site.calls.find(accepted.id)).status == "running"
    answers["2"].set()
    call = await site.calls.wait(accepted.id, 60)
    result = await site.calls.result(accepted.id)
    assert (call.status, call.attempt) == ("finished", 2)
    assert result is not None
    assert result.body == b"of attempt 2"


async def test_only_the_holder_of_the_token_ends_or_renews_a_call(site: Site) -> None:
    accepted = await site.calls.accept(new())
    old = CallWork(site.store, site.payloads, site.limits, "old", lease_s=0.01)
    young = CallWork(site.store, site.payloads, site.limits, "young", lease_s=9)
    (first,) = (await old.claim(keys.CALL_QUEUES, 1, {"G": 1})).calls
    await eventually(young.lapse, "the end of the lease")
    (second,) = (await young.claim(keys.CALL_QUEUES, 1, {"G": 1})).calls
    assert (second.attempt, second.token) == (2, 2)
    assert await old.renew([(first.id, first.token)]) == ([first.id], [])
    error = CallFailure("x", "y")
    for what in ("finished", "failed", "cancelled", "retry", "release", "handover"):
        assert await old.end([Ending(first.id, first.token, what, error=error)]) == [False]
    assert await young.renew([(second.id, second.token)]) == ([], [])
    assert await young.end([Ending(second.id, second.token, "finished", status=200)]) == [True]
    assert (await site.calls.find(accepted.id)).error is None


async def test_calls_accepted_and_ends_written_survive_a_killed_redis(site: Site) -> None:
    site.lease_s = 2.0
    hold = asyncio.Event()

    async def behave(request: Request) -> Answer:
        await hold.wait()
        return 200, {}, request.body

    site.gateway.behave = behave
    await site.dispatcher(dispatcher_calls=10)
    accepted = [await site.calls.accept(new(b"%d" % n)) for n in range(50)]
    await eventually(lambda: len(site.gateway.seen) >= 10, "the first calls")
    site.redis.kill()
    site.redis.wait()
    with pytest.raises(LOST):
        await site.calls.accept(new())
    hold.set()  # ten answers come while there is no Redis
    await eventually(lambda: "ends wait" in site.log, "the dispatcher to notice")
    await site.start_redis()
    for n, call in enumerate(accepted):
        assert (await site.calls.wait(call.id, 60)).status == "finished"
        result = await site.calls.result(call.id)
        assert result is not None
        assert result.body == b"%d" % n


async def test_a_redis_that_was_emptied(site: Site) -> None:
    """What it knew is lost; the end of a call that ran is dropped, and new ones are made as before."""
    hold = asyncio.Event()

    async def behave(request: Request) -> Answer:
        await hold.wait()
        return 200, {}, b"ok"

    site.gateway.behave = behave
    await site.dispatcher()
    old = await site.calls.accept(new())
    await eventually(lambda: site.gateway.seen, "the request")
    await site.store.redis.flushall()
    await site.route(G=100)
    await site.store.redis.script_flush()
    hold.set()
    await eventually(lambda: f"call {old.id}: its lease was lost" in site.log, "a word of it")
    call = await site.calls.wait((await site.calls.accept(new())).id, 60)
    assert (call.status, await site.calls.get(old.id)) == ("finished", None)
    await eventually(lambda: Worker.count(connection=site.sync) == 1, "its place among RQ's workers")
    await indexes_agree(site)


@pytest.mark.slow
async def test_every_call_is_accounted_for_while_all_is_killed(site: Site) -> None:
    """Dispatchers and Redis are killed one after the other, while calls come; each call ends, and not unseen."""
    site.lease_s = 1.0
    count = 1500

    async def behave(request: Request) -> Answer | None:
        await asyncio.sleep(0.02)
        if request.body.endswith(b"7") and request.headers["fngw-attempt"] == "1":
            return None
        return 200, {}, request.body

    site.gateway.behave = behave
    dispatchers = [await site.dispatcher(), await site.dispatcher()]
    accepted: dict[str, bytes] = {}

    async def submit(n: int) -> None:
        body = b"%d" % n
        while True:  # as a caller does: 503 means that it was not taken in
            try:
                call = await site.calls.accept(new(body, retries=20, idempotency_key=str(n)))
            except LOST:
                await asyncio.sleep(0.05)
            else:
                accepted[call.id] = body
                return

    async def submit_all() -> None:
        for start in range(0, count, 50):
            await asyncio.gather(*(submit(n) for n in range(start, min(start + 50, count))))
            await asyncio.sleep(0.05)

    submitting = asyncio.create_task(submit_all())
    for n in range(3):
        await eventually(lambda: len(site.gateway.seen) > 300 * (n + 1), "progress")  # noqa: B023
        dispatchers[n % 2].kill()
        if n == 1:
            await site.restart_redis()
        dispatchers[n % 2] = await site.dispatcher()
    await submitting
    assert len(accepted) == count
    for call_id, body in accepted.items():
        call = await site.calls.wait(call_id, 30)
        assert call.status == "finished", call
        result = await site.calls.result(call_id)
        assert result is not None
        assert result.body == body
        assert site.gateway.attempts[call_id] >= 1
        seen = [r.headers["fngw-attempt"] for r in site.gateway.seen if r.headers["fngw-call-id"] == call_id]
        assert len(seen) <= call.attempt
    assert await site.store.redis.hgetall(keys.CALLS_OPEN) == {}
    assert await site.store.redis.hgetall(keys.CALLS_RUNNING) == {}
    assert await site.store.redis.zcard(keys.CALLS_LEASES) == 0
    assert (await site.calls.count()).ended["G"] == {"cancelled": 0, "failed": 0, "finished": count}
    await indexes_agree(site)


async def test_limits_hold_for_files_too(site: Site) -> None:
    """A result that finds no space fails its call, instead of filling the disk."""
    await site.dispatcher(max_call_payloads="1KiB")

    async def much(request: Request) -> Answer:
        return 200, {}, b"x" * 20_000

    site.gateway.behave = much
    call = await site.calls.wait((await site.calls.accept(new())).id, 60)
    assert call.status == "failed"
    assert call.error is not None
    assert call.error.code == "calls_full"
    assert site.limits == CallLimits()
