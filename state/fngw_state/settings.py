"""The ``FNGW_*`` variables that all server rooms share. Each room's settings class extends this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import quote

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fngw.options import parse_bytes
from fngw_state.layout import Layout, default_run_dir


def _size(value: Any) -> Any:
    return parse_bytes(value) if isinstance(value, (str, int)) else value


#: Bytes, in a variable also as text such as "8GiB".
Size = Annotated[int, BeforeValidator(_size)]


class SharedSettings(BaseSettings):
    """Where the state lies. Every field is the variable ``FNGW_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="FNGW_", extra="ignore")

    data_dir: Path = Field(default=Path(".fngw"), description="Directory for everything that survives a restart.")
    run_dir: Path | None = Field(
        default=None,
        description="Directory for sockets; a short path. Default: derived from the data dir.",
    )
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0", description="Redis, with its password (redis:// or unix://)."
    )
    redis_password_file: Path | None = Field(
        default=None,
        description="File with Redis' password, for a FNGW_REDIS_URL without one: environments are easy to see.",
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @model_validator(mode="after")
    def _add_password(self) -> Self:
        if self.redis_password_file is not None and "@" not in self.redis_url:
            self.redis_url = with_password(self.redis_url, _read_password(self.redis_password_file))
        return self

    @property
    def layout(self) -> Layout:
        data = self.data_dir.resolve()
        return Layout(data=data, run=self.run_dir or default_run_dir(data))


def with_password(url: str, password: str) -> str:
    """Return a Redis URL with a password.

    Example:
        >>> with_password("redis://db:6379/0", "a/b")
        'redis://:a%2Fb@db:6379/0'
    """
    scheme, _, rest = url.partition("://")
    return f"{scheme}://:{quote(password, safe='')}@{rest}"


def _read_password(path: Path) -> str:
    try:
        password = path.read_text().strip()
    except OSError as error:
        raise ValueError(f"FNGW_REDIS_PASSWORD_FILE: {path}: {error.strerror}") from error
    if not password:
        raise ValueError(f"FNGW_REDIS_PASSWORD_FILE: {path} is empty")
    return password
