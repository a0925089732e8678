"""A Redis that takes no writes is told apart, whichever way a command goes to it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from contextlib import aclosing

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from fngw_state import watch
from fngw_state.store import LOST, connect
from fngw_state.writable import WritesRefused


async def test_what_a_full_redis_says(store):
    redis = store.redis
    await redis.set("there", "1")
    await redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(WritesRefused, match="maxmemory"):
            await redis.set("more", "1")
        with pytest.raises(WritesRefused, match="maxmemory"):
            async with redis.pipeline() as pipe:
                await pipe.set("more", "1").get("there").execute()
        with pytest.raises(WritesRefused, match="maxmemory"):
            await redis.eval("return redis.call('SET', KEYS[1], '1')", 1, "more")
        assert await redis.get("there") == "1"
    finally:
        await redis.config_set("maxmemory", "0")
    assert issubclass(WritesRefused, LOST[0])
    with pytest.raises(Exception, match="WRONGTYPE"):
        await redis.lrange("there", 0, 1)


@pytest.fixture
async def unwritable(tmp_path):
    """A Redis of this test's own that cannot save, and so refuses every write."""
    home = tmp_path / "gone"
    home.mkdir()
    words = ("--port", "0", "--unixsocket", str(tmp_path / "r.sock"), "--dir", str(home), "--save", "900 1")
    process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
    redis = connect(f"unix://{tmp_path / 'r.sock'}")
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    await redis.set("there", "1")
                    break
                except RedisConnectionError:
                    await asyncio.sleep(0.02)
            shutil.rmtree(home)
            await redis.bgsave()
            while (await redis.info("persistence"))["rdb_last_bgsave_status"] != "err":
                await asyncio.sleep(0.02)
        yield redis
    finally:
        await redis.aclose()
        process.kill()
        process.wait()


async def test_a_redis_that_refuses_even_pings_is_still_heard(unwritable: Redis, monkeypatch, caplog):
    monkeypatch.setattr(watch, "PING_EVERY_S", 0.05)
    monkeypatch.setattr(watch, "SILENT_AFTER_S", 0.5)
    with pytest.raises(WritesRefused, match="MISCONF"):
        await unwritable.ping()
    heard = watch.watch(unwritable, "news")
    async with aclosing(heard), asyncio.timeout(10):
        assert await anext(heard) is None
        pending = asyncio.ensure_future(anext(heard))
        done, _ = await asyncio.wait({pending}, timeout=2 * watch.SILENT_AFTER_S)
        assert not done, "subscribed again, although the line was good"
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
    assert not caplog.records
