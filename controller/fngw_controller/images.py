"""Asks the builder for what a revision runs from, and waits for it.

The request goes to the RQ queue, the answer comes as a record in Redis. A builder that dies in the middle stops
its beat; then the request is queued again: builds are idempotent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fngw.errors import from_problem
from fngw.spec import DeploymentSpec
from fngw_controller.engines.base import Engine
from fngw_state import builds, keys
from fngw_state.records import Artifact, BuildRequest, BuildResult
from fngw_state.store import Store

log = logging.getLogger(__name__)

#: Between looks at the result; the build itself takes a hundred times as long.
POLL_S = 0.02
#: Between looks at whether anybody still works on it.
LIVENESS_POLL_S = 2.0

Report = Callable[[str], Awaitable[None]]


class Images:
    """The artifacts of all deployments.

    Args:
        store: where results appear.
        redis_url: for RQ's own, synchronous client.
        engine: says whether an artifact is still there, and for which kind of engine to build.
    """

    def __init__(self, store: Store, redis_url: str, engine: Engine) -> None:
        self._store = store
        self._queue = builds.connect(redis_url)
        self._engine = engine

    def request(self, spec: DeploymentSpec) -> BuildRequest:
        """What ``spec`` is to be built from."""
        kind = "process" if self._engine.name == "process" else "docker"
        return BuildRequest(kind, spec.python, spec.code.bundle, spec.conda, spec.pip, deployment=spec.name)

    async def ensure(self, spec: DeploymentSpec, report: Report) -> tuple[Artifact, bool]:
        """Return what ``spec`` runs from and whether it was there already; build it if need be.

        Args:
            spec: the deployment.
            report: called with each line of the build's log.

        Raises:
            BuildFailed: with the log's tail.
        """
        request = self.request(spec)
        key = builds.request_key(request)
        # The builder is asked even when it has answered before: it alone knows whether the base is still the same.
        await self._store.forget_build(key)
        await asyncio.to_thread(builds.ensure, self._queue, request)
        result = await self._result(request, key, report)
        if result.artifact is None:
            raise from_problem(dict(result.error or {}))
        return result.artifact, result.reused

    async def _result(self, request: BuildRequest, key: str, report: Report) -> BuildResult:
        now = asyncio.get_running_loop().time
        seen, looked = 0, now()
        while True:
            result = await self._store.build_result(key)
            seen = await self._report_lines(key, seen, report)
            if result:
                return result
            if now() - looked > LIVENESS_POLL_S:
                looked = now()
                if await asyncio.to_thread(builds.ensure, self._queue, request):
                    log.warning("build %s was lost with its builder; queued again", key)
                    seen = 0  # its log begins anew, too
            await asyncio.sleep(POLL_S)

    async def _report_lines(self, key: str, seen: int, report: Report) -> int:
        lines: list[str] = await self._store.redis.lrange(keys.BUILD_LOG + key, seen, -1)
        for line in lines:
            await report(line)
        return seen + len(lines)

    def close(self) -> None:
        self._queue.close()
