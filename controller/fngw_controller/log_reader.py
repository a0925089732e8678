"""The log of one deployment: the lines of its replicas, those that are gone and those that run, as one stream.

Whoever follows it hears of replicas that start later, too. Engines are asked for their list again and again rather
than for events: what starts and ends between two looks has left its log on disk, and is read there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fngw_controller.engines.base import Engine, EngineError
from fngw_state.layout import Layout

__all__ = ["LOOK_S", "LogReader", "Window"]

log = logging.getLogger(__name__)

#: While a log is followed, new replicas are looked for this often.
LOOK_S = 0.5
#: Chunks of lines that may wait for a slow reader; then the replicas' streams wait, too.
WAITING = 100


@dataclass(frozen=True)
class Window:
    """Which lines of one replica: the last ``tail``, of those after ``since`` (Unix seconds); None: all."""

    tail: int | None = None
    since: float | None = None


class LogReader:
    """Reads the log of one deployment, once.

    Args:
        engine: where the logs of its replicas are while they are there.
        layout: where the logs of those that are gone are kept.
        deployment: its name.
        is_there: tells whether a deployment of a name (still) is.
    """

    def __init__(
        self, engine: Engine, layout: Layout, deployment: str, is_there: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._engine = engine
        self._layout = layout
        self._deployment = deployment
        self._is_there = is_there
        self._lines: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
        self._seen: set[str] = set()
        self._again: dict[str, Window] = {}  # of replicas whose reading broke off

    async def listed(self) -> list[str]:
        """Return the ids of the replicas that the engine has.

        Raises:
            EngineUnavailable: it does not answer.
        """
        return [i.id for i in await self._engine.list() if i.deployment == self._deployment]

    async def read(self, listed: list[str], window: Window, follow: bool) -> AsyncIterator[bytes]:
        """Yield chunks of whole lines, each line after its replica's id; a replica's own lines are in order.

        Args:
            listed: the replicas that there are.
            window: what of their past; those that start later are read from their first line.
            follow: go on until the deployment is gone.
        """
        feed = asyncio.create_task(self._feed(listed, window, follow))
        try:
            while not (feed.done() and self._lines.empty()):
                chunk = asyncio.ensure_future(self._lines.get())
                try:
                    await asyncio.wait((chunk, feed), return_when=asyncio.FIRST_COMPLETED)
                    if chunk.done():
                        yield chunk.result()
                finally:
                    chunk.cancel()
            feed.result()
        finally:
            feed.cancel()
            with suppress(asyncio.CancelledError):
                await feed

    # -- the other side of the queue: one task that looks, and one per replica ----------------------------------

    async def _feed(self, listed: list[str], window: Window, follow: bool) -> None:
        async with asyncio.TaskGroup() as pumps:
            while True:
                # Asked before looking: what was said before the end is read.
                goes_on = follow and (bool(listed) or await self._is_there(self._deployment))
                await self._look(listed, window, follow, pumps)
                if not goes_on:
                    return
                await asyncio.sleep(LOOK_S)
                window = Window()
                try:
                    listed = await self.listed()
                except EngineError as error:
                    log.warning("%s: following its log: %s", self._deployment, error.message)

    async def _look(self, listed: list[str], window: Window, follow: bool, pumps: asyncio.TaskGroup) -> None:
        """Read what was not there at the last look."""
        for path in await asyncio.to_thread(self._gone, {*listed, *self._seen}):
            self._seen.add(path.stem)
            chosen = self._again.pop(path.stem, window)
            await self._put(path.stem, await asyncio.to_thread(_kept_lines, path, chosen))
        for replica_id in listed:
            if replica_id not in self._seen:
                self._seen.add(replica_id)
                pumps.create_task(self._pump(replica_id, self._again.pop(replica_id, window), follow))

    def _gone(self, known: set[str]) -> list[Path]:
        """The logs of replicas that are gone, but for those ``known``; oldest first."""
        paths = (p for p in self._layout.replica_logs(self._deployment).glob("*.log") if p.stem not in known)
        # One that is just being started has a directory, too, and perhaps a log; only the engine has no word of it.
        gone = {path: _changed(path) for path in paths if not self._layout.replica_dir(path.stem).exists()}
        return sorted(gone, key=lambda path: gone[path])

    async def _pump(self, replica_id: str, window: Window, follow: bool) -> None:
        """Pass on what one replica says, until it is gone."""
        chunks = self._engine.logs(replica_id, tail=window.tail, since=window.since, follow=follow)
        begun = time.time()
        said = False
        try:
            async for lines in _whole_lines(chunks):
                begun, said = time.time(), True
                await self._put(replica_id, lines)
        except EngineError as error:
            log.warning("the log of replica %s broke off: %s", replica_id, error.message)
            self._read_again(replica_id, Window(since=begun) if said else window)
            return
        if not said:  # perhaps it was removed before it could be read: then its log is kept
            self._read_again(replica_id, window)

    def _read_again(self, replica_id: str, window: Window) -> None:
        self._again[replica_id] = window
        self._seen.discard(replica_id)

    async def _put(self, replica_id: str, lines: list[bytes]) -> None:
        label = replica_id.encode() + b" | "
        if lines:
            await self._lines.put(b"".join(label + line + b"\n" for line in lines))


async def _whole_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Yield the whole lines of a stream that comes in chunks of any size."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # only so many are kept
        return 0.0


def _kept_lines(path: Path, window: Window) -> list[bytes]:
    """Return the lines of a kept log. They have no times: one that was written to since counts as a whole."""
    try:
        lines = path.read_bytes().splitlines() if _changed(path) >= (window.since or 0) else []
    except FileNotFoundError:
        return []
    return lines if window.tail is None else lines[max(0, len(lines) - window.tail) :]
