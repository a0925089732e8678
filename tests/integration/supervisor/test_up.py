"""`fngw up`: starts, restarts, stops in order, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from pathlib import Path

import pytest
from tests.integration.supervisor.conftest import Site, alive, eventually


@pytest.fixture(params=["", "1"], ids=["programs", "forks"], autouse=True)
def forked(request: pytest.FixtureRequest, site: Site) -> None:
    """All of this holds for parts that are programs of their own, and for those that the nursery forks."""
    site.env["FORKED"] = request.param


def get(url: str) -> int:
    """The pid of the gateway that answers."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return int(answer.read())


def test_serves_and_stops_in_order(site: Site) -> None:
    process = site.up_ready(FNGW_WORKERS="2")
    assert get(site.url) in (site.pid("gateway-1"), site.pid("gateway-2"))
    eventually(lambda: len(site.events("lives")) == 5)  # all but Redis, which tells nothing
    everybody = site.pids()
    assert len(everybody) == 6
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, site.output
    ended = [e["part"] for e in site.events("end")]
    assert ended[:2] == ["dispatcher", "controller"]
    assert sorted(ended[2:4]) == ["gateway-1", "gateway-2"]
    assert ended[4:] == ["builder"]
    assert all(e["redis"] for e in site.events("end")), "Redis outlives everybody else"
    assert not any(map(alive, everybody))
    assert not site.layout.gateway_socket.exists()


def test_the_output_says_what_runs(site: Site) -> None:
    site.up_ready()
    assert "replicas are local processes, without isolation" in site.output
    assert "embedded" in site.output
    assert f"{site.url} (1 worker)" in site.output


def test_a_gateway_that_dies_is_restarted_and_no_connection_refused(site: Site) -> None:
    site.up_ready()
    first = get(site.url)
    os.kill(first, signal.SIGKILL)
    second = get(site.url)  # waits in the kernel's queue until the next worker takes it
    assert second != first
    eventually(lambda: "was killed by SIGKILL; starting it again in 0.1 s" in site.output)


def test_redis_that_dies_is_restarted_with_its_data(site: Site) -> None:
    site.up_ready()
    pid = site.redis_pid()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: site.redis_pid() not in (0, pid))
    assert "redis       was killed by SIGKILL" in site.output


def test_a_part_that_does_not_start_is_named_with_its_last_words(site: Site) -> None:
    site.up_ready(BEHAVIOUR=json.dumps({"builder": "dies"}))
    eventually(lambda: "5 times in a row: it does not start" in site.output)
    assert "builder     exited with code 3; starting it again in 0.1 s" in site.output
    assert "| a last word" in site.output


def test_a_second_signal_stops_at_once(site: Site) -> None:
    process = site.up_ready(BEHAVIOUR=json.dumps({"controller": "stubborn"}))
    everybody = [*site.pids(), site.pid("controller")]
    process.send_signal(signal.SIGTERM)
    eventually(lambda: site.events("deaf"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "controller  does not end: killing it" in site.output
    assert not any(map(alive, everybody))


def test_nothing_survives_kill_9_and_up_works_again(site: Site) -> None:
    process = site.up_ready()
    for part in ("controller", "builder", "gateway", "dispatcher"):
        site.pid(part)
    everybody = site.pids()
    assert len(everybody) == 5
    process.kill()
    process.wait(60)
    eventually(lambda: not any(map(alive, everybody)))
    site.up_ready()
    assert get(site.url) == site.pid("gateway")


def test_up_right_after_kill_9_waits_for_what_is_left(site: Site) -> None:
    process = site.up_ready()
    process.kill()
    process.wait(60)
    site.up_ready()
    assert get(site.url) == site.pid("gateway")


def test_a_second_up_says_which_one_runs(site: Site) -> None:
    first = site.up_ready()
    url = site.url
    second = site.up()
    assert second.wait(60) == 1
    assert f"fngw is already running on {site.layout.data}: process {first.pid}, {url}" in site.output
    assert first.poll() is None


def test_a_port_in_use_is_named_with_its_holder(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert site.up(FNGW_PORT=str(port)).wait(60) == 1
    assert f"port {port} of 127.0.0.1 is in use" in site.output
    assert f"(process {os.getpid()}) listens on it" in site.output
    assert f"--port {port + 1}" in site.output
    assert not site.events()


def test_a_signal_while_starting_stops_it(site: Site) -> None:
    process = site.up(BEHAVIOUR=json.dumps({"gateway": "dies"}))
    eventually(lambda: any(e["part"] == "gateway" for e in site.events()))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert not site.pids()


@pytest.mark.parametrize("data", ["/sys/fngw", "{file}/below"])
def test_a_data_directory_that_cannot_be_written(site: Site, tmp_path: Path, data: str) -> None:
    (tmp_path / "file").touch()
    assert site.up(FNGW_DATA_DIR=data.format(file=tmp_path / "file")).wait(60) == 1
    assert "cannot use the data directory" in site.output
    assert "Traceback" not in site.output


def test_a_data_directory_of_another_layout(site: Site) -> None:
    site.layout.data.mkdir()
    (site.layout.data / "layout.json").write_text('{"layout": 99}')
    assert site.up().wait(60) == 1
    assert "has layout 99; this fngw reads layout 1" in site.output
    assert (site.layout.data / "layout.json").read_text() == '{"layout": 99}'
