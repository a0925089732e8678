"""The builder's health check: whether RQ's record of a worker of this machine is alive."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from fngw_builder import health


def check(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = health.main()
    return code, capsys.readouterr().out.strip()


def test_a_builder_that_beats_is_well_and_one_that_is_gone_is_not(
    start_builder: Any,
    redis_server: Any,
    connection: Redis,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FNGW_REDIS_URL", redis_server.url)
    assert check(capsys) == (1, "no builder here is known to Redis")
    start_builder()
    code, text = check(capsys)
    assert (code, text.startswith(f"rq:worker:{health.name_prefix()}")) == (0, True)
    connection.delete(text)  # its record expires, though RQ's set still names it
    assert check(capsys)[0] == 1
    monkeypatch.setattr(health, "name_prefix", lambda: "builder-elsewhere-")
    assert check(capsys)[0] == 1


def test_without_redis_it_is_not_well(
    redis_server: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FNGW_REDIS_URL", redis_server.url)
    redis_server.stop()
    code, text = check(capsys)
    assert (code, text.startswith("redis: ")) == (1, True)
