"""A solve that nobody waits for any more stops at once, and leaves nothing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.channel.serve import FaultyServer
from uv import find_uv_bin

from fngw_builder.environment import requirements
from fngw_builder.environment.solve import solve
from fngw_builder.environment.sources import Sources
from fngw_builder.environment.target import Target


class Cancelled(Exception):
    pass


class Silent:
    def say(self, line: str) -> None: ...

    def progress(self, step: str, done: int | None = None, total: int | None = None, unit: str = "") -> None: ...


@contextmanager
def cancelled_when_asked(channel: FaultyServer, pattern: str) -> Iterator[None]:
    """Raise `Cancelled` in this thread once the server is asked for a path like `pattern`, and keeps silent."""
    done, heard = threading.Event(), False

    def watch() -> None:
        while not channel.count(pattern) and not done.wait(0.01):
            pass
        while not (heard or done.wait(0.1)):  # as `Flight` does
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def cancel(number: int, frame: object) -> None:
        nonlocal heard
        if not heard:
            heard = True
            raise Cancelled

    before = signal.signal(signal.SIGUSR1, cancel)
    channel.delay(pattern, seconds=60)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        signal.signal(signal.SIGUSR1, before)


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


@pytest.mark.parametrize(
    ("pattern", "dependencies"),
    [
        ("conda/noarch/*", ["legacylib"]),
        ("simple/*", [{"pip": ["pip-greeter"]}]),
        ("conda/*.conda", [{"pip": ["six"]}, "legacylib"]),
    ],
)
def test_a_cancelled_solve_stops_and_leaves_nothing(
    channel: FaultyServer, tmp_path: Path, pattern: str, dependencies: list[object]
) -> None:
    environ = {"UV_DEFAULT_INDEX": channel.index_url, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    sources = Sources(tmp_path / "cache", Path(find_uv_bin()), environ=environ)
    target = Target("linux-64", "2.36", None, "/opt/fngw/env", "/usr/bin/python3")
    wanted = requirements.read("3.11", {"dependencies": dependencies}, None, [channel.conda_url])
    before = children()
    began = time.monotonic()
    with pytest.raises(Cancelled), cancelled_when_asked(channel, pattern):
        solve(wanted, target, sources.serving(wanted), Silent())
    assert time.monotonic() - began < 50  # the server would be silent for 60 s
    assert children() == before
    assert not list(sources.cache.glob("stage/*"))
