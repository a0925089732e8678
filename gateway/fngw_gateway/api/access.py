"""Who may use the control API."""

from __future__ import annotations

import hmac

from fastapi import Request

from fngw.errors import FngwError, Unauthorized
from fngw_gateway.settings import GatewaySettings

TOKEN_HINT = "set FNGW_TOKEN, or pass --token, with the token that the gateway was started with"


def check_access(request: Request) -> None:
    """Let a request in, or not.

    Replicas come in by the Unix socket. They may look, so that code in them can find other deployments, but not
    change anything: code in a container is not trusted with the machine.

    Raises:
        Unauthorized: a token is set, and the request has another or none.
        FngwError: a replica tries to change something (``forbidden_from_replica``).
    """
    settings: GatewaySettings = request.app.state.settings
    server = request.scope.get("server")
    if server is not None and server[1] is None:
        if request.method not in ("GET", "HEAD"):
            raise FngwError(
                "replicas may not change deployments",
                code="forbidden_from_replica",
                status=403,
                hint="deploy from outside, through the gateway's URL",
            )
        return
    if settings.token and not authorized(request.headers.get("authorization", ""), settings.token):
        raise Unauthorized("this gateway wants a token", hint=TOKEN_HINT)


def authorized(header: str, token: str) -> bool:
    """Whether an ``Authorization`` header carries the token (compared in constant time)."""
    return hmac.compare_digest(header.encode(), f"Bearer {token}".encode())
