"""Files of bodies and results: found when Redis knows nothing of them, never removed while a record names them."""

from __future__ import annotations

import time

from fngw_state import keys
from fngw_state.call_records import NewCall
from fngw_state.call_work import CallWork, Ending
from fngw_state.payloads import digest_of

from .conftest import Site, eventually

BODY = bytes(range(200)) * 100


def work_of(site: Site, name: str = "d") -> CallWork:
    return CallWork(site.store, site.payloads, site.limits, name, 60)


async def accept(site: Site, body: bytes = BODY) -> str:
    return (await site.calls.accept(NewCall("G", "POST", "/G", body=body))).id


async def an_hour_later(site: Site) -> None:
    """Have all that may go in an hour go now, and the next sweep come."""
    redis = site.store.redis
    for digest in await redis.zrange(keys.PAYLOADS_IDLE, 0, -1):
        await redis.zadd(keys.PAYLOADS_IDLE, {digest: 1})
    await redis.delete(keys.PAYLOADS_SWEPT)


async def remove(site: Site) -> int:
    return await work_of(site).remove_payloads(time.time())


def files(site: Site) -> set[str]:
    return set(site.payloads.digests())


async def test_files_of_an_emptied_redis_go_after_an_hour(site: Site) -> None:
    await accept(site)
    await site.store.redis.flushall()
    assert await work_of(site).sweep() == 1
    assert await site.store.redis.hgetall(keys.PAYLOAD_SIZES) == {digest_of(BODY): "20000", "": "20000"}
    assert await remove(site) == 0
    assert files(site) == {digest_of(BODY)}, "somebody may be about to name it"
    await an_hour_later(site)
    assert await work_of(site).sweep() == 0, "it is known by now"
    assert await remove(site) == 1
    assert files(site) == set()
    assert await site.store.redis.hgetall(keys.PAYLOAD_SIZES) == {"": "0"}


async def test_a_file_in_use_is_never_removed(site: Site) -> None:
    call_id = await accept(site)
    await an_hour_later(site)
    assert await work_of(site).sweep() == 0
    assert await remove(site) == 0
    (claimed,) = (await work_of(site).claim(keys.CALL_QUEUES, 1, {"G": 1})).calls
    assert await work_of(site).body(claimed) == BODY
    result = await site.calls.store_payload(BODY[::-1])
    assert result is not None
    end = Ending(call_id, claimed.token, "finished", status=200, digest=result, size=len(BODY))
    assert await work_of(site).end([end]) == [True]
    await an_hour_later(site)
    assert await remove(site) == 1, "the body of a call that has finished"
    assert files(site) == {result}
    kept = await site.calls.result(call_id)
    assert kept is not None
    assert kept.body == BODY[::-1]


async def test_a_file_that_a_sweep_found_can_be_named_again(site: Site) -> None:
    await accept(site)
    await site.store.redis.flushall()
    await work_of(site).sweep()
    again = await accept(site)
    await an_hour_later(site)
    assert await remove(site) == 0
    (claimed,) = (await work_of(site).claim(keys.CALL_QUEUES, 1, {"G": 1})).calls
    assert (claimed.id, await work_of(site).body(claimed)) == (again, BODY)
    assert await site.store.redis.hgetall(keys.PAYLOAD_SIZES) == {digest_of(BODY): "20000", "": "20000"}


async def test_a_file_whose_writer_died_before_its_record_goes(site: Site) -> None:
    digest = await site.calls.store_payload(BODY)
    assert await work_of(site).sweep() == 0, "its writer had said so"
    assert await remove(site) == 0
    await an_hour_later(site)
    assert await remove(site) == 1
    assert digest not in files(site)


async def test_a_file_that_was_forgotten_and_not_unlinked_is_found(site: Site) -> None:
    """A dispatcher that dies in between leaves a file of which Redis knows no more."""
    digest = await site.calls.store_payload(BODY)
    assert digest is not None
    await an_hour_later(site)
    assert await site.store.redis.zrem(keys.PAYLOADS_IDLE, digest) == 1
    await site.store.redis.delete(keys.PAYLOAD_SIZES)
    assert await work_of(site).sweep() == 1
    await an_hour_later(site)
    assert await remove(site) == 1
    assert files(site) == set()


async def test_one_of_many_dispatchers_sweeps(site: Site) -> None:
    await accept(site)
    await site.store.redis.flushall()
    assert [await work_of(site, name).sweep() for name in ("a", "b")] == [1, 0]
    assert await site.store.redis.get(keys.PAYLOADS_SWEPT) == "a"
    assert 0 < await site.store.redis.ttl(keys.PAYLOADS_SWEPT) <= keys.PAYLOADS_SWEEP_S


async def test_half_written_files_go(site: Site) -> None:
    await accept(site)
    folder = site.payloads.path(digest_of(BODY)).parent
    (folder / ".new-abc").write_bytes(b"half")
    assert files(site) == {digest_of(BODY)}
    await work_of(site).sweep()
    assert [path.name for path in folder.iterdir()] == [digest_of(BODY).removeprefix("sha256:")]


async def test_a_dispatcher_sweeps_as_it_starts(site: Site) -> None:
    await accept(site)
    await site.store.redis.flushall()
    await site.dispatcher()

    async def known() -> float | None:
        score: float | None = await site.store.redis.zscore(keys.PAYLOADS_IDLE, digest_of(BODY))
        return score

    assert await eventually(known, "the sweep") > time.time()
    await eventually(lambda: "1 files of queued calls are not known to Redis" in site.log, "a word about it")
