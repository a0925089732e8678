"""The life of the user's object: constructed, configured, healthy or not, drained, and said goodbye to.

::

    STARTING ──► READY ──► DRAINING
        └──────► FAILED ─────┘          (it stays up to tell why, until it is stopped)
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import inspect
import os
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from fngw.errors import DeploymentFailed, FngwError, to_problem
from fngw.protocol import ReplicaConfig
from fngw_runtime import load, views
from fngw_runtime.admission import Admission
from fngw_runtime.calls import Calls
from fngw_runtime.failures import Failures
from fngw_runtime.ingress import Ingress
from fngw_runtime.invoke import Functions
from fngw_runtime.live_config import LiveConfig
from fngw_runtime.load import USER_ERRORS, call_either
from fngw_runtime.reports import describe, report, say, user_traceback
from fngw_runtime.target import Target
from fngw_runtime.threads import Threads

__all__ = ["DRAINING", "FAILED", "READY", "STARTING", "Replica"]

STARTING, READY, FAILED, DRAINING = "starting", "ready", "failed", "draining"

#: The most threads for requests, however high the limit: more would only take turns.
MOST_THREADS = 100
#: A timer may end so much early: less is not worth another turn of waiting.
TIMER_S = 0.01


class Replica:
    """One replica. Create it inside a running event loop.

    Args:
        config: what the controller wants.
        directory: where ``init.pkl`` lies.
    """

    def __init__(self, config: ReplicaConfig, directory: Path) -> None:
        limit = config.max_concurrent_queries
        self.config = config
        self.state = STARTING
        self.failure: Optional[DeploymentFailed] = None
        self.config_number: Optional[int] = None
        self.admission = Admission(limit)
        self.failures = Failures(config.deployment, config.debug)
        self._loop = asyncio.get_event_loop()
        self._user_config: Any = None  # the one that reconfigure last took
        self.functions: Optional[Functions] = None
        self.ingress: Optional[Ingress] = None
        self.calls: Optional[Calls] = None
        self._constructed = False
        self._drain_began = 0.0
        self._directory = directory
        self._target: Optional[Target] = None
        self._settled = asyncio.Event()
        self._reconfiguring = asyncio.Lock()
        self._starting: Optional[asyncio.Future[None]] = None
        self._checking: Optional[asyncio.Future[None]] = None
        # One thread for what happens once (a CUDA context or a database connection may be bound to it), one for
        # health checks (busy requests must not make a replica look ill), the rest for requests.
        self._setup = Threads(1, "fngw-setup", loop=self._loop)
        self._health = Threads(1, "fngw-health")
        self._threads = Threads(min(limit, MOST_THREADS), "fngw-request")

    # -- start --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to load and construct; ``settled`` tells of the end."""
        self._starting = asyncio.ensure_future(self._start())

    async def _start(self) -> None:
        try:
            await self._construct()
            self._settle(READY)
            if self.config.redis is not None:
                LiveConfig(self.config.redis, self._apply_from_thread).start()
        except asyncio.CancelledError:
            raise  # stopped; an ordinary Exception before Python 3.8
        except DeploymentFailed as failure:
            self._fail(failure)
        except USER_ERRORS as error:  # where no user code is expected to run, as in looking at its methods
            self._fail(load.failed("start_failed", error))

    def _fail(self, failure: DeploymentFailed) -> None:
        self.failure = failure
        say(f"{self.config.deployment} cannot start ({failure.code}): {failure}")
        self._settle(FAILED)

    def _settle(self, state: str) -> None:
        self._constructed = state == READY
        if self.state == STARTING:  # else it was stopped meanwhile
            self.state = state
            self._settled.set()

    async def _load(self) -> Any:
        """Import the user's code, and set apart for good what lives until the end anyway: all modules.

        To look through them for garbage takes a fifth to a third of the time of their import, and later holds all
        requests up, again and again: 15 ms for the runtime's own, ten times that with torch. What the constructor
        makes is collected as ever.
        """
        try:
            return await self._setup.call(load.load_code, self.config)
        finally:
            gc.freeze()
            gc.enable()

    async def _construct(self) -> None:
        code = await self._load()
        init = await self._setup.call(load.load_init, self.config, self._directory)
        target = Target(await load.construct(code, init, self._setup), inspect.isclass(code))
        self._target = target
        if self.config.user_config is not None:
            await self.reconfigure(self.config.config_revision, self.config.user_config)
        self.config_number = self.config.config_revision
        self.calls = Calls(target, self._threads, self.failures)
        if target.ingress_app is not None:
            views.bind(target.ingress_app, target.value)
            self.ingress = Ingress(target.ingress_app, self.failures)
            await self.ingress.lifespan.startup()
        elif target.default is not None:
            self.functions = Functions(target.default, self._threads, self.failures)

    async def settled(self) -> Dict[str, Any]:
        """Wait for the end of construction; return what a ready replica tells of itself.

        Raises:
            FngwError: it failed, or is being stopped.
        """
        await self._settled.wait()
        return self._report()

    def _report(self) -> Dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        if self.state != READY:
            raise self._not_ready()
        return {"pid": os.getpid(), "config_number": self.config_number}

    @property
    def serving(self) -> bool:
        """Whether requests are answered: also while draining, as some may be on their way already."""
        return self.state in (READY, DRAINING) and self._constructed

    def refusal(self) -> FngwError:
        """Return why a request finds nothing to answer it: not started, or not made for this."""
        if self.serving and self._target is not None:
            return self._target.not_over_http()
        return self._not_ready()

    def _not_ready(self) -> FngwError:
        hint = "ask another replica, or this one again shortly"
        message = f"replica {self.config.replica_id} is {self.state}"
        return FngwError(message, code="not_ready", status=503, hint=hint)

    # -- while it runs ------------------------------------------------------------------------------------

    async def reconfigure(self, number: int, config: Any) -> None:
        """Give the user's object a new ``user_config``.

        New requests wait, and it waits for those under way, which finish on the old one.

        Raises:
            DeploymentFailed: with code ``reconfigure_failed``; the object may be anywhere between old and new.
        """
        assert self._target is not None
        async with self._reconfiguring, self.admission.paused():
            self._user_config = None
            try:
                await call_either(self._target.value.reconfigure, self._setup, config)
            except USER_ERRORS as error:
                raise load.failed("reconfigure_failed", error) from error
            self._user_config = config
            self.config_number = number

    async def apply(self, config: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        """Apply a live configuration; return None, or a problem document that says why not."""
        limit = config["max_concurrent_queries"]
        if limit != self.admission.limit:
            self.admission.limit = limit
            self._threads.resize(min(limit, MOST_THREADS))
        grace = {key: config[key] for key in ("graceful_shutdown_wait_loop_s", "graceful_shutdown_timeout_s")}
        self.config = dataclasses.replace(self.config, **grace)
        wanted = config["user_config"]
        if wanted is not None and wanted != self._user_config:
            try:
                await self.reconfigure(config["number"], wanted)
            except DeploymentFailed as failure:
                say(f"reconfigure failed: {failure}")
                return to_problem(failure)
        self.config_number = config["number"]
        return None

    def _apply_from_thread(self, config: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        return asyncio.run_coroutine_threadsafe(self.apply(config), self._loop).result()

    async def healthy(self) -> Dict[str, Any]:
        """Run the user's ``check_health``, once for all that ask at the same time.

        Raises:
            FngwError: not ready, or ``unhealthy`` with the traceback.
        """
        report_ = self._report()
        check = getattr(self._target.value, "check_health", None) if self._target else None
        if check is None or not self._target or not self._target.is_class:
            return report_
        if self._checking is None or self._checking.done():
            self._checking = asyncio.ensure_future(call_either(check, self._health))
        try:
            await asyncio.shield(self._checking)
        except USER_ERRORS as error:
            message = f"check_health raised {describe(error)}"
            raise FngwError(message, code="unhealthy", status=503, detail=user_traceback(error)) from error
        return report_

    # -- the end ------------------------------------------------------------------------------------------

    async def drain(self, restart_websockets: Callable[[], None]) -> bool:
        """Stop being ready and wait for requests in flight; return whether all ended in time.

        Args:
            restart_websockets: closes those that are open. They do not end by themselves, so it is called after
                each turn of the wait.
        """
        self.state = DRAINING
        self._drain_began = self._loop.time()
        self._settled.set()
        if self._starting is not None:
            self._starting.cancel()
        admitted = self.admission.admitted
        while admitted.value:
            left = self.grace_left
            if left < TIMER_S:
                say(f"stopping with requests unfinished: {admitted.value}")
                self.failures.cut = True
                return False
            say(f"stopping; requests in flight: {admitted.value}, waiting at most {left:.1f} s")
            await admitted.wait(min(left, max(self.config.graceful_shutdown_wait_loop_s, 0.1)))
            restart_websockets()
        return True

    @property
    def grace_left(self) -> float:
        """Seconds until what is still under way is cut off."""
        return self._drain_began + self.config.graceful_shutdown_timeout_s - self._loop.time()

    async def close(self) -> None:
        """Shut the ingress app down, then run the user's ``__del__``; what they raise is logged."""
        if self.ingress is not None:
            await self.ingress.lifespan.shutdown()
        if self._target is None or not self._target.is_class:
            return
        kind = type(self._target.value)
        goodbye = getattr(kind, "__del__", None)
        if goodbye is None:
            return
        try:
            await call_either(goodbye, self._setup, self._target.value)
        except USER_ERRORS as error:
            report(f"{kind.__name__}.__del__ raised {describe(error)}", error)
        kind.__del__ = _said_goodbye  # or the interpreter runs it again at exit

    @property
    def busy(self) -> bool:
        """Whether a thread is still in user code."""
        return self._setup.busy or self._health.busy or self._threads.busy


def _said_goodbye(instance: Any) -> None:
    """What ``__del__`` is replaced with once it has run."""
