"""The Redis that integration tests share: a real one, in a container, one per test process.

The image is ``redis:7-alpine``; where it cannot be pulled, ``scripts/redis-image.sh`` makes it from this machine's
``redis-server``. Tests that kill or restart Redis start one of their own.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from fngw_state.store import Store, connect

# Its reaper is an image of its own, which no registry may be there for; the container is removed by `stop`.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of an empty Redis."""
    from testcontainers.community.redis import RedisContainer  # reads its settings at import

    with RedisContainer("redis:7-alpine") as container:
        yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """The state in an empty Redis."""
    store = Store(connect(redis_url))
    await store.redis.flushall()
    yield store
    await store.close()
