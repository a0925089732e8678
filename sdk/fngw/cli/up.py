"""``fngw up`` and ``fngw down``: become the supervisor, with its settings from the options."""

from __future__ import annotations

import enum
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fngw.cli.options import AsJson
from fngw.errors import FngwError

EXAMPLES = {
    "up": (
        "fngw up",
        "fngw up --detach",
        "fngw up --port 9000 --engine process --data-dir ~/.fngw",
        "fngw up --redis-url redis://:secret@db:6379/0",
        "fngw up --registry registry.example:5000/fngw",
    ),
    "down": ("fngw down", "fngw down --data-dir ~/.fngw"),
}

#: What `fngw[server]` brings; the light client has none of it.
NEEDED = ("fngw_supervisor", "pydantic_settings", "redis", "rq", "fastapi", "uvicorn", "uvloop", "httptools")


class Engine(enum.StrEnum):
    """What replicas run in."""

    auto = enum.auto()
    docker = enum.auto()
    process = enum.auto()


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="D", help="Where all state lives (FNGW_DATA_DIR; default .fngw).", show_default=False
    ),
]


def up(
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=0, max=65535, help="Port to listen on; default 8000, 0: a free one.", show_default=False
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="H", help="Address to listen on; default 127.0.0.1.", show_default=False),
    ] = None,
    engine: Annotated[
        Engine | None,
        typer.Option("--engine", help="Default auto: Docker when it answers, else processes.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=64, metavar="N", help="Gateway processes.", show_default=False),
    ] = None,
    dispatchers: Annotated[
        int | None,
        typer.Option(
            "--dispatchers",
            min=0,
            max=64,
            metavar="N",
            help="Processes that send queued calls; default 1.",
            show_default=False,
        ),
    ] = None,
    redis_url: Annotated[
        str | None,
        typer.Option("--redis-url", metavar="U", help="Use this Redis; default: start one.", show_default=False),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(
            "--registry",
            metavar="HOST/REPO",
            help="Push images there, and look there before one is made; default: none.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is healthy.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start fngw on this machine: Redis, controller, builder, gateway and dispatcher. Ctrl-C stops it.

    Each option is also a variable: --redis-url is FNGW_REDIS_URL, and so on. Without Docker, replicas are local
    processes without isolation.
    """
    given = {"port": port, "host": host, "engine": engine, "workers": workers}
    given |= {"dispatchers": dispatchers, "redis_url": redis_url, "registry": registry}
    flags = [f for f, on in (("--detach", detach), ("--json", as_json)) if on]
    _become("up", {**given, "data_dir": data_dir}, flags)


def down(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Stop the fngw of a data directory: replicas are drained first. They come back with the next `fngw up`."""
    _become("down", {"data_dir": data_dir}, ["--json"] if as_json else [])


def _become(command: str, given: Mapping[str, object], flags: list[str]) -> NoReturn:
    """Replace this process by the supervisor: one process less, and signals reach it."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise FngwError(
            f"this is the light client: fngw {command} needs the server, too (there is no {missing[0]})",
            code="server_not_installed",
            hint="pip install 'fngw[server,embedded]'",
        )
    environ = {**os.environ, **{f"FNGW_{k.upper()}": str(v) for k, v in given.items() if v is not None}}
    sys.stdout.flush()
    # -P: a user's own `redis.py` in the current directory must not shadow the real one.
    os.execve(sys.executable, [sys.executable, "-P", "-m", "fngw_supervisor", command, *flags], environ)
