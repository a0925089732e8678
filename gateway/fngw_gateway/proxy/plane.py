"""The routing table in use, and the two ways in: requests by their route, calls by their deployment's name.

A new table becomes a new ``Routes`` and is swapped in whole; backends stay for deployments that stay, with
their queues, counts and connections.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, unquote

from fngw import protocol
from fngw.errors import FngwError
from fngw_gateway.calls.prefer import asks_later
from fngw_gateway.proxy import headers, problems, steps
from fngw_gateway.proxy.balancer import Backend
from fngw_gateway.proxy.forward import Exchange, WhyLost
from fngw_gateway.proxy.routing import Routes, is_own, read_path
from fngw_gateway.proxy.tally import Row, Tally
from fngw_state.records import RoutedDeployment, RoutingTable

__all__ = ["DataPlane"]

CALL_PREFIX = protocol.CALL_PREFIX.encode()
REPLICA_CALL_PREFIX = protocol.REPLICA_CALL_PREFIX.encode()
#: The gateway's token is none of the replica's business.
_NOT_CALLED_WITH = frozenset({b"authorization"})
#: Takes in a request that prefers an answer later: ASGI's three, its head, its deployment, and the target.
Defer = Callable[[Any, Any, problems.Send, headers.RequestHead, str, bytes], Awaitable[None]]


class DataPlane:
    """Forwards requests by the table that it was given last.

    Args:
        max_body: bytes of a request's body; more are refused.
        token: what calls over TCP must carry; None lets all in.
        defer: takes in requests that prefer an answer later; None: they are answered at once.
        why_lost: finds out why a replica died, for the answer to a request that it cost.

    Example:
        >>> plane = DataPlane(max_body=2**30, token=None)
        >>> plane.apply(RoutingTable(1, (deployment,)))
        >>> await plane.serve(scope, receive, send, (b"/hello/x", b"/hello/x"))
    """

    def __init__(
        self, *, max_body: int, token: str | None, defer: Defer | None = None, why_lost: WhyLost | None = None
    ) -> None:
        self._max_body = max_body
        self._why_lost = why_lost
        self._defer = defer
        self._bearer = None if token is None else f"Bearer {token}".encode()
        self._routes: Routes[Backend] | None = None
        self._backends: dict[str, Backend] = {}
        self._unserved = Tally()  # requests that no deployment got
        self._why_not = "it has just started"

    # -- the table ----------------------------------------------------------------------------------------

    def apply(self, table: RoutingTable) -> None:
        """Route by ``table`` from now on."""
        left, self._backends = self._backends, {}
        for deployment in table.deployments:
            self._backends[deployment.name] = self._adopt(left.pop(deployment.name, None), deployment)
        self._routes = Routes(
            (d.route_prefix, self._backends[d.name]) for d in table.deployments if d.route_prefix is not None
        )
        for backend in left.values():
            backend.close()

    def _adopt(self, backend: Backend | None, deployment: RoutedDeployment) -> Backend:
        if backend is None:
            return Backend(deployment, asyncio.get_running_loop())
        backend.update(deployment)
        return backend

    def not_ready(self, why: str) -> None:
        """There is no table yet, and why; requests are told so."""
        self._why_not = why

    @property
    def listing(self) -> dict[str, str]:
        """Which deployment serves each route prefix."""
        served = ((backend.route_prefix, name) for name, backend in self._backends.items())
        return dict(sorted((prefix, name) for prefix, name in served if prefix is not None))

    @property
    def backends(self) -> dict[str, Backend]:
        return self._backends

    def leave(self) -> None:
        """Let nobody wait any more for replicas that are not there: this gateway is about to stop."""
        for backend in self._backends.values():
            backend.leave()

    def close(self) -> None:
        """Close all connections to replicas."""
        for backend in self._backends.values():
            backend.close()

    # -- what is counted ----------------------------------------------------------------------------------

    def counted(self) -> frozenset[str]:
        """The deployments in the table, and "" for requests that none of them got."""
        return frozenset([*self._backends, ""])

    def rows(self) -> dict[str, Row]:
        """The counts of what this process was asked for."""
        rows = {name: b.tally.row(b.queued) for name, b in self._backends.items() if b.tally.used}
        return {**rows, "": self._unserved.row(0)} if self._unserved.used else rows

    # -- requests -----------------------------------------------------------------------------------------

    def serve(
        self, scope: Any, receive: Any, send: problems.Send, read: tuple[bytes, bytes] | None
    ) -> Awaitable[None]:
        """Answer a request by its route.

        Args:
            scope, receive, send: ASGI's.
            read: its path and key, from ``routing.read_path``.
        """
        if self._routes is None:
            return self.refuse(scope, send, problems.not_ready(self._why_not))
        backend = None if read is None else self._routes.match(read[1])
        if backend is None or read is None:
            return self.refuse(scope, send, problems.route_not_found(scope["raw_path"]))
        head, target = self._for_replica(scope, backend, read[0])
        if head.prefer and self._defer is not None and asks_later(head.prefer):
            return steps.tasked(self._defer(scope, receive, send, head, backend.name, target))
        return Exchange(scope, receive, send, backend, head, target, self._max_body, self._why_lost).run()

    def upgrade(self, scope: Any) -> tuple[Backend, headers.RequestHead, bytes]:
        """Return who serves a WebSocket, the request's head for it, and the target.

        Raises:
            FngwError: nobody does.
        """
        if self._routes is None:
            raise problems.not_ready(self._why_not)
        read = read_path(scope["raw_path"])
        backend = None if read is None or is_own(read[1]) else self._routes.match(read[1])
        if backend is None or read is None:
            raise problems.route_not_found(scope["raw_path"])
        head, target = self._for_replica(scope, backend, read[0])
        return backend, head, target

    def _for_replica(self, scope: Any, backend: Backend, path: bytes) -> tuple[headers.RequestHead, bytes]:
        head = headers.read_request(scope)
        head.lines.append(backend.root_line)
        query = scope["query_string"]
        return head, b"%b?%b" % (path, query) if query else path

    def call(self, scope: Any, receive: Any, send: problems.Send, path: bytes) -> Awaitable[None]:
        """Answer a call by handle: ``/-/call/<deployment>/<method>``.

        Args:
            scope, receive, send: ASGI's.
            path: the request's path, dots resolved, not decoded.
        """
        if not self._may_call(scope):
            return self.refuse(scope, send, problems.unauthorized())
        deployment, _, method = path[len(CALL_PREFIX) :].partition(b"/")
        if not method or b"/" in method:
            return self.refuse(scope, send, problems.route_not_found(path))
        if scope["method"] != "POST":
            return self.refuse(scope, send, problems.method_not_allowed(scope["method"], path, "POST"))
        if self._routes is None:
            return self.refuse(scope, send, problems.not_ready(self._why_not))
        name = unquote(deployment.decode("ascii"))
        backend = self._backends.get(name)
        if backend is None:
            return self.refuse(scope, send, problems.deployment_not_found(name))
        head = headers.read_request(scope, _NOT_CALLED_WITH)
        if head.prefer and self._defer is not None and asks_later(head.prefer):
            stored = b"%b%b/%b" % (CALL_PREFIX, quote(name).encode(), quote(method).encode())
            return steps.tasked(self._defer(scope, receive, send, head, name, stored))
        target = REPLICA_CALL_PREFIX + method
        return Exchange(scope, receive, send, backend, head, target, self._max_body, self._why_lost).run()

    def _may_call(self, scope: Any) -> bool:
        """Replicas call over the Unix socket, where the server's address has no port."""
        if self._bearer is None or scope["server"][1] is None:
            return True
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, self._bearer)

    async def refuse(self, scope: Any, send: problems.Send, error: FngwError) -> None:
        """Answer with an error of the gateway's own."""
        self._unserved.refuse(error.status)
        own = (headers.REQUEST_ID, headers.request_id(scope["headers"]))
        await problems.send_problem(send, error, [own, (b"server-timing", b"queue;dur=0")])
