"""The embedded Redis, for real: its password, its data, and what is said when it would not start."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError
from tests.integration.supervisor.conftest import Site, eventually

from fngw_supervisor.datadir import redis_password
from fngw_supervisor.embedded import find_server, redis_url


def connected(site: Site) -> Redis:
    return Redis.from_url(redis_url(site.layout, redis_password(site.layout.data)), decode_responses=True)


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:  # the socket's file is there a moment before anybody listens
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def write_once(site: Site, key: str = "kept") -> None:
    process = site.up_ready()
    with connected(site) as client:
        client.set(key, "value")
    stop(process)


def test_a_password_is_asked_for_and_not_to_be_seen(site: Site) -> None:
    site.up_ready()
    secrets = site.layout.data / "secrets.json"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    password = redis_password(site.layout.data)
    assert password.encode() not in Path(f"/proc/{site.redis_pid()}/cmdline").read_bytes()
    assert password not in site.output
    url = site.layout.redis / "url"
    assert stat.S_IMODE(url.stat().st_mode) == 0o600
    with Redis.from_url(url.read_text().strip()) as client:
        assert client.ping()
    assert stat.S_IMODE(site.layout.redis_socket.stat().st_mode) == 0o777
    with (
        Redis(unix_socket_path=str(site.layout.redis_socket)) as stranger,
        pytest.raises(AuthenticationError),
    ):
        stranger.ping()


def test_data_survives_a_stop_and_a_kill_9(site: Site) -> None:
    write_once(site)
    process = site.up_ready()
    with connected(site) as client:
        assert client.get("kept") == "value"
        client.set("acknowledged", "too")
    os.kill(site.redis_pid(), signal.SIGKILL)
    process.kill()
    process.wait(60)
    site.up_ready()
    with connected(site) as client:
        assert client.mget("kept", "acknowledged") == ["value", "too"]


def test_damaged_data_is_kept_and_the_way_out_named(site: Site) -> None:
    write_once(site)
    (increment,) = site.layout.redis.glob("appendonlydir/*.incr.aof")
    with increment.open("ab") as file:
        file.write(b"garbage\r\n*3\r\n$3\r\nSET\r\n")
    before, started = increment.read_bytes(), site.events("lives")
    assert site.up().wait(60) == 1
    assert "is damaged" in site.output
    assert increment.read_bytes() == before
    assert site.events("lives") == started, "no part was started on damaged data"
    repair = re.search(r"(bash -c '.*')", site.output)
    assert repair, site.output
    subprocess.run(repair[1], shell=True, input=b"y\n", check=True, capture_output=True, timeout=60)
    site.up_ready()
    with connected(site) as client:
        assert client.get("kept") == "value"


@pytest.fixture
def other_redis(tmp_path: Path, site: Site) -> Iterator[str]:
    """A Redis that somebody else runs; its URL."""
    path = site.layout.run / "other.sock"
    server = find_server()
    argv = [server.path, "--port", "0", "--unixsocket", path, "--dir", tmp_path, "--requirepass", "theirs"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        with Redis(unix_socket_path=str(path), password="theirs") as client:
            eventually(lambda: answers(client))
        yield f"unix://:theirs@{path}"
    finally:
        process.terminate()
        process.wait(60)


def test_a_given_redis_is_used_and_none_started(site: Site, other_redis: str) -> None:
    process = site.up_ready(FNGW_REDIS_URL=other_redis)
    assert "theirs" not in site.output
    assert not site.layout.redis_socket.exists()
    stop(process)
    with Redis.from_url(other_redis) as client:
        assert client.ping(), "it is not ours to stop"


def test_a_given_redis_that_denies_or_does_not_answer(site: Site, other_redis: str) -> None:
    assert site.up(FNGW_REDIS_URL=other_redis.replace("theirs", "wrong")).wait(60) == 1
    assert "denies access" in site.output
    assert site.up(FNGW_REDIS_URL=other_redis + ".not").wait(60) == 1
    assert "no Redis answers at" in site.output
    assert site.up(FNGW_REDIS_URL="http://x").wait(60) == 1
    assert "is not a Redis URL" in site.output
