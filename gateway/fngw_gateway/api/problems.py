"""Errors of the control API as problem documents (RFC 9457)."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fngw.errors import FngwError, ValidationError, to_problem
from fngw.protocol import PROBLEM_TYPE
from fngw_state.store import LOST
from fngw_state.writable import WritesRefused

log = logging.getLogger(__name__)


def respond(error: FngwError) -> JSONResponse:
    """Return ``error`` as an ``application/problem+json`` answer."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    if error.status == 503:
        headers["Retry-After"] = "1"
    return JSONResponse(to_problem(error), error.status, headers, PROBLEM_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem document."""

    async def expected(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, FngwError)
        return respond(error)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return respond(ValidationError(f"{where}: {first['msg']}", hint="see /-/docs for what is expected"))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        text = f"{request.method} {request.url.path}: {error.detail}"
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return respond(FngwError(text, code=code, status=error.status_code, hint="see /-/docs"))

    async def redis_away(request: Request, error: Exception) -> JSONResponse:
        log.warning("redis is away: %s", error)
        text = "the gateway cannot reach Redis; nothing was changed"
        return respond(FngwError(text, code="redis_unreachable", status=503, hint="try again in a moment"))

    async def writes_refused(request: Request, error: Exception) -> JSONResponse:
        log.warning("redis takes no writes: %s", error)
        text = f"no space is left for the gateway's data; nothing was changed ({error})"
        hint = "free some space on the disk of its data directory and try again; what runs goes on"
        return respond(FngwError(text, code="disk_full", status=507, hint=hint))

    app.add_exception_handler(FngwError, expected)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    for kind in LOST:
        app.add_exception_handler(kind, redis_away)
    app.add_exception_handler(WritesRefused, writes_refused)
