"""``fngw logs``, as its readers know it from others: it follows a deployment, not the replicas of one moment."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

APP = """
import fngw

@fngw.deployment
class App:
    def __init__(self):
        print("constructed", flush=True)

    def __call__(self, request):
        print("asked by", request.query_params["name"], flush=True)
"""


class Followed:
    """The lines of a command that goes on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line.rstrip("\n"))

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._reader.join(10)

    def until(self, wanted: str) -> list[str]:
        """Return the lines up to ``wanted``."""
        seen = []
        while wanted not in seen:
            try:
                seen.append(self._lines.get(timeout=60))
            except queue.Empty:
                pytest.fail(f"no line {wanted!r} came, but {seen}")
        return seen


@contextmanager
def following(stack, name: str) -> Iterator[Followed]:
    command = [*stack.fngw("list").args[:1], "logs", name, "-f"]
    log = Followed(subprocess.Popen(command, env=stack.env, stdout=subprocess.PIPE, text=True))
    try:
        yield log
    finally:
        log.end()


def ask(stack, name: str, who: str) -> None:
    assert httpx.get(f"{stack.url}/{name}", params={"name": who}, timeout=60).status_code == 200


def test_a_deployment_is_followed_over_updates_and_crashes_to_its_end(stack, project, wait):
    app = project(stack)
    app.write(APP)
    (first,) = app.deployed(version="1")
    with following(stack, app.name) as log:
        ask(stack, app.name, "Ada")
        assert f"{first} | constructed" in log.until(f"{first} | asked by Ada")

        ((second, pid),) = app.deployed(version="2").items()
        ask(stack, app.name, "Bo")
        assert f"{second} | constructed" in log.until(f"{second} | asked by Bo")

        os.kill(pid, signal.SIGKILL)
        (third,) = wait(lambda: stack.replicas(app.name).keys() - {second}, "another replica")
        ask(stack, app.name, "Cy")
        assert f"{third} | constructed" in log.until(f"{third} | asked by Cy")

        stack.fngw("delete", app.name)
        assert log.process.wait(60) == 0

    (new,) = app.deployed()
    # An engine's log has a line a moment after it was written.
    lines = wait(lambda: stack.fngw("logs", app.name).stdout.splitlines(), "its first line")
    assert lines == [f"{new} | constructed"]
