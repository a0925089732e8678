"""fngw: decorate a Python function or class, deploy it, and it runs as replica containers behind HTTP.

Importing this package loads a few small modules of its own and nothing outside the standard library; the rest
is loaded when it is first asked for (tests/unit/sdk/test_import.py holds it to that).

Example:
    >>> import fngw
    >>> @fngw.deployment
    ... def hello(request):
    ...     return "Hello " + request.query_params["name"]
    >>> hello.deploy()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List

from fngw.decorators import deployment, ingress
from fngw.errors import (
    BuildFailed,
    CallNotFound,
    DeploymentFailed,
    DeploymentNotFound,
    FngwError,
    Overloaded,
    RemoteError,
    RouteConflict,
    Unauthorized,
    Unreachable,
    ValidationError,
    VersionConflict,
)

if TYPE_CHECKING:
    from fngw.batching import batch
    from fngw.refs import get
    from fngw.session import connect, get_deployment, list_deployments, shutdown
    from fngw.submitting import Call

__version__ = "0.1.0"

__all__ = [
    "BuildFailed",
    "Call",
    "CallNotFound",
    "DeploymentFailed",
    "DeploymentNotFound",
    "FngwError",
    "Overloaded",
    "RemoteError",
    "RouteConflict",
    "Unauthorized",
    "Unreachable",
    "ValidationError",
    "VersionConflict",
    "__version__",
    "batch",
    "connect",
    "deployment",
    "get",
    "get_deployment",
    "ingress",
    "list_deployments",
    "shutdown",
]

#: Names that cost more than a moment to load, and where they are. No module has the name of what it holds
#: (``fngw.batching`` holds ``batch``), as importing a submodule would put it in the function's place.
_ON_FIRST_USE = {
    "Call": "fngw.submitting",
    "batch": "fngw.batching",
    "connect": "fngw.session",
    "get": "fngw.refs",
    "get_deployment": "fngw.session",
    "list_deployments": "fngw.session",
    "shutdown": "fngw.session",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module 'fngw' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_ON_FIRST_USE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
