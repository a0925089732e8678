"""Installations on a machine with a GPU, and a PyTorch for their replicas.

None of this is collected by ``pytest tests``: the files are named ``check_…``, and ``make test-gpu`` names them.

``FNGW_TEST_TORCH``      what to install (``torch``); ``installed``: use the one that is, as it takes gigabytes
``FNGW_TEST_ROUNDS``     how often a pair is measured against one (3)
``FNGW_TEST_SECONDS``    for how long (4)
``FNGW_TEST_PROCESSES``  ``seen``: the driver's process ids are those of this container
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import Stack, start_stack, stop_stack, wait_for

from . import mps

HERE = Path(__file__).parent
APP = HERE / "app.py"
#: The first process table of a machine: whoever has another one does not see all processes by their numbers.
ALL_PROCESSES = "pid:[4026531836]"
mps_starts = functools.cache(mps.starts)


def pytest_report_header() -> list[str]:
    """Say what of the checks cannot be made here, as they are then not there at all."""
    lines = [f"engines: {', '.join(engines())}"]
    if not sees_all_processes():
        lines.append("this is a container: who uses what cannot be seen from inside, and is not checked")
    if mps.CONTROL is None:
        lines.append("nvidia-cuda-mps-control is not here: the limits of shares are not checked")
    elif not mps_starts():
        lines.append("MPS cannot be started here: the limits of shares are not checked")
    return lines


def sees_all_processes() -> bool:
    if os.environ.get("FNGW_TEST_PROCESSES") == "seen":
        return True
    try:
        return str(Path("/proc/self/ns/pid").readlink()) == ALL_PROCESSES
    except OSError:  # a sandbox whose kernel has no such thing
        return False


@functools.cache
def engines() -> list[str]:
    """Local processes; containers, too, where an engine gives them GPUs."""
    docker = shutil.which("docker")
    answered = docker and subprocess.run([docker, "info"], capture_output=True, timeout=60).returncode == 0
    hooked = shutil.which("nvidia-container-runtime-hook") or Path("/etc/cdi").is_dir()
    return ["process", "docker"] if answered and hooked else ["process"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "site" in metafunc.fixturenames:
        # The daemon is this user's, and containers run as another.
        found = ["process"] if "daemon" in metafunc.fixturenames else engines()
        metafunc.parametrize("site", found, indirect=True, scope="module")


@dataclass
class Site:
    """An installation, on which the app is deployed under several names."""

    stack: Stack
    pipes: Path  # where it looks for MPS
    torch: tuple[str, ...] = field(default=())  # options that bring PyTorch

    def deploy(self, name: str, **options: Any) -> list[str]:
        """Deploy; return the replicas' ids."""
        given = {"name": name, "route_prefix": f"/{name}", **options}
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in given.items()}
        words = [word for key, text in texts.items() for word in ("--set", f"{key}={text}")]
        self.stack.fngw("deploy", str(APP), *words, *self.torch, timeout=1800)
        return list(self.stack.replicas(name))

    def ask(self, name: str, **query: Any) -> dict[str, Any]:
        answer = httpx.get(f"{self.stack.url}/{name}", params=query, timeout=300)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def ask_all(self, name: str, replicas: int, **query: Any) -> list[dict[str, Any]]:
        """Ask each replica at the same time: each takes one request at a time."""
        with ThreadPoolExecutor(replicas) as pool:
            return [job.result() for job in [pool.submit(self.ask, name, **query) for _ in range(replicas)]]

    def delete(self, name: str) -> None:
        self.stack.fngw("delete", name)
        wait_for(lambda: not self.leases(), "the leases to be given back")

    def empty(self) -> None:
        """Delete all: else the next one would wait for the GPU for ever."""
        for deployment in json.loads(self.stack.fngw("list", "--json").stdout)["deployments"]:
            self.delete(deployment["name"])

    def gpus(self) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.stack.url}/-/api/v1/gpus", timeout=30)
        return list(answer.raise_for_status().json()["gpus"])

    def leases(self) -> list[dict[str, Any]]:
        return [lease for gpu in self.gpus() for lease in gpu["leases"]]


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    engine = request.param
    if engine == "docker":
        script = HERE.parents[1] / "runtime-image" / "build.sh"
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([script], check=True, env={**os.environ, "PYTHON": version, "UV": uv})
    pipes = Path(tempfile.mkdtemp(prefix="fngw-mps-"))
    stack = start_stack(engine, CUDA_MPS_PIPE_DIRECTORY=str(pipes))
    try:
        yield Site(stack, pipes, torch_for(stack))
    finally:
        stop_stack(stack)
        shutil.rmtree(pipes, ignore_errors=True)


@pytest.fixture
def daemon(site: Site) -> Iterator[None]:
    """MPS, for the replicas that are started while the test runs; it does not end before them."""
    found = mps.Mps(site.pipes)
    try:
        assert found.start()
        yield
        site.empty()
    finally:
        found.stop()


@pytest.fixture(autouse=True)
def emptied(site: Site) -> Iterator[None]:
    """Leave nothing deployed for the next check."""
    yield
    site.empty()


def torch_for(stack: Stack) -> tuple[str, ...]:
    """Return the options that bring PyTorch: from the index, else, for local processes, one that is installed."""
    wanted = os.environ.get("FNGW_TEST_TORCH", "torch")
    found = _installed() if stack.engine == "process" else None
    if found is not None and wanted == "installed":
        return found
    options = ("--set", "pip=" + json.dumps(["torch" if wanted == "installed" else wanted]))
    done = stack.fngw("build", f"{APP}:Share", *options, check=False, timeout=1800)
    if done.returncode == 0:
        return options
    assert found is not None, f"PyTorch comes neither from an index nor is it installed: {done.stdout}{done.stderr}"
    return found


def _installed() -> tuple[str, ...] | None:
    """PyTorch of this interpreter, which local processes run on; else that of another one that is as new."""
    if importlib.util.find_spec("torch") is not None:
        return ()
    own = f"{sys.version_info[0]} {sys.version_info[1]} "
    # Found, not imported: that can take minutes from a cold disk.
    code = "import importlib.util as u, sys; print(*sys.version_info[:2], u.find_spec('torch').origin)"
    for folder in [*os.environ["PATH"].split(os.pathsep), "/usr/local/bin", "/usr/bin", "/opt/conda/bin"]:
        python = shutil.which("python3", path=folder)
        if python is not None:
            done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=120)
            if done.returncode == 0 and done.stdout.startswith(own):
                packages = Path(done.stdout.removeprefix(own).strip()).parents[1]
                return ("--set", "env=" + json.dumps({"TORCH_FOLDER": str(packages)}))
    return None
