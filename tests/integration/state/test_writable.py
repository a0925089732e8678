"""A Redis that takes no writes is told apart, whichever way a command goes to it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing

import pytest
import redis

from fngw_state import watch
from fngw_state.store import LOST, connect
from fngw_state.writable import WritesRefused


async def test_what_a_full_redis_says(store):
    server = store.redis
    await server.set("there", "1")
    await server.config_set("maxmemory", "1")
    try:
        with pytest.raises(WritesRefused, match="maxmemory"):
            await server.set("more", "1")
        with pytest.raises(WritesRefused, match="maxmemory"):
            async with server.pipeline() as pipe:
                await pipe.set("more", "1").get("there").execute()
        with pytest.raises(WritesRefused, match="maxmemory"):
            await server.eval("return redis.call('SET', KEYS[1], '1')", 1, "more")
        assert await server.get("there") == "1"
    finally:
        await server.config_set("maxmemory", "0")
    assert issubclass(WritesRefused, LOST[0])
    with pytest.raises(Exception, match="WRONGTYPE"):
        await server.lrange("there", 0, 1)


@pytest.fixture
def unwritable(tmp_path) -> Iterator[str]:
    """The URL of a Redis of this test's own that cannot save, and so refuses every write."""
    home, path = tmp_path / "gone", tmp_path / "r.sock"
    home.mkdir()
    words = ("--port", "0", "--unixsocket", str(path), "--dir", str(home), "--save", "900 1")
    process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(unix_socket_path=str(path), decode_responses=True) as client:
            until(lambda: path.exists() and client.set("there", "1"))
            shutil.rmtree(home)
            client.bgsave()
            until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
        yield f"unix://{path}"
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def test_a_redis_that_refuses_even_pings_is_still_heard(unwritable, monkeypatch, caplog):
    monkeypatch.setattr(watch, "PING_EVERY_S", 0.05)
    monkeypatch.setattr(watch, "SILENT_AFTER_S", 3.0)
    client = connect(unwritable)
    with pytest.raises(WritesRefused, match="MISCONF"):
        await client.ping()
    async with aclosing(watch.watch(client, "news")) as heard, asyncio.timeout(60):
        assert await anext(heard) is None
        pending = asyncio.ensure_future(anext(heard))
        done, _ = await asyncio.wait({pending}, timeout=1.3 * watch.SILENT_AFTER_S)
        assert not done, "subscribed again, although the line was good"
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
    await client.aclose()
    assert not caplog.records
