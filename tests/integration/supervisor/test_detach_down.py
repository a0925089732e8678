"""`fngw up --detach` and `fngw down`, and what is left by a supervisor that was killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from tests.integration.supervisor.conftest import STAND_IN, Site, alive, eventually

from fngw.errors import FngwError
from fngw_supervisor.detach import detach
from fngw_supervisor.down import down
from fngw_supervisor.lock import LOCK_FILE, Running, holders, is_free
from fngw_supervisor.takeover import take_lock

Told = list[tuple[str, str]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def detached(site: Site, told: Told, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A detached fngw with stand-in parts."""
    for name, value in site.env.items():
        monkeypatch.setenv(name, value)
    detach(site.layout, lambda *line: told.append(line), (sys.executable, str(STAND_IN), "up", "--ready-fd"))
    running = Running.read(site.layout.data / LOCK_FILE)
    assert running
    try:
        yield running
    finally:
        if alive(running.pid):
            os.kill(running.pid, signal.SIGKILL)
        reap(running.pid)


def reap(pid: int) -> None:
    """Wait for a child of this test process, which nobody else will."""
    try:
        eventually(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)
    except ChildProcessError:
        return


def test_detach_returns_when_healthy_and_down_stops(site: Site, detached: Running, told: Told) -> None:
    subjects = dict(told)
    assert detached.url in subjects["ready"]
    assert subjects["log"] == str(site.layout.logs / "up.log")
    assert os.getsid(detached.pid) == detached.pid, "it survives this terminal"
    pids = site.pids()
    down(site.layout.data, lambda *line: told.append(line))
    assert is_free(site.layout.data / LOCK_FILE)
    assert not any(map(alive, pids))
    assert told[-1] == ("down", "stopped")


def test_detach_on_a_running_one_says_so(site: Site, detached: Running, told: Told) -> None:
    with pytest.raises(FngwError) as caught:
        detach(site.layout, lambda *line: told.append(line))
    assert caught.value.code == "already_running"
    assert str(detached.pid) in caught.value.message


def test_detach_of_one_that_fails_shows_its_log(site: Site, told: Told) -> None:
    argv = (sys.executable, "-c", "print('no luck'); raise SystemExit(1)")
    with pytest.raises(FngwError) as caught:
        detach(site.layout, lambda *line: told.append(line), argv)
    assert caught.value.code == "up_failed"
    assert caught.value.detail == "no luck"
    assert "ended with code 1" in caught.value.message


def test_detach_of_one_that_never_gets_healthy_stops_it(site: Site, told: Told) -> None:
    argv = (sys.executable, "-c", "import time, sys; print(sys.argv[1]); time.sleep(600)")
    with pytest.raises(FngwError, match=r"was not healthy after 0\.3 s, and was stopped"):
        detach(site.layout, lambda *line: told.append(line), argv, ready_s=0.3)


def test_down_of_nothing_is_no_error(site: Site, told: Told) -> None:
    down(site.layout.data, lambda *line: told.append(line))
    assert told == [("down", f"no fngw is running on {site.layout.data}")]


def test_down_that_takes_too_long_says_so(site: Site, told: Told) -> None:
    site.up_ready(BEHAVIOUR=json.dumps({"controller": "stubborn"}))
    site.pid("controller")
    with pytest.raises(FngwError) as caught:
        down(site.layout.data, lambda *line: told.append(line), deadline_s=0.2)
    assert caught.value.code == "still_running"


def test_stubborn_parts_of_a_killed_one_are_found_and_killed(site: Site, told: Told) -> None:
    process = site.up_ready(BEHAVIOUR=json.dumps({"controller": "stubborn"}))
    controller = site.pid("controller")
    path = site.layout.data / LOCK_FILE
    process.kill()
    process.wait(60)
    eventually(lambda: holders(path) == [controller])
    take_lock(site.layout.data, lambda *line: told.append(line), leftovers_s=0.2).release()
    assert not alive(controller)
    assert f"killing processes {controller}" in told[-1][1]


def test_down_ends_what_a_killed_one_left(site: Site, told: Told) -> None:
    process = site.up_ready(BEHAVIOUR=json.dumps({"builder": "stubborn"}))
    builder = site.pid("builder")
    process.kill()
    process.wait(60)
    eventually(lambda: holders(site.layout.data / LOCK_FILE) == [builder])
    with pytest.raises(FngwError, match=f"processes {builder}"):
        down(site.layout.data, lambda *line: told.append(line), deadline_s=0.1)
    os.kill(builder, signal.SIGKILL)
    eventually(lambda: is_free(site.layout.data / LOCK_FILE))
