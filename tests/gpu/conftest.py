"""Installations on a machine with a GPU, and a PyTorch for their replicas.

None of this is collected by ``pytest tests``: the files are named ``check_…``, and ``make test-gpu`` names them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import Stack, start_stack, stop_stack, wait_for

HERE = Path(__file__).parent
APP = HERE / "app.py"
#: The first process table of a machine: whoever has another one does not see all processes by their numbers.
ALL_PROCESSES = "pid:[4026531836]"
MPS = shutil.which("nvidia-cuda-mps-control")


def pytest_report_header() -> list[str]:
    """Say what of the checks cannot be made here, as they are then not there at all."""
    lines = [f"engines: {', '.join(engines())}"]
    if not sees_all_processes():
        lines.append("this is a container: who uses what cannot be seen from inside, and is not checked")
    if not MPS:
        lines.append("nvidia-cuda-mps-control is not here: the limits of shares are not checked")
    return lines


def sees_all_processes() -> bool:
    return str(Path("/proc/self/ns/pid").readlink()) == ALL_PROCESSES


def engines() -> list[str]:
    """Local processes; containers, too, where an engine gives them GPUs."""
    docker = shutil.which("docker")
    answered = docker and subprocess.run([docker, "info"], capture_output=True).returncode == 0
    hooked = shutil.which("nvidia-container-runtime-hook") or Path("/etc/cdi").is_dir()
    return ["process", "docker"] if answered and hooked else ["process"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "site" in metafunc.fixturenames:
        metafunc.parametrize("site", engines(), indirect=True, scope="module")


@dataclass
class Site:
    """An installation, on which the app is deployed under several names."""

    stack: Stack
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

    def gpus(self) -> list[dict[str, Any]]:
        return list(json.loads(self.stack.fngw("gpus", "--json").stdout)["gpus"])

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
    stack = start_stack(engine)
    try:
        yield Site(stack, torch_for(stack))
    finally:
        stop_stack(stack)


@pytest.fixture(autouse=True)
def emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave nothing deployed for the next check: it would wait for the GPU for ever."""
    yield
    site = request.getfixturevalue("site") if "site" in request.fixturenames else None
    if site is not None:
        for deployment in json.loads(site.stack.fngw("list", "--json").stdout)["deployments"]:
            site.delete(deployment["name"])


@pytest.fixture
def site_with_mps() -> Iterator[Callable[[], Site]]:
    """Starts NVIDIA's MPS daemon, and an installation that knows of it; both end with the test."""
    folder = Path(tempfile.mkdtemp(prefix="fngw-mps-"))
    variables = {"CUDA_MPS_PIPE_DIRECTORY": str(folder / "pipe"), "CUDA_MPS_LOG_DIRECTORY": str(folder / "log")}
    env = {**os.environ, **variables}
    for path in variables.values():
        Path(path).mkdir()
    stacks: list[Stack] = []

    def start() -> Site:
        assert MPS
        subprocess.run([MPS, "-d"], check=True, env=env, timeout=60)
        wait_for(lambda: (folder / "pipe" / "control").exists(), "the MPS daemon")
        stacks.append(start_stack("process", CUDA_MPS_PIPE_DIRECTORY=variables["CUDA_MPS_PIPE_DIRECTORY"]))
        return Site(stacks[0], torch_for(stacks[0]))

    try:
        yield start
    finally:
        for stack in stacks:
            stop_stack(stack)
        assert MPS
        subprocess.run([MPS], input="quit\n", text=True, env=env, timeout=60, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def torch_for(stack: Stack) -> tuple[str, ...]:
    """Return the options that bring PyTorch: from the index, else, for local processes, one that is installed.

    ``FNGW_TEST_TORCH`` set to ``installed`` does not try the index: it takes gigabytes.
    """
    found = _installed() if stack.engine == "process" else None
    if found is not None and os.environ.get("FNGW_TEST_TORCH") == "installed":
        return found
    done = stack.fngw("build", f"{APP}:Share", "--set", 'pip=["torch"]', check=False, timeout=1800)
    if done.returncode == 0:
        return ("--set", 'pip=["torch"]')
    assert found is not None, f"PyTorch comes neither from an index nor is it installed: {done.stdout}{done.stderr}"
    return found


def _installed() -> tuple[str, ...] | None:
    """PyTorch of this interpreter, which local processes run on; else that of the system's, if it is as new."""
    if importlib.util.find_spec("torch") is not None:
        return ()
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin:/opt/conda/bin")
    if python is None:
        return None
    code = "import sys, torch, pathlib; print(*sys.version_info[:2], pathlib.Path(torch.__file__).parents[1])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=120)
    own = f"{sys.version_info[0]} {sys.version_info[1]} "
    if done.returncode or not done.stdout.startswith(own):
        return None
    folder = done.stdout.removeprefix(own).strip()
    return ("--set", "env=" + json.dumps({"PYTHONPATH": folder}))
