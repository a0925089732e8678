"""Keeps parts running: starts them, starts again what dies (with a growing delay), stops what is told to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable

from fngw_supervisor import logs
from fngw_supervisor.child import Child, Start, describe_exit, kill_group, spawn
from fngw_supervisor.ladder import Ladder
from fngw_supervisor.parts import Part, Stage
from fngw_supervisor.say import Say

#: What a part that ``finishes`` gets after SIGTERM even when the stop is hurried.
HURRIED_GRACE_S = 5.0
#: How long a process that was sent SIGKILL may take to go (it may hang in the kernel).
_KILLED_S = 5.0
_LOG_LINES = 5
_CHECK_S = 10.0


class Keeper:
    """Keeps one part running.

    Args:
        part: what to run.
        inherit: file descriptors that every part inherits.
        say: told of every death.
        start: starts the process.
        clock: returns seconds.
    """

    def __init__(
        self,
        part: Part,
        inherit: Iterable[int],
        say: Say,
        start: Start = spawn,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.part = part
        self.child: Child | None = None
        self.ladder = Ladder()
        self.ready = False
        self.outcome = ""  # how it last ended, in words
        self._fds = (*inherit, *part.fds)
        self._say = say
        self._start = start
        self._clock = clock
        self._log_start = 0
        self._stopping = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"keeper of {part.name}")

    @property
    def last_lines(self) -> list[str]:
        """What it last wrote, in its present or latest life."""
        return logs.tail(self.part.log, _LOG_LINES, since=self._log_start)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            lived = await self._live()
            if self._stopping.is_set() or (self.part.vital and not self.ready):
                return
            self.ladder = self.ladder.died(lived)
            self._tell()
            await _set_within(self._stopping, self.ladder.delay_s)

    async def _live(self) -> float:
        """Run the part once; return for how many seconds it lived."""
        begin, self._log_start = self._clock(), logs.size(self.part.log)
        try:
            env = {**os.environ, **self.part.env}
            child = await self._start(self.part.argv, env, self._fds, self.part.log)
        except OSError as error:
            self.outcome = f"cannot be started: {error}"
            return 0.0
        self.child = child
        if self._stopping.is_set():  # told so while it was being started
            _terminate(child)
        code = await child.wait()
        self.child, self.outcome = None, describe_exit(code)
        kill_group(child.pid)  # what it may have left behind
        return self._clock() - begin

    def _tell(self) -> None:
        text = f"{self.outcome}; starting it again in {self.ladder.delay_s:g} s"
        if self.ladder.never_started:
            text = f"{self.outcome}, {self.ladder.deaths} times in a row: it does not start\nstill trying"
        lines = [f"| {line}" for line in self.last_lines]
        self._say(self.part.name, "\n".join([f"{text} (log: {self.part.log})", *lines]))

    async def stop(self, hurry: asyncio.Event) -> None:
        """SIGTERM, then SIGKILL to its group after its grace time, or sooner when ``hurry`` is set."""
        self._stopping.set()
        if self.child is not None:
            _terminate(self.child)
        await _done_within(self.task, self.part.grace_s, hurry)
        if not self.task.done() and self.part.finishes:
            await asyncio.wait({self.task}, timeout=HURRIED_GRACE_S)
        if not self.task.done() and self.child is not None:
            self._say(self.part.name, "does not end: killing it")
            kill_group(self.child.pid)
            await asyncio.wait({self.task}, timeout=_KILLED_S)
        if not self.task.done():
            self._say(self.part.name, "is still there: the kernel does not let it go")
            self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


class Crew:
    """All parts of one fngw.

    Args:
        inherit: file descriptors that every part inherits (the lock's).
        say: told of every death.
        start: starts their processes.
    """

    def __init__(self, inherit: Iterable[int], say: Say, start: Start = spawn) -> None:
        self._inherit = tuple(inherit)
        self._say = say
        self._start = start
        self.keepers: list[Keeper] = []

    def start(self, part: Part) -> Keeper:
        """Start a part and keep it running from now on."""
        keeper = Keeper(part, self._inherit, self._say, self._start)
        self.keepers.append(keeper)
        return keeper

    def has(self, stage: Stage) -> bool:
        """Whether a part of this stage was started."""
        return any(k.part.stage is stage for k in self.keepers)

    def check(self) -> None:
        """See that all keepers are at work.

        Raises:
            BaseException: what ended a keeper, which is a mistake of ours.
        """
        for keeper in self.keepers:
            if keeper.task.done():
                keeper.task.result()

    async def until(self, event: asyncio.Event, look: Callable[[], None]) -> None:
        """Return when ``event`` is set; meanwhile ``check``, keep the logs bounded, and ``look`` after the rest."""
        while not await _set_within(event, _CHECK_S):
            self.check()
            look()
            for keeper in self.keepers:
                with contextlib.suppress(OSError):  # a full disk: the parts have to live with it, and so have we
                    logs.bound(keeper.part.log)

    async def stop(self, stage: Stage, hurry: asyncio.Event) -> None:
        """Stop the parts of one stage, all at once."""
        of_stage = [k for k in self.keepers if k.part.stage is stage]
        await asyncio.gather(*(k.stop(hurry) for k in of_stage))
        self.keepers = [k for k in self.keepers if k not in of_stage]


def _terminate(child: Child) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.terminate()


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def _done_within(task: asyncio.Task[None], seconds: float, hurry: asyncio.Event) -> None:
    """Wait for the task, but not longer than ``seconds``, nor once ``hurry`` is set."""
    hurried = asyncio.create_task(hurry.wait())
    try:
        await asyncio.wait({task, hurried}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hurried.cancel()
