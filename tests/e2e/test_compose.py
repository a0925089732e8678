"""``compose.yaml`` under a project name of its own: the examples, restarts, and what is left when it is down.

``fngw/server`` is made here when it is not up to date; ``make server-image`` before the tests saves the time.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from tests.ports import free_port

from fngw_controller.__main__ import installation_id

# On a machine that has made nothing yet, the images take minutes.
pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("compose"), pytest.mark.timeout(600)]

REPO = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SERVICES = {"redis", "gateway", "builder", "controller", "dispatcher"}
EXAMPLES = ("greeter", "square", "files", "compose")
NAMES = ("Greeter", "square", "archive", "Counter", "summary")
DEADLINE_S = 120.0

BY_HANDLE = """
import fngw
handle = fngw.get_deployment("Greeter").get_handle()
print(handle.greet.remote("Ada").result(timeout=60))
print(fngw.get([handle.greet.remote(name) for name in ("Grace", "Alan")], timeout=60))
print(fngw.get_deployment("Counter").get_handle().words.remote("no route of its own").result(timeout=60))
"""

DEPENDENT = """
import fngw


@fngw.deployment(pip=["--no-index", "--find-links ./wheels", "pip-greeter"])
def dependent():
    from importlib.metadata import version

    return version("pip-greeter")
"""


def until(what: str, condition: Callable[[], Any]) -> Any:
    """Return the first value of ``condition`` that is true."""
    end = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"waited {DEADLINE_S:g} s for {what}")
        time.sleep(0.05)
    return value


def client_command() -> list[str]:
    """Return the older or the newer command, whichever is there."""
    found = shutil.which("docker-compose")
    return [found] if found else ["docker", "compose"]


@dataclass
class Project:
    """One set of services, and what it leaves on the engine."""

    engine: docker.DockerClient
    name: str = field(default_factory=lambda: f"fngwtest{secrets.token_hex(3)}")
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "FNGW_PORT": str(self.port), "FNGW_URL": self.url}

    def compose(self, *words: str) -> str:
        return self._run([*client_command(), "-p", self.name, *words])

    def fngw(self, *words: str) -> str:
        return self._run([str(BIN / "fngw"), *words])

    def python(self, code: str) -> str:
        return self._run([sys.executable, "-c", code])

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=REPO, env=self.env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def label(self) -> dict[str, str]:
        return {"label": f"com.docker.compose.project={self.name}"}

    def services(self) -> dict[str, Any]:
        """The services' containers by name."""
        found = self.engine.containers.list(all=True, filters=self.label, ignore_removed=True)
        return {c.labels["com.docker.compose.service"]: c for c in found}

    def health(self) -> dict[str, str]:
        return {name: c.attrs["State"]["Health"]["Status"] for name, c in self.services().items()}

    @property
    def installation(self) -> dict[str, str]:
        volume = self.engine.volumes.get(f"{self.name}_data")
        return {"label": f"org.fngw.installation={installation_id(Path(volume.attrs['Mountpoint']))}"}

    def replica_containers(self) -> list[Any]:
        found: list[Any] = self.engine.containers.list(all=True, filters=self.installation, ignore_removed=True)
        return found

    def replicas(self) -> dict[str, set[str]]:
        """The ids of the serving replicas by deployment."""
        listed = httpx.get(f"{self.url}/-/api/v1/deployments", timeout=60).json().get("deployments", [])
        return {d["name"]: {r["id"] for r in d["replicas"] if r["state"] == "READY"} for d in listed}

    def answers(self, path: str = "/Greeter") -> bool:
        try:
            return httpx.get(f"{self.url}{path}", timeout=60).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def project(engine: docker.DockerClient) -> Iterator[Project]:
    """The services with the examples deployed. Nothing of them is left, or that is a failure."""
    make_images()
    project = Project(engine)
    try:
        project.compose("up", "-d")
        deploy_examples(project)
        yield project
    finally:
        take_down(project)


def deploy_examples(project: Project) -> None:
    try:
        until("the gateway", lambda: project.answers("/-/healthz"))
        for example in EXAMPLES:
            project.fngw("deploy", f"examples/{example}.py")
    except BaseException:
        print(project.compose("logs", "--no-color", "--tail", "50"))
        raise


