"""How this installation is, for `fngw doctor`; and emptying the builder's caches."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import resource
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from redis.exceptions import RedisError

import fngw
from fngw.errors import FngwError, ValidationError
from fngw_gateway.doctor import Disk, Facts, RedisFacts, checks
from fngw_gateway.settings import GatewaySettings
from fngw_state import keys
from fngw_state.leases import Leases
from fngw_state.store import LOST, Store

if TYPE_CHECKING:
    from fngw_state.errands import Workers

router = APIRouter(tags=["upkeep"])

OWN_PYTHON = "%d.%d" % sys.version_info[:2]
#: Seconds that Redis may take to answer; then it counts as away.
REDIS_S = 5.0
#: Seconds that a builder may take to look around, and to empty the caches.
SURVEY_S, PRUNE_S = 20, 600


@router.get("/doctor")
async def doctor(request: Request, python: str = OWN_PYTHON) -> dict[str, Any]:
    """Look at everything that has to work, and at what takes space.

    ``python`` is the ``X.Y`` for which to look whether functions can be built. A check has a ``name``, a ``state``
    (``ok``, ``warning`` or ``problem``), a ``message`` and a ``hint``. ``time`` is Unix seconds.
    """
    if not re.fullmatch(r"3\.\d{1,2}", python):
        raise ValidationError(f"python: {python!r} is not a version such as 3.11")
    facts = await _facts(request.app.state.store, request.app.state.settings, python)
    found = [dataclasses.asdict(check) for check in checks(facts)]
    return {"version": fngw.__version__, "time": time.time(), "checks": found}


@router.post("/prune")
async def prune(request: Request) -> dict[str, Any]:
    """Empty the builder's caches of downloads, but for what builds under way use.

    ``freed`` is how many bytes went, ``left`` what is left of each kind. Environments, images and locks stay.
    """
    from fngw_state import errands

    answer: dict[str, Any] = await _errand(request.app.state.settings, errands.PRUNE, wait_s=PRUNE_S)
    return answer


async def _facts(store: Store, settings: GatewaySettings, python: str) -> Facts:
    usage = shutil.disk_usage(settings.layout.data)
    facts = Facts(
        python=python,
        disk=Disk(str(settings.layout.data), usage.free, usage.total),
        files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )
    try:
        async with asyncio.timeout(REDIS_S):
            redis = await _redis_facts(store, settings)
    except (*LOST, RedisError) as error:
        return dataclasses.replace(facts, redis_error=str(error) or type(error).__name__)
    facts = dataclasses.replace(facts, redis=redis)
    if not any(redis.builders[:2]):
        return facts
    return dataclasses.replace(facts, **await _survey(settings, (redis.engine or {}).get("name", ""), python))


async def _redis_facts(store: Store, settings: GatewaySettings) -> RedisFacts:
    seconds, micros = await store.redis.time()
    ahead = seconds + micros / 1e6 - time.time()
    workers = await asyncio.to_thread(_workers, settings.redis_url)
    leader, table, gateways = await store.redis.get(keys.LEADER), await store.routes(), await store.gateways()
    newest = table.generation if table else 0
    return RedisFacts(
        info=await store.redis.info(),
        ahead_s=ahead,
        leader=leader.partition("|")[0] if leader else None,
        engine=await store.engine(),
        capacity=(await Leases(store).ledger()).capacity,
        gateways=(len(gateways), sum(generation < newest for generation in gateways.values())),
        builders=(workers.idle, workers.busy, workers.waiting),
        dispatchers=workers.dispatchers,
    )


def _workers(redis_url: str) -> Workers:
    from fngw_state import builds, errands  # RQ, which they import, takes memory

    with builds.connect(redis_url) as connection:
        return errands.workers(connection)


async def _survey(settings: GatewaySettings, engine: str, python: str) -> dict[str, Any]:
    from fngw_state import errands

    try:
        return {"survey": await _errand(settings, errands.SURVEY, engine, python, wait_s=SURVEY_S)}
    except FngwError as error:
        return {"survey_error": error.message}


async def _errand(settings: GatewaySettings, errand: str, *arguments: str, wait_s: int) -> Any:
    from fngw_state import builds, errands

    def run() -> Any:
        with builds.connect(settings.redis_url) as connection:
            return errands.run(connection, errand, *arguments, wait_s=wait_s)

    return await asyncio.to_thread(run)
