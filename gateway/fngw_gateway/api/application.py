"""Puts the control API together."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse

import fngw
from fngw.protocol import API_PREFIX
from fngw_gateway.api import (
    blobs,
    builds,
    deployments,
    doctor,
    events,
    gpus,
    logs,
    page,
    problems,
    schedules,
    versions,
)
from fngw_gateway.api.access import check_access
from fngw_gateway.calls import pages
from fngw_gateway.settings import GatewaySettings
from fngw_state.calls import Calls
from fngw_state.store import Store

DESCRIPTION = """
How the SDK and the ``fngw`` command deploy and look. With ``FNGW_TOKEN`` set, every request wants the header
``Authorization: Bearer <token>``.

Errors are ``application/problem+json`` (RFC 9457): ``title`` says what happened, ``hint`` what to do next, and
``code`` stays the same over releases.

Beside it, without a token: ``GET /-/healthz``, ``GET /-/routes`` and ``GET /-/metrics``.
"""


def create_api(store: Store, settings: GatewaySettings, calls: Calls | None = None) -> FastAPI:
    """Return the application that answers everything under ``/-/`` but the proxy's own paths.

    Args:
        store: the shared state.
        settings: the gateway's.
        calls: those that wait; None: without their pages.
    """
    app = FastAPI(
        title="fngw control API",
        version=fngw.__version__,
        description=DESCRIPTION,
        docs_url=None,  # FastAPI's page loads its script from elsewhere
        openapi_url="/-/openapi.json",
        redoc_url=None,
    )
    app.state.store = store
    app.state.settings = settings
    problems.install(app)
    app.get("/-/docs", include_in_schema=False)(docs)
    app.get(f"{API_PREFIX}/info", dependencies=[Depends(check_access)])(info)
    for room in (deployments, versions, events, logs, blobs, builds, doctor, gpus, schedules):
        app.include_router(room.router, prefix=API_PREFIX, dependencies=[Depends(check_access)])
    if calls is not None:
        app.state.calls = calls
        app.include_router(pages.router)
    return app


async def docs(request: Request) -> HTMLResponse:
    """The page for people; ``/-/openapi.json`` is the same for programs."""
    text = page.render(request.app.openapi(), request.app.state.settings.base_url)
    return HTMLResponse(text, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"})


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
