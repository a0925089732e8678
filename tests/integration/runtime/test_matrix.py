"""The runtime on every Python that it promises, with the newest packages that install there and with old ones.

The interpreters are those that are here, in pyenv's folder or on PATH; the running one is always among them.
"""

from __future__ import annotations

import http.server
import os
import re
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fngw import protocol
from fngw.handles import DeploymentHandle
from fngw.pickles import pickle_arguments
from fngw_runtime import frames

from .redis_server import RedisServer
from .replica_process import HERE, ReplicaProcess, eventually

OLDEST, NEWEST = 7, 13
UV = str(Path(sys.executable).with_name("uv"))

NEW_PINS = ["fastapi>=0.100", "uvicorn", "starlette", "cloudpickle", "redis", "httptools", "uvloop"]
OLD_PINS = ["uvicorn==0.13.*", "cloudpickle==1.6.*"]


def old_pins(minor: int) -> list[str]:
    """Early packages, of those that work on this Python at all."""
    web = ["fastapi==0.63.*", "starlette==0.13.*", "pydantic==1.7.*"]
    if minor > 10:  # before 0.15, Starlette gives coroutines to asyncio.wait, which takes tasks only now
        web = ["fastapi==0.70.*", "starlette==0.16.*", "pydantic==1.10.*"]
    redis = "redis==3.5.*" if minor <= 11 else "redis==4.5.*"  # 3.5 needs distutils
    return [*OLD_PINS, *web, redis]


def interpreters() -> dict[str, str]:
    """``X.Y`` → the path of an interpreter."""
    found = {f"3.{minor}": interpreter(f"3.{minor}") for minor in range(OLDEST, NEWEST + 1)}
    return {**{version: path for version, path in found.items() if path}, HERE: sys.executable}


def interpreter(version: str) -> str:
    """The newest of this version in pyenv's folder, else what PATH has, else nothing."""
    folders = [path for path in pyenv_versions() if re.fullmatch(re.escape(version) + r"\.\d+", path.name)]
    newest = sorted(folders, key=lambda path: int(path.name.rpartition(".")[2]))[-1:]
    named = [str(path / "bin" / "python") for path in newest] + [shutil.which(f"python{version}") or ""]
    return next((path for path in named if path and runs(path)), "")


def pyenv_versions() -> list[Path]:
    root = os.environ.get("PYENV_ROOT", "")
    return list(Path(root, "versions").glob("3.*")) if root else []


def runs(path: str) -> bool:
    """Whether it is an interpreter: one of pyenv's shims on PATH may only say that it is not."""
    return subprocess.run([path, "-c", ""], capture_output=True).returncode == 0


PYTHONS = interpreters()


class Gateway(socketserver.ThreadingUnixStreamServer):
    """Passes calls by handle on to replicas, as the gateway does: name → replica."""

    daemon_threads = True

    def __init__(self, shared: Path) -> None:
        self.replicas: dict[str, ReplicaProcess] = {}
        super().__init__(str(shared / protocol.GATEWAY_SOCKET_FILE), Forward)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class Forward(http.server.BaseHTTPRequestHandler):
    """One connection of a caller."""

    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        name, _, method = self.path[len(protocol.CALL_PREFIX) :].partition("/")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.server.replicas[name].socket))) as client:
            answer = client.post(f"http://r{protocol.REPLICA_CALL_PREFIX}{method}", content=body, timeout=60)
        self.send_response(answer.status_code)
        self.send_header("content-type", answer.headers["content-type"])
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def address_string(self) -> str:
        return "a Unix socket"

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def here() -> Iterator[ReplicaProcess]:
    """A replica on the running Python, for the others to call."""
    with tempfile.TemporaryDirectory(prefix="fngw-", dir="/tmp") as folder:
        replica = ReplicaProcess(Path(folder), "functions:Greeter", is_class=True, init=(("hello",), {}))
        assert replica.ready().status_code == 200
        yield replica
        replica.close()


@pytest.fixture
def gateway(folder: Path) -> Iterator[Gateway]:
    with Gateway(folder) as gateway:
        yield gateway
        gateway.shutdown()


