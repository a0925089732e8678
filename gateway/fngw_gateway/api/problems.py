"""Errors of the control API as problem documents (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from fngw.errors import FngwError, ValidationError, to_problem
from fngw.protocol import PROBLEM_TYPE, REQUEST_ID_HEADER
from fngw_gateway.proxy.problems import internal_error
from fngw_state.store import LOST
from fngw_state.writable import WritesRefused

log = logging.getLogger(__name__)


#: Headers that belong to a status.
_BY_STATUS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}
DOCS = "GET /-/docs lists all pages, and what each takes"


def respond(error: FngwError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return ``error`` as an ``application/problem+json`` answer."""
    own = _BY_STATUS.get(error.status, {})
    return JSONResponse(to_problem(error), error.status, {**own, **(headers or {})}, PROBLEM_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem document."""

    async def expected(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, FngwError)
        return respond(error)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return respond(ValidationError(f"{where}: {first['msg']}", hint=DOCS))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return respond(_refused(request, error), error.headers)

    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        what = f"{request.method} {request.url.path}"
        log.error(
            "request %s failed: %s", request.headers.get(REQUEST_ID_HEADER), what
        )  # the server adds a traceback
        return respond(internal_error(what))

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
    app.add_exception_handler(Exception, unforeseen)


def _refused(request: Request, error: HTTPException) -> FngwError:
    """Return in our words what the router refused."""
    path, status = request.url.path, error.status_code
    if status == 404:
        return FngwError(f"the gateway has no page {path}", code="not_found", status=status, hint=DOCS)
    if status == 405:
        hint = f"use {error.headers['Allow']}" if error.headers and "Allow" in error.headers else DOCS
        message = f"{path} does not take {request.method}"
        return FngwError(message, code="method_not_allowed", status=status, hint=hint)
    text = f"{request.method} {path}: {error.detail}"
    return FngwError(text, code="http_error", status=status, hint=DOCS)
