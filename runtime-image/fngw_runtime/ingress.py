"""An ASGI app of the user's, mounted by ``fngw.ingress(app)``: its lifespan, its HTTP and its WebSockets."""

from __future__ import annotations

import asyncio
from typing import Any, Dict, Optional, Set

from fngw.errors import DeploymentFailed
from fngw_runtime import root_path
from fngw_runtime.failures import Failures, request_id
from fngw_runtime.load import USER_ERRORS, failed
from fngw_runtime.replies import Message, Outbox, Receive, Scope, Send
from fngw_runtime.reports import report
from fngw_runtime.websocket import ClientLeft

__all__ = ["Ingress", "Lifespan"]

FAILED = "lifespan_failed"


class Ingress:
    """Serves HTTP and WebSockets with an ASGI app."""

    def __init__(self, app: Any, failures: Failures) -> None:
        self._app = app
        self._failures = failures
        self._whole = root_path.app_wants_whole_path(app)
        self.lifespan = Lifespan(app)

    async def __call__(self, scope: Scope, receive: Receive, outbox: Outbox) -> None:
        """Answer one HTTP request."""
        try:
            await self._app(self._prepared(scope), receive, outbox)
        except asyncio.CancelledError as error:  # ours at a drain's end, or one the app let out
            await self._failures.answer(error, scope, outbox)
        except USER_ERRORS as error:
            await self._failures.answer(error, scope, outbox)

    async def websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket; what the app raises is logged, and left to the protocol to close with."""
        try:
            await self._app(self._prepared(scope), receive, send)
        except ClientLeft:
            raise  # an app may let this out: it is not a fault
        except USER_ERRORS as error:
            self._failures.log(error, f"websocket, request {request_id(scope)}")
            raise

    def _prepared(self, scope: Scope) -> Scope:
        if not self._whole:
            root_path.strip(scope)
        if self.lifespan.state:
            scope["state"] = dict(self.lifespan.state)
        return scope


class Lifespan:
    """The ASGI lifespan protocol for one app: start-up before the first request, shutdown after the last."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task: Optional[asyncio.Future[Any]] = None
        self.state: Dict[str, Any] = {}

    async def startup(self) -> None:
        """Run the app's start-up. An app that ends or raises without a word does not know the protocol.

        Raises:
            DeploymentFailed: with code ``lifespan_failed``, when the app says that it failed.
        """
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._task = asyncio.ensure_future(self._app(scope, self._to_app.get, self._from_app.put))
        answer = await self._say("lifespan.startup")
        if answer and answer["type"] == "lifespan.startup.failed":
            raise await self._failure(answer)

    async def shutdown(self) -> None:
        """Run the app's shutdown, where its start-up ran; what it raises is logged."""
        if self._task is None or self._task.done():
            return
        answer = await self._say("lifespan.shutdown")
        if answer and answer["type"] == "lifespan.shutdown.failed":
            error = await self._failure(answer)
            report("the app's lifespan failed to shut down", error.__cause__ or error)

    async def _say(self, kind: str) -> Optional[Message]:
        """Send an event; return the app's answer, or None when it ended instead."""
        assert self._task is not None
        await self._to_app.put({"type": kind})
        answer = asyncio.ensure_future(self._from_app.get())
        either: Set[asyncio.Future[Any]] = {answer, self._task}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done() and not self._from_app.empty():
            await answer
        if answer.done():
            return answer.result()
        answer.cancel()
        if not self._task.cancelled():
            self._task.exception()  # seen: raising is an app's way to say that it does not know the protocol
        return None

    async def _failure(self, answer: Message) -> DeploymentFailed:
        """Return the failure with the app's exception, which Starlette raises after telling of it."""
        assert self._task is not None
        await asyncio.wait({self._task})
        error = None if self._task.cancelled() else self._task.exception()
        if error is None:
            return DeploymentFailed("the app's lifespan failed", code=FAILED, detail=answer.get("message", ""))
        failure = failed(FAILED, error)
        failure.__cause__ = error
        return failure
