"""Lists and counts of calls: read from indexes that follow each call through all it can become, never by a scan."""

from __future__ import annotations

import asyncio

from fngw_state import keys
from fngw_state.call_counts import CallCounts, DeploymentCalls
from fngw_state.call_records import CallFailure, CallLimits, Expired, NewCall, Status
from fngw_state.call_work import CallWork, Ending, What

from .conftest import Site, eventually, indexes_agree

MANY = 10_000


def new(deployment: str = "G", **more: object) -> NewCall:
    return NewCall(deployment, "POST", f"/{deployment}", **more)  # type: ignore[arg-type]


async def accept(site: Site, deployment: str = "G", **more: object) -> str:
    return (await site.calls.accept(new(deployment, **more))).id


def work_of(site: Site, limits: CallLimits | None = None, lease_s: float = 60) -> CallWork:
    return CallWork(site.store, site.payloads, limits or site.limits, "d", lease_s)


async def claim(work: CallWork, many: int = 1) -> list[Ending]:
    """Claim calls; return how each would end well."""
    claimed = (await work.claim(keys.CALL_QUEUES, many, {"G": 1000, "H": 1000})).calls
    return [Ending(call.id, call.token, "finished", status=200) for call in claimed]


def as_(ending: Ending, what: What, delay_s: float = 0) -> Ending:
    error = CallFailure("http_500", "answered 500", attempt=1)
    return Ending(ending.id, ending.token, what, delay_s, error)


async def listed(site: Site, status: Status | None = None, deployment: str | None = None) -> list[str]:
    return [call.id for call in await site.calls.list(deployment, status)]


async def test_a_list_reads_no_more_than_it_shows(site: Site) -> None:
    ids = [accepted.id for accepted in await asyncio.gather(*(site.calls.accept(new()) for _ in range(MANY)))]
    for call_id in ids[7], ids[5000]:
        await site.calls.cancel(call_id)
    newest = sorted(set(ids) - {ids[7], ids[5000]}, reverse=True)
    await site.store.redis.config_resetstat()
    assert await listed(site, "cancelled") == sorted([ids[7], ids[5000]], reverse=True)
    assert await listed(site, "running") == []
    assert await listed(site, deployment="H") == []
    assert await listed(site, "queued", "G") == newest[:100]
    assert len(await site.calls.list(limit=1000)) == 1000
    asked = await site.store.redis.info("commandstats")
    assert asked["cmdstat_hmget"]["calls"] == 2 + 100 + 1000
    assert set(asked) <= {f"cmdstat_{name}" for name in ("zrange", "hmget", "info", "config|resetstat")}


async def test_each_step_of_a_call_is_in_the_indexes(site: Site) -> None:
    work = work_of(site)
    call_id = await accept(site, retries=1, priority="low")
    assert await listed(site, "queued") == [call_id]
    (first,) = await claim(work)
    assert (await listed(site, "running"), await listed(site, "queued")) == ([call_id], [])
    await work.end([as_(first, "retry", delay_s=60)])
    assert await listed(site, "delayed") == [call_id]
    await site.store.redis.zadd(keys.RQ_SCHEDULED + "calls-low", {call_id: 1})  # a minute later
    (second,) = await claim(work)
    await work.end([as_(second, "failed")])
    assert await listed(site, "failed", "G") == [call_id]
    await indexes_agree(site)
    await site.calls.retry(call_id)
    assert await listed(site, "queued", "G") == [call_id]
    await work.end(await claim(work))
    assert await listed(site, "finished", "G") == [call_id]
    assert await listed(site, "finished", "H") == []
    await indexes_agree(site)


async def test_a_dead_dispatchers_call_is_queued_in_the_indexes_too(site: Site) -> None:
    work = work_of(site, lease_s=0.01)
    call_id = await accept(site)
    await claim(work)
    await eventually(work.lapse, "the end of the lease")
    assert await listed(site, "queued") == [call_id]
    await indexes_agree(site)


async def test_a_forgotten_call_is_in_no_index(site: Site) -> None:
    work = work_of(site, CallLimits(result_ttl_s=0))
    for deployment in ("G", "H"):
        await accept(site, deployment)
    await site.store.redis.hset(keys.DESIRED, "H", "{}")
    await work.end(await claim(work, 2))
    assert await work.forget() == 2
    assert await listed(site) == []
    assert await site.store.redis.keys(f"{keys.CALLS_OF}*") == []
    counts = await site.calls.count()
    assert counts.ended == {"H": {"cancelled": 0, "failed": 0, "finished": 1}}, "G is no more"


async def test_an_expired_call_is_told_apart(site: Site) -> None:
    work = work_of(site, CallLimits(result_ttl_s=0))
    call_id = await accept(site)
    await work.end(await claim(work))
    await work.forget()
    assert await site.calls.get(call_id) == Expired(call_id, "finished")


async def test_calls_are_counted(site: Site) -> None:
    assert await site.calls.count() == CallCounts()
    work = work_of(site)
    for _ in range(4):
        await accept(site, retries=0)
    good, bad, stopped, _ = await claim(work, 4)
    await work.end([good, as_(bad, "failed"), as_(stopped, "cancelled")])
    told = await accept(site, "H", callback="https://example.com/")
    await site.calls.cancel(told)
    for priority in ("high", "high", "low"):
        await accept(site, "H", priority=priority)
    await accept(site, "H", delay_s=60)
    counts = await site.calls.count()
    assert counts.callbacks == 1
    assert counts.ended == {
        "G": {"cancelled": 1, "failed": 1, "finished": 1},
        "H": {"cancelled": 1, "failed": 0, "finished": 0},
    }
    none = {"high": 0, "default": 0, "low": 0}
    assert counts.deployments["G"] == DeploymentCalls(none, None, delayed=0, running=1, dead=1)
    waiting = counts.deployments["H"]
    assert (waiting.waiting, waiting.delayed) == ({"high": 2, "default": 0, "low": 1}, 1)
    assert waiting.oldest_s is not None
    assert 0 <= waiting.oldest_s < 30


async def test_counting_is_by_no_scan(site: Site) -> None:
    """What a scrape asks of Redis is by the number of deployments, not by that of calls."""
    for deployment in ("G", "H"):
        await asyncio.gather(*(site.calls.accept(new(deployment)) for _ in range(500)))
    await site.calls.count()
    await site.store.redis.config_resetstat()
    await site.calls.count()
    asked = await site.store.redis.info("commandstats")
    calls = {name: row["calls"] for name, row in asked.items() if "info" not in name and "config" not in name}
    assert sum(calls.values()) < 40, calls
