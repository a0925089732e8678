"""One measured slice of load by wrk, and what other processes spent on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Request", "Slice", "Wrk", "cpu_seconds", "read", "require_wrk"]

#: wrk only takes whole seconds. It is told more than wanted, and interrupted: it counts what was, then.
AT_MOST_S = 60
_SCRIPT = """\
wrk.method = "{method}"
{headers}
{body}
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{{"requests":%d,"us":%d,"p50":%d,"p99":%d,"max":%d,"failed":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Request:
    """What is sent: wrk sends the same again and again."""

    method: str = "GET"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """What came of one slice: requests per second, latencies in microseconds, CPU in microseconds per request."""

    rps: float
    p50: float
    p99: float
    most: float
    cpu: float = 0.0


class Wrk:
    """Sends one kind of request.

    Args:
        folder: an existing one for wrk's script and the body.
        request: what to send.
    """

    def __init__(self, folder: Path, request: Request) -> None:
        handle, name = tempfile.mkstemp(suffix=".lua", dir=folder)
        os.close(handle)
        self._script = Path(name)
        body = ""
        if request.body:
            data = self._script.with_suffix(".body")
            data.write_bytes(request.body)
            body = f'local f = io.open("{data}", "rb"); wrk.body = f:read("*a"); f:close()'
        headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in request.headers.items())
        self._script.write_text(_SCRIPT.format(method=request.method, headers=headers, body=body))

    def run(self, url: str, connections: int, seconds: float, pids: Iterable[int] = ()) -> Slice:
        """Send for so long; return what was measured, with the CPU time of ``pids``.

        Raises:
            SystemExit: a request failed; a figure made of failures would be worth nothing.
        """
        with self.running(url, connections) as process:
            before = cpu_seconds(pids)
            time.sleep(seconds)
        spent = cpu_seconds(pids) - before
        return read(process, url, spent)

    @contextmanager
    def running(self, url: str, connections: int) -> Iterator[subprocess.Popen[str]]:
        """Send until the block ends; then ``read`` the process."""
        words = ["wrk", f"-t{min(2, connections)}", f"-c{connections}", f"-d{AT_MOST_S}s", "--timeout", "20s"]
        words += ["-s", str(self._script), url]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def read(process: subprocess.Popen[str], url: str, spent: float = 0.0) -> Slice:
    """Return what an ended wrk has measured.

    Raises:
        SystemExit: a request failed.
    """
    assert process.stdout is not None
    text = process.stdout.read()
    process.stdout.close()
    lines = [line for line in text.splitlines() if line.startswith("{")]
    found = json.loads(lines[-1]) if lines else {"requests": 0, "failed": 0}
    if not found["requests"] or found["failed"]:
        raise SystemExit(f"wrk {url}: requests failed\n{text}")
    return Slice(
        rps=found["requests"] / found["us"] * 1e6,
        p50=found["p50"],
        p99=found["p99"],
        most=found["max"],
        cpu=spent / found["requests"] * 1e6,
    )


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time that processes have spent, all threads, to the nanosecond.

    The scheduler's own sum: ``utime`` and ``stime`` count ticks of 10 ms, 5 % of a slice at one connection.
    """
    tasks = (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def require_wrk() -> None:
    """End with a hint when wrk is not installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("this bench needs wrk: apt-get install wrk")
