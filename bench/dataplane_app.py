"""What the data plane's bench deploys: one plain function per kind of request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import fngw

#: More than the bench has connections: what is measured is not the queue.
MANY = 1000
CHUNK = b"x" * 16384


@fngw.deployment(name="hello", max_concurrent_queries=MANY)
async def hello() -> str:
    return "Hello, world"


@fngw.deployment(name="json", max_concurrent_queries=MANY)
async def echo(request: Any) -> Any:
    return await request.json()


@fngw.deployment(name="body", max_concurrent_queries=MANY)
async def size(request: Any) -> str:
    return str(len(await request.body()))


@fngw.deployment(name="stream", max_concurrent_queries=MANY)
async def stream() -> AsyncIterator[bytes]:
    for _ in range(4):
        yield CHUNK


ALL = (hello, echo, size, stream)