@pytest.fixture(params=[f"{version}-{age}" for version in PYTHONS for age in ("new", "old")])
def environment(request: pytest.FixtureRequest, folder: Path) -> tuple[str, str]:
    """A Python's ``X.Y`` and the interpreter of an environment that has the packages."""
    version, age = request.param.split("-")
    pins = NEW_PINS if age == "new" else old_pins(int(version.split(".")[1]))
    python = str(folder / "env" / "bin" / "python")
    quietly(UV, "venv", "--no-project", "--python", PYTHONS[version], str(folder / "env"))
    quietly(UV, "pip", "install", "--python", python, "--only-binary", ":all:", *pins)
    return version, python


def quietly(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_the_running_python_is_among_them() -> None:
    assert PYTHONS[HERE] == sys.executable


def test_it_serves(
    environment: tuple[str, str],
    folder: Path,
    gateway: Gateway,
    here: ReplicaProcess,
    server: RedisServer,
    start: Callable[..., ReplicaProcess],
    connect: Callable[..., Any],
) -> None:
    version, python = environment
    options = {"interpreter": python, "python": version, "shared_dir": str(folder), "ready": False}
    best = 4 if version == "3.7" else 5
    handles = [DeploymentHandle("there", pickle_protocol=best), DeploymentHandle("here")]
    init = pickle_arguments(tuple(handles), {}, version).data
    site = start("matrix_app:Site", is_class=True, init=init, **options)
    greeter = start("functions:Greeter", is_class=True, redis=server.where(), **options)
    echo = start("functions:echo", **options)
    gateway.replicas.update(there=greeter, here=here)
    for replica in (echo, greeter, site):
        answer = replica.ready()
        assert answer.status_code == 200, answer.text + replica.text()

    check_functions(echo, greeter, best)
    check_site(site, connect(site, "/tested/chat"))
    check_handles(site, best)
    check_configuration(server, greeter)
    check_the_end([echo, greeter, site])


def check_functions(echo: ReplicaProcess, greeter: ReplicaProcess, best: int) -> None:
    said = echo.request("POST", "/tested/a?x=1", content=b"body").json()
    assert (said["path"], said["root_path"]) == ("/tested/a", "/tested")
    assert (said["query"], said["body"]) == ({"x": "1"}, "body")
    assert greeter.get().json() == {"message": "hi", "config": None}
    assert greeter.call("greet", "you", end="?", pickle_protocol=best) == "hi you?"
    if best < protocol.BEST_PICKLE:
        assert "pickle protocol" in greeter.call("greet", "you")["message"]
    failure = greeter.call("crash", pickle_protocol=best)
    assert (failure["type"], failure["code"]) == ("LookupError", "user_exception")
    assert "in crash" in failure["traceback"] and "fngw_runtime" not in failure["traceback"]
    answer = greeter.client.post("/-/call/greet", content=b"FNGW1 and rubbish")
    assert protocol.decode_frame(answer.content)["code"] == "undecodable_call"


def check_site(site: ReplicaProcess, socket: Any) -> None:
    assert site.get("/tested/items/5?q=a").json() == {"item": 5, "q": "a"}
    assert site.get("/tested/items/five").status_code == 422
    assert site.get("/tested/openapi.json").json()["paths"].keys() == {"/items/{item}", "/stream"}
    assert site.get("/tested/stream").text == "part 0\npart 1\npart 2\n"
    socket.send(frames.TEXT, b"hello")
    assert socket.receive() == (frames.TEXT, b"hello")


def check_handles(site: ReplicaProcess, best: int) -> None:
    assert site.call("greetings", "you", "?", pickle_protocol=best) == ["hi you?", "hello you?"]
    told = site.call("crash_of_another", pickle_protocol=best)
    assert told == ("RemoteError", "user_exception", "LookupError")


def check_configuration(server: RedisServer, greeter: ReplicaProcess) -> None:
    server.put(1)
    assert server.applied(1)["error"] is None
    assert greeter.get().json()["config"] == {"n": 1, "fail": False}
    server.put(13)
    assert server.applied(13)["error"]["code"] == "reconfigure_failed"


def check_the_end(replicas: list[ReplicaProcess]) -> None:
    for replica in replicas:
        replica.terminate()
    for replica in replicas:
        assert replica.wait() == 0, "with nothing under way it does not take its whole grace"
        assert "unfinished" not in replica.text()
        eventually(lambda replica=replica: not replica.socket.exists(), "the socket is gone")
