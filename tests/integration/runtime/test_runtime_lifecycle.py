"""Start, health and end of a real replica."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import cloudpickle
import pytest

from fngw import protocol
from fngw.errors import DeploymentFailed, from_problem

from .replica_process import eventually, runtime_variables

GREETER = {"target": "functions:Greeter", "is_class": True}


def by_value(folder: Path) -> Path:
    """A bundle with a class that lives nowhere else."""

    class Local:
        def __init__(self, number):
            self.number = number

        def __call__(self):
            return {"number": self.number}

    app = folder / "app"
    app.mkdir()
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        (app / "code.pkl").write_bytes(cloudpickle.dumps(Local))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    return app


def failure_of(replica):
    answer = replica.ready()
    assert answer.status_code == 500, answer.text
    error = from_problem(answer.json())
    assert isinstance(error, DeploymentFailed)
    return error


def test_a_pickle_by_value(start, folder):
    app = by_value(folder)
    replica = start(None, pickle="code.pkl", app_dir=str(app), is_class=True, init=((5,), {}))
    assert replica.get().json() == {"number": 5}


def test_the_collector_leaves_alone_what_was_imported(start):
    told = start("functions:Garbage", is_class=True).get().json()
    assert told["collecting"] and not told["left"]
    assert told["set_apart"] > 10_000


def test_a_pickle_of_another_python_is_not_loaded(start, folder):
    app = by_value(folder)
    (app / "code.pkl").write_bytes(b"cos\n_exit\n(I9\ntR.")  # would end the process
    error = failure_of(start(None, ready=False, pickle="code.pkl", app_dir=str(app), python="3.4"))
    assert error.code == "python_mismatch"
    assert "3.4" in error.message and error.hint


def test_async_constructor_and_config(start):
    replica = start("functions:AsyncStart", is_class=True, init=((1,), {}), user_config=41)
    assert replica.get().json() == 42


def test_user_config_is_applied_before_it_is_ready(start):
    replica = start(**GREETER, user_config={"threshold": 1})
    assert replica.get().json()["config"] == {"threshold": 1}


@pytest.mark.parametrize(
    ("code", "title", "frame", "config"),
    [
        (
            "constructor_failed",
            "ValueError: no weights at /nowhere",
            "in prepare",
            {"target": "functions:BadStart"},
        ),
        ("constructor_failed", "SystemExit: no licence", "sys.exit", {"target": "functions:ExitingStart"}),
        ("import_failed", "ModuleNotFoundError: No module named 'nowhere'", "nowhere", {"target": "nowhere:f"}),
        ("import_failed", "AttributeError", "no attribute 'nothing'", {"target": "functions:nothing"}),
        ("reconfigure_failed", "KeyError: 'fail'", "in reconfigure", {**GREETER, "user_config": {"fail": 1}}),
        ("unpickle_failed", "FileNotFoundError", "gone.pkl", {"target": None, "pickle": "gone.pkl"}),
    ],
)
def test_a_start_that_fails(start, code, title, frame, config):
    replica = start(ready=False, **{"is_class": True, **config})
    error = failure_of(replica)
    assert error.code == code and error.message.startswith("its ") and title in error.message
    assert frame in error.detail and "fngw_runtime" not in error.detail and "concurrent" not in error.detail
    assert replica.client.get(protocol.HEALTH_PATH).status_code == 500
    assert replica.get().status_code == 503
    assert frame in replica.text()
    replica.terminate()
    assert replica.wait() == 0


def test_the_socket_answers_during_construction(start, folder):
    replica = start("functions:SlowStart", ready=False, is_class=True, init=((str(folder / "go"),), {}))
    eventually(replica.socket.exists, "the socket is bound")
    assert replica.get().json()["code"] == "not_ready"
    assert replica.client.get(protocol.HEALTH_PATH).status_code == 503
    (folder / "go").touch()
    assert replica.ready().status_code == 200
    assert replica.get().text == "at last"


def test_stopped_during_construction(start, folder):
    replica = start("functions:SlowStart", ready=False, is_class=True, init=((str(folder / "go"),), {}))
    eventually(replica.socket.exists, "the socket is bound")
    assert replica.get().status_code == 503
    replica.terminate()
    assert replica.wait() == 0


def test_check_health(start, folder):
    replica = start("functions:Sick", is_class=True, init=((str(folder / "sick"),), {}))
    assert replica.client.get(protocol.HEALTH_PATH).status_code == 200
    (folder / "sick").touch()
    answer = replica.client.get(protocol.HEALTH_PATH)
    assert (answer.status_code, answer.json()["code"]) == (503, "unhealthy")
    assert "in check_health" in answer.json()["detail"]
    assert replica.get().text == "still here"


@pytest.mark.parametrize("way", ["http", "call"])
def test_sigterm_lets_requests_finish(start, folder, way):
    replica = start("functions:Worker", is_class=True, init=((str(folder),), {}))
    results: list[object] = []

    def ask() -> None:
        results.append(replica.get("/tested?n=1").text if way == "http" else replica.call("blocking"))

    asking = threading.Thread(target=ask)
    asking.start()
    eventually(lambda: list(folder.glob("begun-*")), "the request is under way")
    kept = replica.connect()  # a connection of the gateway's pool
    replica.terminate()
    eventually(lambda: "requests in flight: " in replica.text(), "it drains")
    assert replica.client.get(protocol.READY_PATH).status_code == 503
    replica.send("/tested?n=2", kept)  # was on its way already
    eventually((folder / "begun-2").exists, "the late request is under way")
    assert not (folder / "deleted").exists()
    (folder / "go").touch()
    asking.join(60)
    assert results == ["finished"]
    with kept:
        assert b"finished" in b"".join(iter(lambda: kept.recv(4096), b""))
    assert replica.wait() == 0
    assert (folder / "deleted").exists()
    assert replica.text().count("goodbye") == 1
    assert not replica.socket.exists()


def test_sigterm_with_nothing_in_flight_leaves_at_once(start, folder):
    replica = start("functions:Worker", is_class=True, init=((str(folder),), {}), graceful_shutdown_wait_loop_s=60)
    replica.terminate()
    assert replica.wait() == 0


def test_del_that_raises_is_logged(start, folder):
    (folder / "fail-to-delete").touch()
    replica = start("functions:Worker", is_class=True, init=((str(folder),), {}))
    replica.terminate()
    assert replica.wait() == 0
    assert "OSError: cannot let go" in replica.text() and "in __del__" in replica.text()


def test_a_stale_socket_is_replaced(start, folder):
    first = start("functions:hello")
    first.process.kill()
    first.process.wait()
    (folder / "r2").mkdir()
    stale = folder / "r2" / protocol.SOCKET_FILE
    first.socket.rename(stale)
    inode = stale.stat().st_ino
    second = start("functions:hello", ready=False)
    eventually(lambda: stale.stat().st_ino != inode, "the socket is another")
    assert second.get().status_code in (200, 503)
    assert second.ready().status_code == 200


def test_without_a_config_it_says_what_is_missing(folder):
    env = {**os.environ, **runtime_variables(folder)}
    done = subprocess.run([sys.executable, "-m", "fngw_runtime"], env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "replica.json" in done.stderr and protocol.REPLICA_DIR_VARIABLE in done.stderr
