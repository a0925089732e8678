"""What ``calls.py`` measures with: a Redis, a stand-in for the gateway whose answers take 50 ms, one dispatcher,
and RQ's stock worker on the same work.

Run as a script with a socket's path it is the stand-in: a process of its own, as the gateway is.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httptools
from redis import Redis
from rq import Queue, SimpleWorker

from fngw_state import keys
from fngw_state.call_records import Call, NewCall
from fngw_state.calls import Calls
from fngw_state.layout import Layout
from fngw_state.payloads import Payloads
from fngw_state.records import RoutedDeployment, RoutedReplica, RoutingTable
from fngw_state.store import Store, connect

__all__ = ["Rig", "rig", "until"]

WORK_S = 0.05
NAME = "bench"


class Rig:
    """One Redis, one stand-in, one dispatcher."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder / "data", folder / "run")
        self.layout.create()
        self.url = f"unix://{folder}/redis.sock"
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all three, and wait for them."""
        words = ("--port", "0", "--unixsocket", f"{self._folder}/redis.sock", "--dir", str(self._folder))
        self._spawn("redis-server", *words, "--save", "", "--appendonly", "yes")
        self._spawn(sys.executable, __file__, str(self.layout.gateway_socket))
        until(lambda: (self._folder / "redis.sock").exists() and self.layout.gateway_socket.exists())
        replicas = tuple(RoutedReplica(f"r{n}", "x") for n in range(20))
        table = RoutingTable(1, (RoutedDeployment(NAME, f"/{NAME}", replicas, 100, 1000, None),))
        self.redis = Redis.from_url(self.url)
        self.redis.set(keys.ROUTES, table.to_json())
        self.dispatcher = self._spawn(sys.executable, "-m", "fngw_dispatcher")
        until(lambda: self.redis.scard("rq:workers"))

    def _spawn(self, *words: str) -> subprocess.Popen[bytes]:
        variables = {
            "FNGW_REDIS_URL": self.url,
            "FNGW_DATA_DIR": str(self.layout.data),
            "FNGW_RUN_DIR": str(self.layout.run),
        }
        process = subprocess.Popen(words, env=os.environ | variables, stdout=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
            process.wait()

    # -- what is measured ---------------------------------------------------------------------------------

    async def calls_per_second(self, count: int) -> float:
        """Have the dispatcher work off a backlog; return calls per second, from the first start to the last end."""
        async with _calls(self) as calls:
            self.dispatcher.send_signal(signal.SIGSTOP)
            ids = await _accept(calls, count)
            self.dispatcher.send_signal(signal.SIGCONT)
            await _all_ended(calls, ids)
            found = [await calls.find(call_id) for call_id in ids]
        assert all(call.status == "finished" for call in found)
        return count / (max(_ended(c) for c in found) - min(_started(c) for c in found))

    async def start_delays(self, count: int) -> list[float]:
        """Return the seconds from acceptance to start of calls that come one at a time, on Redis' clock."""
        delays = []
        async with _calls(self) as calls:
            for _ in range(count):
                (call_id,) = await _accept(calls, 1)
                call = await calls.wait(call_id, 10)
                delays.append(_started(call) - call.created)
        return delays

    def stock_per_second(self, count: int) -> float:
        """Have RQ's SimpleWorker do the same work; return jobs per second."""
        queue = Queue("stock", connection=self.redis)
        path = str(self.layout.gateway_socket)
        for _ in range(count):
            queue.enqueue(one_request, path)
        began = time.perf_counter()
        SimpleWorker([queue], connection=self.redis).work(burst=True, logging_level="ERROR")
        return count / (time.perf_counter() - began)


@contextmanager
def rig() -> Iterator[Rig]:
    """Run a rig; stop and remove it in the end."""
    folder = Path(tempfile.mkdtemp(prefix="fngw-bench-"))
    made = Rig(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


class _calls:
    """``async with``: the calls of a rig."""

    def __init__(self, where: Rig) -> None:
        self._store = Store(connect(where.url))
        self._calls = Calls(self._store, Payloads(where.layout.payloads))

    async def __aenter__(self) -> Calls:
        return self._calls

    async def __aexit__(self, *error: object) -> None:
        await self._calls.close()
        await self._store.close()


async def _accept(calls: Calls, count: int) -> list[str]:
    new = NewCall(NAME, "POST", f"/{NAME}", (("content-type", "text/plain"),), b"x" * 100)
    ids: list[str] = []
    for start in range(0, count, 100):
        batch = [calls.accept(new) for _ in range(min(100, count - start))]
        ids += [accepted.id for accepted in await asyncio.gather(*batch)]
    return ids


async def _all_ended(calls: Calls, ids: list[str]) -> None:
    for call_id in ids:
        await calls.wait(call_id, 60)


def _started(call: Call) -> float:
    assert call.started is not None
    return call.started


def _ended(call: Call) -> float:
    assert call.ended is not None
    return call.ended


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:g} s in vain")
        time.sleep(0.02)


# -- RQ's side ----------------------------------------------------------------------------------------------


def one_request(path: str) -> int:
    """The job: the same request, on a connection of its own."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(b"POST /bench HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n" + b"x" * 100)
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        answer.read()
        return answer.status


# -- the stand-in -------------------------------------------------------------------------------------------


class _StandIn(asyncio.Protocol):
    """Answers every request after 50 ms."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        asyncio.get_running_loop().call_later(WORK_S, self._answer)

    def _answer(self) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok")


async def _stand_in(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(_StandIn, path, backlog=2000)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_stand_in(sys.argv[1]))