def make_images() -> None:
    made = {**os.environ, "UV": str(BIN / "uv"), "PYTHON": "3.11"}
    for script in ("server-image/build.sh", "scripts/redis-image.sh"):
        done = subprocess.run([REPO / script], env=made, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def take_down(project: Project) -> None:
    """Take everything away, the state included, and see that it is gone."""
    engine, volumes = project.engine, project.engine.volumes.list(filters=project.label)
    filters = [project.label, *([project.installation] if volumes else [])]
    project.compose("down", "--volumes")
    containers = [c for f in filters for c in engine.containers.list(all=True, filters=f, ignore_removed=True)]
    for container in containers:
        container.remove(force=True)
    others = [n for f in filters for n in engine.networks.list(filters=f)]
    others += engine.volumes.list(filters=project.label)
    for other in others:
        other.remove()
    assert not containers + others, f"left behind: {[item.name for item in containers + others]}"


@pytest.mark.parametrize(
    ("method", "path", "body", "answer"),
    [
        ("GET", "/Greeter?name=Ada", None, "Hello, Ada!"),
        ("GET", "/square?x=7", None, '{"x":7.0,"square":49.0}'),
        ("GET", "/files/2024/report.txt", None, "".join(f"line {n} of /2024/report.txt\n" for n in (1, 2, 3))),
        ("POST", "/summary", "the quick brown fox", '{"words":4,"letters":16}'),
    ],
)
def test_the_examples_answer_over_http(
    project: Project, method: str, path: str, body: str | None, answer: str
) -> None:
    found = httpx.request(method, f"{project.url}{path}", content=body, timeout=60)
    assert (found.status_code, found.text) == (200, answer)


def test_the_examples_answer_by_handle(project: Project) -> None:
    assert project.python(BY_HANDLE).splitlines() == ["Hello, Ada!", "['Hello, Grace!', 'Hello, Alan!']", "5"]


def test_dependencies_are_built(project: Project, channel_tree: Any, tmp_path: Path) -> None:
    """From wheels in the bundle: the builder's container reaches no index on this machine's loopback."""
    (tmp_path / "wheels").mkdir()
    for wheel in (channel_tree.root / "files").glob("*.whl"):
        shutil.copy(wheel, tmp_path / "wheels")
    (tmp_path / "dependent.py").write_text(DEPENDENT)
    project.fngw("deploy", str(tmp_path / "dependent.py"))
    assert httpx.get(f"{project.url}/dependent", timeout=60).text == "1.0.0"
    project.fngw("delete", "dependent")


def test_the_command_line_sees_containers_and_their_logs(project: Project) -> None:
    assert httpx.get(f"{project.url}/-/api/v1/info", timeout=60).json()["engine"]["name"] == "docker"

    def statuses() -> dict[str, str]:
        return {d["name"]: d["status"] for d in json.loads(project.fngw("list", "--json"))["deployments"]}

    until("healthy deployments", lambda: statuses() == dict.fromkeys(NAMES, "HEALTHY"))
    assert len(project.replica_containers()) == len(NAMES) + 1  # two Greeters
    project.fngw("logs", "Greeter")


def test_every_service_is_healthy(project: Project) -> None:
    until("healthy services", lambda: project.health() == dict.fromkeys(SERVICES, "healthy"))


def test_only_the_gateway_is_published_and_only_on_this_machine(project: Project) -> None:
    ports = {name: container.attrs["HostConfig"]["PortBindings"] for name, container in project.services().items()}
    assert {name for name, bound in ports.items() if bound} == {"gateway"}
    assert ports["gateway"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(project.port)}]}


def test_the_password_is_random_and_seen_by_servers_alone(project: Project) -> None:
    services = project.services()
    password = services["gateway"].exec_run("cat /run/secrets/fngw/redis-password").output.decode().strip()
    assert len(password) >= 32
    inspected = json.dumps([c.attrs for c in (*services.values(), *project.replica_containers())])
    assert password not in inspected
    refused = services["redis"].exec_run("redis-cli -s /run/fngw/shared/redis.sock ping").output
    assert b"NOAUTH" in refused
    replica = project.replica_containers()[0]
    assert {m["Destination"] for m in replica.attrs["Mounts"]} == {"/run/fngw/replica", "/run/fngw/shared"}


def test_restarted_services_keep_the_replicas(project: Project) -> None:
    before = project.replicas()
    project.compose("restart", "redis", "gateway", "builder")
    until("an answer", project.answers)
    until("the same replicas", lambda: project.replicas() == before)
    # All of it works together again: a deploy needs every one of them.
    project.fngw("deploy", "examples/square.py")
    after = project.replicas()
    assert after.pop("square") != before.pop("square")
    assert after == before


def log_since_start(project: Project) -> str:
    """What the controller has logged since it was started again; empty before it has."""
    controller = project.services()["controller"]
    lives, restarts = controller.logs().decode().split("engine: Docker"), controller.attrs["RestartCount"]
    return lives[-1] if restarts and len(lives) > restarts + 1 else ""


def test_down_leaves_no_replica_even_of_a_controller_that_was_killed(project: Project) -> None:
    controller = project.services()["controller"]
    os.kill(controller.attrs["State"]["Pid"], 9)  # not by the engine, which would take it for a stop
    # It is started again, and mostly has to wait for the lease of its former life, when it has to stop at once.
    words = ("waiting for its lease to end", "leading with token")
    until("the controller to come back", lambda: any(word in log_since_start(project) for word in words))
    project.compose("down")
    assert not project.services()
    assert not project.replica_containers()
    assert not project.engine.networks.list(filters=project.installation)
    project.compose("up", "-d")
    until("the examples to come back", lambda: all(map(project.answers, ("/Greeter", "/square?x=2", "/files/a"))))
    assert project.replicas().keys() == set(NAMES)
