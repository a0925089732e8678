"""A supervisor in a process of its own, with stand-in parts and a real Redis, on directories of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fngw_state.layout import Layout

STAND_IN = Path(__file__).with_name("stand_in.py")
T = TypeVar("T")


def eventually(check: Callable[[], T], seconds: float = 80.0) -> T:
    """Return the first true value of ``check``, or fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {seconds} s: {check}")
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Site:
    """One data directory, and the supervisors that were started on it."""

    layout: Layout
    env: dict[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def output_file(self) -> Path:
        return self.layout.data.parent / "output.txt"

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    @property
    def url(self) -> str:
        match = re.search(r"^gateway +(http://\S+)", self.output, re.MULTILINE)
        assert match, self.output
        return match[1]

    def up(self, *argv: str, **env: str) -> subprocess.Popen[bytes]:
        """Start ``fngw up`` with stand-in parts."""
        with self.output_file.open("wb") as output:
            process = subprocess.Popen(
                [*(argv or (sys.executable, str(STAND_IN), "up"))],
                env={**self.env, **env},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.started.append(process)
        return process

    def up_ready(self, **env: str) -> subprocess.Popen[bytes]:
        process = self.up(**env)
        eventually(lambda: "Ctrl-C stops" in self.output or process.poll() is not None)
        assert process.poll() is None, self.output
        return process

    def events(self, what: str | None = None) -> list[dict[str, Any]]:
        path = Path(self.env["EVENTS"])
        lines = path.read_text().splitlines() if path.exists() else []
        return [e for e in map(json.loads, lines) if what is None or e["what"] == what]

    def pid(self, part: str) -> int:
        """The pid of a part's latest life, once it has started."""

        def find() -> int:
            return next((int(e["pid"]) for e in reversed(self.events("lives")) if e["part"] == part), 0)

        return eventually(find)

    def redis_pid(self) -> int:
        socket = str(self.layout.redis_socket)
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                line = (directory / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if socket.encode() in line or str(self.layout.redis / "redis.conf").encode() in line:
                return int(directory.name)
        return 0

    def pids(self) -> list[int]:
        found = {int(e["pid"]) for e in self.events()} | {self.redis_pid()} - {0}
        return sorted(p for p in found if alive(p))

    def clear(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(60)
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not self.pids())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    run = Path(tempfile.mkdtemp(prefix="fngw-", dir="/tmp"))  # short: it holds sockets
    layout = Layout(data=tmp_path / "data", run=run)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FNGW_")}
    env = {
        **kept,
        "FNGW_DATA_DIR": str(layout.data),
        "FNGW_RUN_DIR": str(run),
        "FNGW_PORT": "0",
        "FNGW_ENGINE": "process",
        "FNGW_WORKERS": "1",
        "EVENTS": str(tmp_path / "events.jsonl"),
    }
    site = Site(layout, env)
    try:
        yield site
    finally:
        site.clear()
        shutil.rmtree(run, ignore_errors=True)
