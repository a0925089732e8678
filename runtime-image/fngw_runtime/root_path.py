"""Where the route prefix goes in an ASGI scope, whichever Starlette the user has.

The gateway sends the whole path, and the prefix in a private header. Starlette from 0.35 on wants the whole
path in ``scope["path"]``, as the ASGI specification has it; before, it wanted the path without the prefix (and
0.33 and 0.34 route either but compose URLs the old way). Which one is here is asked of it, not of its version.
"""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import unquote_to_bytes

from fngw.protocol import ROOT_PATH_HEADER
from fngw_runtime.replies import Scope

__all__ = ["app_wants_whole_path", "has_prefix", "request_class", "starlette_wants_whole_path", "strip", "take"]

_HEADER = ROOT_PATH_HEADER.encode()


def has_prefix(scope: Scope) -> bool:
    """Whether the gateway forwards this for a user; its own requests to the replica carry no prefix.

    This, not the path, tells them apart: ``/%2D/ready`` reads ``/-/ready`` once decoded.
    """
    return any(name == _HEADER for name, _ in scope["headers"])


def take(scope: Scope) -> None:
    """Move the private header into ``root_path``; the path stays whole."""
    headers = scope["headers"]
    for index, (name, value) in enumerate(headers):
        if name == _HEADER:
            scope["root_path"] = _decoded(value) if value else ""
            scope["headers"] = [*headers[:index], *headers[index + 1 :]]
            return


def strip(scope: Scope) -> None:
    """Take the prefix off the path, for a Starlette that puts it back."""
    prefix = scope["root_path"]
    if prefix and scope["path"].startswith(prefix):
        scope["path"] = scope["path"][len(prefix) :]


def request_class() -> Any:
    """Return Starlette's ``Request``; imported only for those whose function takes one."""
    from starlette.requests import Request

    return Request


@functools.lru_cache(maxsize=None)
def starlette_wants_whole_path() -> bool:
    """Whether the installed Starlette takes the whole path besides ``root_path``."""
    scope = {
        "type": "http",
        "path": "/prefix/page",
        "root_path": "/prefix",
        "query_string": b"",
        "scheme": "http",
        "server": ("host", 80),
        "headers": [(b"host", b"host")],
    }
    return bool(request_class()(scope).url.path == "/prefix/page")


def app_wants_whole_path(app: Any) -> bool:
    """Whether an ASGI app takes the whole path: all do but an old Starlette, also under its middleware."""
    layer = app
    while layer is not None:
        if any(kind.__module__.split(".")[0] == "starlette" for kind in type(layer).__mro__):
            return starlette_wants_whole_path()
        layer = getattr(layer, "app", None)
    return True


@functools.lru_cache(maxsize=64)
def _decoded(value: bytes) -> str:
    return unquote_to_bytes(value).decode("utf-8", "replace")
