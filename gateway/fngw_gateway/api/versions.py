"""The versions that were rolled out, and the way back to one."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request

from fngw_gateway.api.deployments import Accepted, change, claim_blobs, find
from fngw_state import deploys
from fngw_state.deploys import Outcome
from fngw_state.history import History
from fngw_state.records import Desired
from fngw_state.store import Store

router = APIRouter(tags=["versions"])


@router.get("/deployments/{name}/versions")
async def list_versions(name: str, request: Request) -> dict[str, Any]:
    """Every version that was rolled out, newest first. ``serving`` marks the one that is wanted now."""
    store: Store = request.app.state.store
    current = (await find(store, name)).effective
    return {
        "versions": [
            {
                "number": v.number,
                "version": v.version,
                "image": v.image,
                "lock": v.lock,
                "deployed_at": v.deployed_at,
                "serving": current is not None and v.number == current.number,
            }
            for v in await History(store).versions(name)
        ]
    }


@router.post("/deployments/{name}/rollback", status_code=202)
async def rollback(name: str, request: Request, to: str | None = None) -> Accepted:
    """Deploy an earlier version again, from its image. ``to`` is a version or a number; default: the one before."""
    store: Store = request.app.state.store
    spec = deploys.rollback_spec(await find(store, name), await History(store).versions(name), to)
    claim_blobs(spec, request.app.state.settings)

    def resolve(before: Desired | None, number: int) -> tuple[Desired, Outcome]:
        return deploys.resolve(before, spec, number, time.time())

    return await change(store, name, resolve)
