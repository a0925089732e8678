"""The Redis password that comes in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from fngw_state.settings import SharedSettings


def settings(monkeypatch: pytest.MonkeyPatch, url: str, password_file: Path) -> SharedSettings:
    monkeypatch.setenv("FNGW_REDIS_URL", url)
    monkeypatch.setenv("FNGW_REDIS_PASSWORD_FILE", str(password_file))
    return SharedSettings()


def test_a_password_in_a_file_goes_into_the_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("a/b@c\n")
    assert settings(monkeypatch, "redis://db:6379/0", file).redis_url == "redis://:a%2Fb%40c@db:6379/0"
    assert settings(monkeypatch, "unix:///run/redis.sock", file).redis_url == "unix://:a%2Fb%40c@/run/redis.sock"


def test_a_url_with_a_password_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text("other\n")
    assert settings(monkeypatch, "redis://:mine@db/0", file).redis_url == "redis://:mine@db/0"


@pytest.mark.parametrize(("text", "told"), [(None, "No such file"), ("\n", "is empty")])
def test_a_file_without_a_password_is_named(
    text: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValidationError, match=f"FNGW_REDIS_PASSWORD_FILE: .*password.*{told}"):
        settings(monkeypatch, "redis://db/0", file)
