"""What revisions run from, made by the builder."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from fngw.errors import from_problem
from fngw.spec import DeploymentSpec
from fngw_controller.engines.base import Engine
from fngw_state.building import Building
from fngw_state.builds import request_for
from fngw_state.records import Artifact, BuildProgress, BuildResult
from fngw_state.store import Store

Report = Callable[[str | BuildProgress], Awaitable[None]]


class Images:
    """The artifacts of all deployments.

    Args:
        store: where results appear.
        redis_url: for RQ's own, synchronous client.
        engine: for which kind of engine to build.
    """

    def __init__(self, store: Store, redis_url: str, engine: Engine) -> None:
        self._building = Building(store, redis_url)
        self._engine = engine

    async def ensure(self, spec: DeploymentSpec, report: Report) -> tuple[Artifact, bool]:
        """Return what ``spec`` runs from and whether it was there already; build it if need be.

        Args:
            spec: the deployment.
            report: called with each line of the build's log, and with how far it is.

        Raises:
            BuildFailed: with the log's tail.
        """
        async with aclosing(self._building.follow(request_for(spec, self._engine.name))) as followed:
            async for news in followed:
                if not isinstance(news, BuildResult):
                    await report(news)
                elif news.artifact is None:
                    raise from_problem(dict(news.error or {}))
                else:
                    return dataclasses.replace(news.artifact, build=news.key), news.reused
        raise AssertionError("a build ends with a result")

    async def cancel(self, spec: DeploymentSpec) -> None:
        """Stop the build of what is wanted no more, unless another deployment waits for the same."""
        await self._building.cancel(request_for(spec, self._engine.name))

    def close(self) -> None:
        self._building.close()
