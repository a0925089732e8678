"""A whole fngw per engine, started as a user starts it, shared by the tests of one worker.

``stack`` runs each test twice: on containers and on local processes. ``docker_stack`` and ``process_stack`` name
one. Each test deploys under names of its own (``unique``) and the deployments are deleted after it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

BIN = Path(sys.executable).parent
DEADLINE_S = 60.0


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return the first true value of ``condition``; fail, naming ``what``, when none comes in time."""
    until = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            pytest.fail(f"waited {deadline_s:g} s for {what}")
        time.sleep(0.02)


@dataclass
class Stack:
    """One running fngw."""

    engine: str
    data_dir: Path
    url: str

    @property
    def env(self) -> dict[str, str]:
        """The environment of a command that talks to this stack."""
        return {**os.environ, "FNGW_URL": self.url, "FNGW_DATA_DIR": str(self.data_dir)}

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30)

    def fngw(self, *words: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run one fngw command."""
        command = [str(BIN / "fngw"), *words]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=120, **more)
        if check and done.returncode:
            raise AssertionError(f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def python(self, code: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a script as a user does: code in ``__main__``, the stack's URL in the environment."""
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=120, **more)

    def status(self, name: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/-/api/v1/deployments/{name}", timeout=10)
        answer.raise_for_status()
        return answer.json()

    def replicas(self, name: str) -> dict[str, int]:
        """The serving replicas: id → pid."""
        return {r["id"]: r["pid"] for r in self.status(name)["replicas"] if r["state"] == "READY"}

    def log(self, part: str) -> str:
        path = self.data_dir / "logs" / f"{part}.log"
        return path.read_text() if path.exists() else ""


def start_stack(engine: str, *words: str) -> Stack:
    """Start an fngw on an empty data directory and a free port."""
    data = Path(tempfile.mkdtemp(prefix="fngw-e2e-"))
    # Port 0: the supervisor picks one, and tells it in its lock file.
    where = ("--engine", engine, "--port", "0", "--data-dir", str(data))
    command = [str(BIN / "fngw"), "up", "--detach", *where, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    if done.returncode:
        log = data / "logs" / "up.log"
        raise AssertionError(f"fngw up: {done.stdout}{done.stderr}{log.read_text() if log.exists() else ''}")
    held = json.loads((data / "fngw.lock").read_text())
    return Stack(engine, data, held["url"])


def stop_stack(stack: Stack) -> None:
    """Stop it; what it leaves behind is a failure."""
    done = stack.fngw("down", "--data-dir", str(stack.data_dir), check=False)
    left = leftovers(stack)
    shutil.rmtree(stack.data_dir, ignore_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not left, f"left behind: {left}"


def leftovers(stack: Stack) -> list[str]:
    """Processes that still name this stack's data directory in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes()
        except OSError:
            continue
        if str(stack.data_dir).encode() in environment and int(path.name) != os.getpid():
            found.append(f"{path.name}: {(path / 'cmdline').read_bytes()!r}")
    return found


@pytest.fixture(scope="session")
def docker_stack() -> Iterator[Stack]:
    stack = start_stack("docker")
    yield stack
    stop_stack(stack)


@pytest.fixture(scope="session")
def process_stack() -> Iterator[Stack]:
    stack = start_stack("process")
    yield stack
    stop_stack(stack)


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "process"])
def stack(request: pytest.FixtureRequest) -> Stack:
    return request.getfixturevalue(f"{request.param}_stack")


@pytest.fixture
def unique() -> str:
    """A deployment name that no other test uses."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture(autouse=True)
def delete_deployments(request: pytest.FixtureRequest) -> Iterator[None]:
    """Delete what a test deployed on the stacks that it used."""
    yield
    for name in ("docker_stack", "process_stack"):
        if name in request.fixturenames or "stack" in request.fixturenames:
            stack = _running(request, name)
            if stack is not None:
                with stack.http as http:
                    for entry in http.get("/-/api/v1/deployments").json()["deployments"]:
                        http.delete(f"/-/api/v1/deployments/{entry['name']}")


def _running(request: pytest.FixtureRequest, name: str) -> Stack | None:
    """The stack of this name, if the test ran on it."""
    if name in request.fixturenames:
        return request.getfixturevalue(name)
    callspec = getattr(request.node, "callspec", None)
    if callspec and f"{callspec.params.get('stack')}_stack" == name:
        return request.getfixturevalue(name)
    return None
