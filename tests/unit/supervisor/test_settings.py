"""The variables of `fngw up`."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fngw.errors import FngwError
from fngw_supervisor.redis import without_password
from fngw_supervisor.settings import EngineChoice, load_settings
from fngw_supervisor.sockets import listen_tcp, listen_unix, listening


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.engine) == ("127.0.0.1", 8000, EngineChoice.AUTO)
    assert settings.external_redis is None, "the default of the other rooms is not a Redis that was asked for"


def test_a_redis_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FNGW_REDIS_URL", "redis://db:6379")
    assert load_settings().external_redis == "redis://db:6379"


def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FNGW_PORT", "many")
    with pytest.raises(FngwError, match=r"FNGW_PORT: .*'many'"):
        load_settings()


def test_no_password_is_shown() -> None:
    assert without_password("redis://user:secret@db:6379/0?password=x") == "redis://db:6379/0"
    assert without_password("unix://:secret@/run/redis.sock") == "unix:///run/redis.sock"


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.1"])
def test_a_host_that_is_not_this_machine(host: str) -> None:
    with pytest.raises(FngwError) as caught:
        listen_tcp(host, 0)
    assert caught.value.code == "bad_host"


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(FngwError) as caught:
        listen_unix(tmp_path / ("x" * 120))
    assert caught.value.code == "path_too_long"
    assert "FNGW_RUN_DIR" in caught.value.hint


def test_a_stale_socket_is_replaced_and_removed_at_the_end(tmp_path: Path) -> None:
    path = Path(f"/tmp/fngw-{tmp_path.name[-20:]}.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with listening("127.0.0.1", 0, path) as sockets, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert sockets.url == f"http://localhost:{sockets.port}"
        assert sockets.is_local
    assert not path.exists()
