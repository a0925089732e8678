"""The same API under Ray Serve 1.x names: such a script moves by changing its import.

Example:
    >>> from fngw import serve
    >>> serve.start()
    >>> @serve.deployment(route_prefix="/hi")
    ... def hi(request):
    ...     return "hi"
    >>> hi.deploy()
"""

from __future__ import annotations

from typing import Any

from fngw.batching import batch
from fngw.decorators import deployment, ingress
from fngw.deployments import Deployment
from fngw.session import connect, get_deployment, list_deployments, shutdown

__all__ = [
    "Deployment",
    "batch",
    "connect",
    "deployment",
    "get_deployment",
    "ingress",
    "list_deployments",
    "shutdown",
    "start",
]


def start(detached: bool = False, http_options: Any = None, dedicated_cpu: bool = False, **more: Any) -> None:
    """Check that a gateway answers. fngw's own is started by ``fngw up``, outside of scripts, and outlives them:
    the arguments are accepted and mean nothing here.

    Raises:
        Unreachable: no gateway answers.
        Unauthorized: it wants a token, or another one.
    """
    connect()
