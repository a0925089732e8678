"""Puts the parts of a dispatcher together and runs them until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from redis.exceptions import RedisError

from fngw_dispatcher.callbacks import CallbackSender, load_secret
from fngw_dispatcher.desk import Desk
from fngw_dispatcher.http import Client, unix
from fngw_dispatcher.lane import Family, Lane
from fngw_dispatcher.rq_worker import RqWorker, new_name
from fngw_dispatcher.scheduler import Scheduler
from fngw_dispatcher.sending import Sender
from fngw_dispatcher.settings import DispatcherSettings
from fngw_dispatcher.shares import Shares
from fngw_state import keys
from fngw_state.call_work import CallWork
from fngw_state.calls import Calls
from fngw_state.cancellable import cancel
from fngw_state.payloads import Payloads
from fngw_state.schedules import Schedules
from fngw_state.store import LOST, Store
from fngw_state.watch import watch

__all__ = ["Dispatcher"]

log = logging.getLogger(__name__)

#: Most callbacks under way, over all dispatchers.
CALLBACKS = 50
SCHEDULES_EVERY_S = 1.0
UPKEEP_AT_MOST_EVERY_S = 4.0
#: How often it is asked whether an hour has passed since the last.
SWEEP_EVERY_S = 60.0
RETRY_S = 0.5


class Dispatcher:
    """One dispatcher process.

    Args:
        settings: how it works.
        store: the state.
    """

    def __init__(self, settings: DispatcherSettings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self.name = new_name()
        payloads = Payloads(settings.layout.payloads)
        limits = settings.call_limits
        self._calls = Calls(store, payloads, limits)
        self._work = CallWork(store, payloads, limits, self.name, settings.call_lease_s)
        self._desk = Desk(self._work)
        self._shares = Shares(store, settings.call_share)
        self._client = Client(unix(str(settings.layout.gateway_socket)), limits.max_body)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Claim nothing more; end when the calls under way have, or after ``dispatcher_stop_timeout_s``."""
        self._stop.set()

    async def run(self) -> None:
        """Work until ``stop``."""
        worker = await self._registered()
        async with asyncio.TaskGroup() as group:
            tend = [group.create_task(job) for job in (self._desk.write_down(), self._desk.renew())]
            tend += [group.create_task(job) for job in self._background(worker)]
            claiming = [group.create_task(lane.run()) for lane in self._lanes()]
            log.info("dispatcher %s is ready", self.name)
            await self._stop.wait()
            await cancel(*claiming)
            await self._finish()
            await cancel(*tend)
        await self._close(worker)

    def _lanes(self) -> list[Lane]:
        sender = Sender(self._client, self._work, self._calls)
        calls = Family("calls", keys.CALL_QUEUES, self._settings.dispatcher_calls, default_limit=1)
        callbacks = Family("callbacks", (keys.CALLBACKS_QUEUE,), CALLBACKS, default_limit=CALLBACKS)
        secret = load_secret(self._settings.callback_secret, self._settings.layout.data)
        caller = CallbackSender(self._calls, secret, self._settings.callback_networks)
        return [
            Lane(calls, self._desk, sender.send, lambda: self._shares.limits),
            Lane(callbacks, self._desk, caller.send, dict),
        ]

    def _background(self, worker: RqWorker) -> list[Coroutine[Any, Any, None]]:
        every = min(UPKEEP_AT_MOST_EVERY_S, self._settings.call_lease_s / 2)
        return [
            self._shares.follow(),
            self._hear(),
            _repeat(self._settings.call_lease_s / 3, lambda: asyncio.to_thread(worker.beat, len(self._desk) > 0)),
            _repeat(every, self._upkeep),
            _repeat(SWEEP_EVERY_S, self._sweep),
            _repeat(SCHEDULES_EVERY_S, Scheduler(Schedules(self._store), self._calls, time.time).look),
        ]

    async def _finish(self) -> None:
        """Wait for the calls under way; hand over those that take too long."""
        try:
            async with asyncio.timeout(self._settings.dispatcher_stop_timeout_s):
                await self._desk.empty()
        except TimeoutError:
            log.info("%d calls are handed over", len(self._desk))
            self._desk.stop_all("handover")
            async with asyncio.timeout(self._settings.call_lease_s):  # then they are taken over anyway
                await self._desk.empty()

    async def _close(self, worker: RqWorker) -> None:
        await self._client.close()
        await self._calls.close()
        try:
            await asyncio.to_thread(worker.leave)
        except (RedisError, OSError) as error:
            log.warning("redis: lost (%s); RQ is not told of this dispatcher's end", error)

    async def _registered(self) -> RqWorker:
        """Be known to RQ, as soon as Redis answers."""
        queues = (*keys.CALL_QUEUES, keys.CALLBACKS_QUEUE)
        url, lease = self._settings.redis_url, self._settings.call_lease_s
        while True:
            try:
                worker = await asyncio.to_thread(RqWorker, url, self.name, queues, lease)
                await asyncio.to_thread(worker.beat, False)
                return worker
            except (RedisError, OSError) as error:
                log.warning("redis: no answer yet (%s)", error)
                await asyncio.sleep(RETRY_S)

    async def _hear(self) -> None:
        """Stop what callers, or RQ's users, cancel."""
        commands = keys.RQ_COMMANDS + self.name
        async for message in watch(self._store.redis, keys.CALL_CANCEL_CHANNEL, commands):
            if message is None:
                continue  # what was missed is found when leases are renewed
            channel, text = message
            if channel == keys.CALL_CANCEL_CHANNEL:
                self._desk.stop(text, "cancelled")
            else:
                self._obey(json.loads(text))

    def _obey(self, command: dict[str, str]) -> None:
        if command.get("command") == "stop-job":
            self._desk.stop(command.get("job_id", ""), "cancelled")
        elif command.get("command") == "shutdown":
            self.stop()

    async def _upkeep(self) -> None:
        """What any dispatcher does for all."""
        taken = await self._work.lapse()
        if taken:
            log.warning("%d calls of dead dispatchers are queued again", taken)
        while await self._work.forget():
            continue
        await self._work.remove_payloads(time.time())

    async def _sweep(self) -> None:
        unknown = await self._work.sweep()
        if unknown:
            log.warning("%d files of queued calls are not known to Redis; they are removed in an hour", unknown)


async def _repeat(every_s: float, job: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await job()
        except (*LOST, RedisError) as error:
            log.warning("redis: lost (%s)", error)
        await asyncio.sleep(every_s)
