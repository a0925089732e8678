"""The data directory, the logs, the lock, and the embedded Redis' files."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from fngw.errors import FngwError
from fngw_state.layout import Layout
from fngw_supervisor import datadir, embedded, logs
from fngw_supervisor.lock import Lock, Running, holders, is_free
from fngw_supervisor.settings import Fsync

# -- data directory ---------------------------------------------------------------------------------------


def test_a_full_disk_is_said_so() -> None:
    error = datadir.explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/d/x"), Path("/d"))
    assert error.code == "disk_full"
    assert "nothing was removed" in error.hint


def test_the_password_is_made_once_and_private(tmp_path: Path) -> None:
    first = datadir.redis_password(tmp_path)
    assert len(first) >= 32
    assert datadir.redis_password(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_damaged_secrets_are_not_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / "secrets.json").write_text(content)
    with pytest.raises(FngwError) as caught:
        datadir.redis_password(tmp_path)
    assert caught.value.code == "data_dir_unusable"
    assert (tmp_path / "secrets.json").read_text() == content


def test_a_run_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(FngwError) as caught:
        datadir.prepare(Layout(tmp_path / "d", tmp_path / "fngw-r"))
    assert caught.value.code == "run_dir_not_ours"


# -- logs -------------------------------------------------------------------------------------------------


def test_tail_starts_where_this_life_started(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert logs.tail(log) == []
    log.write_text("old\n")
    begin = logs.size(log)
    with log.open("a") as file:
        file.write("1\n\n2\n3\n")
    assert logs.tail(log, 2, begin) == ["2", "3"]
    assert logs.tail(log, 9, begin) == ["1", "2", "3"]


def test_a_log_that_is_too_large_is_cut_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"0123456789")
        assert not logs.bound(log, limit=10)
        writer.write(b"ab")
        assert logs.bound(log, limit=10)
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "x.log.1").read_bytes() == b"23456789ab"


# -- lock -------------------------------------------------------------------------------------------------

RUNNING = Running(1, "http://localhost:8000", 0.0, "process", "0.1.0")


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "fngw.lock"
    assert is_free(path)
    lock = Lock.take(path)
    assert lock
    lock.write(RUNNING)
    assert Lock.take(path) is None
    assert not is_free(path)
    assert Running.read(path) == RUNNING
    lock.release()
    assert is_free(path)
    assert Running.read(path) is None


def test_one_who_only_reads_it_is_no_holder(tmp_path: Path) -> None:
    path = tmp_path / "fngw.lock"
    path.touch()
    with path.open():
        assert holders(path) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pid": "x"}', "null"])
def test_a_lock_file_that_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "fngw.lock").write_text(text)
    assert Running.read(tmp_path / "fngw.lock") is None


# -- embedded Redis ---------------------------------------------------------------------------------------


def test_configuration_quotes_paths() -> None:
    text = embedded.configuration(Layout(Path('/a "b" c'), Path("/r")), "pass word", Fsync.SECOND)
    assert 'dir "/a \\"b\\" c/redis"' in text
    assert 'requirepass "pass word"' in text
    assert "port 0" in text
    assert "appendfsync no\n" in text  # not everysec: see syncing
    assert "appendfsync always\n" in embedded.configuration(Layout(Path("/d"), Path("/r")), "p", Fsync.ALWAYS)


def test_url_survives_strange_characters() -> None:
    from redis import Redis

    url = embedded.redis_url(Layout(Path("/d"), Path("/r/a b@c")), "p@ss/w:rd")
    with Redis.from_url(url) as client:
        arguments = client.connection_pool.connection_kwargs
    assert arguments["password"] == "p@ss/w:rd"
    assert arguments["path"] == "/r/a b@c/shared/redis.sock"


def server(path: Path, version: str) -> Path:
    path.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0 bits=64'\n")
    path.chmod(0o755)
    return path


def test_an_old_server_is_refused_and_named(tmp_path: Path) -> None:
    old = server(tmp_path / "old", "6.2.1")
    new = server(tmp_path / "new", "10.0.0")
    found = embedded.find_server(lambda: old, {"redis-server": str(new)}.get)
    assert found == embedded.Server(new, "Redis 10.0.0")
    with pytest.raises(FngwError) as caught:
        embedded.find_server(lambda: old, lambda name: None)
    assert caught.value.code == "no_redis"
    assert "Redis 6.2.1" in caught.value.message


def test_no_server_at_all(tmp_path: Path) -> None:
    with pytest.raises(FngwError, match=r"^no Redis server to start\n"):
        embedded.find_server(lambda: None, lambda name: None)
