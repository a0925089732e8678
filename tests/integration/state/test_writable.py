"""A Redis that takes no writes is told apart, whichever way a command goes to it."""

from __future__ import annotations

import pytest

from fngw_state.store import LOST
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
