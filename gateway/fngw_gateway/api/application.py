"""Puts the control API together."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI, Request

import fngw
from fngw.protocol import API_PREFIX
from fngw_gateway.api import blobs, builds, deployments, events, logs, problems, versions
from fngw_gateway.api.access import check_access
from fngw_gateway.settings import GatewaySettings
from fngw_state.store import Store


def create_api(store: Store, settings: GatewaySettings) -> FastAPI:
    """Return the application that answers everything under ``/-/`` but the proxy's own paths.

    Args:
        store: the shared state.
        settings: the gateway's.
    """
    app = FastAPI(
        title="fngw control API",
        version=fngw.__version__,
        docs_url="/-/docs",
        openapi_url="/-/openapi.json",
        redoc_url=None,
    )
    app.state.store = store
    app.state.settings = settings
    problems.install(app)
    app.get(f"{API_PREFIX}/info", dependencies=[Depends(check_access)])(info)
    for room in (deployments, versions, events, logs, blobs, builds):
        app.include_router(room.router, prefix=API_PREFIX, dependencies=[Depends(check_access)])
    return app


async def info(request: Request) -> dict[str, Any]:
    """What this gateway is: its version, limits, and what runs its replicas."""
    settings: GatewaySettings = request.app.state.settings
    store: Store = request.app.state.store
    return {
        "version": fngw.__version__,
        "url": settings.base_url,
        "engine": await store.engine(),
        "limits": {"bundle": settings.max_bundle, "body": settings.max_body},
    }
