"""What the data plane's bench compares: a replica itself, nginx before it, and fngw before it.

    direct    the very replica, started once more with the same code, arguments and environment, but listening on
              loopback TCP instead of its Unix socket, as wrk speaks no Unix sockets
    nginx     Debian's (apt-get install nginx), one worker, connections to the replica's Unix socket kept alive
    fngw N    `fngw up --engine process` with N gateway workers, which come to the replica over its Unix socket

Each is a session of its own, as fngw's processes are: Linux shares the processors out by session (autogroups).
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dataplane_app
import httpx
from harness import Stack
from memory import descendants

import fngw
from fngw import protocol
from fngw_state.layout import default_run_dir

__all__ = ["Subject", "deploy_all", "direct", "fngw_subject", "nginx", "replica_dirs"]

CALL = "call"
#: fngw_runtime's own main, but for the socket: the one that this process has made.
_ON_TCP = """\
import socket, sys
from fngw_runtime import process
process.bind = lambda path: socket.socket(fileno={fd})
sys.exit(process.main())
"""


@dataclass(frozen=True)
class Subject:
    """One row: where each kind of request goes, and whose CPU time counts as the gateway's."""

    name: str
    urls: Mapping[str, str]
    pids: tuple[int, ...] = field(default=())


def deploy_all(where: Stack) -> None:
    """Deploy what the bench asks for, one replica each."""
    fngw.connect(where.url)
    for deployment in dataplane_app.ALL:
        deployment.deploy()


def replica_dirs(where: Stack) -> dict[str, Path]:
    """Return the directory of each deployment's replica."""
    found = {}
    for path in (default_run_dir(where.data_dir) / "r").iterdir():
        config = json.loads((path / protocol.CONFIG_FILE).read_text())
        found[config["deployment"]] = path
    return found


# -- fngw ---------------------------------------------------------------------------------------------------


def fngw_subject(name: str, where: Stack) -> Subject:
    """Return fngw as a row."""
    urls = {d.name: f"{where.url}/{d.name}" for d in dataplane_app.ALL}
    urls[CALL] = f"{where.url}{protocol.CALL_PREFIX}hello/{protocol.DEFAULT_METHOD}"
    return Subject(name, urls, tuple(processes(where, "fngw_gateway")))


def processes(where: Stack, module: str) -> list[int]:
    """Return the processes of an installation that run ``module``."""
    return [pid for pid in sorted(descendants(where.pid)) if module.encode() in _arguments(pid)]


def _arguments(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


# -- the replica itself -------------------------------------------------------------------------------------


@contextmanager
def direct(where: Stack, folder: Path) -> Iterator[Subject]:
    """Start every replica a second time, on TCP."""
    with ExitStack() as stack:
        urls = {}
        for name, original in replica_dirs(where).items():
            port = stack.enter_context(_twin(original, folder / f"direct-{name}"))
            urls[name] = f"http://127.0.0.1:{port}/{name}"
            if name == "hello":
                urls[CALL] = f"http://127.0.0.1:{port}{protocol.REPLICA_CALL_PREFIX}{protocol.DEFAULT_METHOD}"
        yield Subject("direct", urls)


@contextmanager
def _twin(original: Path, copy: Path) -> Iterator[int]:
    shutil.copytree(original, copy, ignore=shutil.ignore_patterns("*.sock"))
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    port, fd = listener.getsockname()[1], listener.fileno()
    env = _environment(original)
    env[protocol.REPLICA_DIR_VARIABLE] = str(copy)
    words = [sys.executable, "-P", "-c", _ON_TCP.format(fd=fd)]
    process = subprocess.Popen(words, env=env, pass_fds=(fd,), start_new_session=True)
    listener.close()
    try:
        _until(lambda: httpx.get(f"http://127.0.0.1:{port}{protocol.READY_PATH}").status_code == 200, "replica")
        yield port
    finally:
        process.terminate()
        process.wait()


def _environment(replica: Path) -> dict[str, str]:
    """Return the environment of the process that serves a replica's directory."""
    wanted = f"{protocol.REPLICA_DIR_VARIABLE}={replica}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            entries = path.read_bytes().split(b"\0")
        except OSError:
            continue  # ended meanwhile, or another user's
        if wanted in entries:
            return dict(entry.decode().split("=", 1) for entry in entries if b"=" in entry)
    raise SystemExit(f"no process serves {replica}")


# -- nginx --------------------------------------------------------------------------------------------------

_NGINX = """\
daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 8192; user root;
error_log {folder}/error.log crit; pid {folder}/pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_max_body_size 0; client_body_buffer_size 2m; keepalive_requests 1000000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off; proxy_buffering {buffering};
{upstreams}
  server {{ listen 127.0.0.1:{port} backlog=2048;
{locations}
  }}
}}
"""
_UPSTREAM = "  upstream {name} {{ server unix:{socket}; keepalive 512; keepalive_requests 1000000000; }}"
_LOCATION = "    location {path} {{ proxy_pass http://{name}{target}; proxy_set_header fngw-root-path {root}; }}"


@contextmanager
def nginx(where: Stack, folder: Path, buffering: str = "on") -> Iterator[Subject | None]:
    """Run nginx before the replicas; None where it is not installed."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        print("no nginx here (apt-get install nginx): its rows, and what is measured against it, are left out")
        yield None
        return
    home = folder / "nginx"
    home.mkdir()
    port = _free_port()
    (home / "nginx.conf").write_text(_nginx_config(home, port, replica_dirs(where), buffering))
    words = [program, "-p", str(home), "-c", "nginx.conf", "-e", str(home / "error.log")]
    process = subprocess.Popen(words, start_new_session=True)
    try:
        base = f"http://127.0.0.1:{port}"
        _until(lambda: httpx.get(f"{base}/hello").status_code == 200, "nginx")
        urls = {d.name: f"{base}/{d.name}" for d in dataplane_app.ALL}
        yield Subject("nginx", {**urls, CALL: f"{base}/{CALL}"}, (process.pid,))
    finally:
        process.terminate()
        process.wait()


def _nginx_config(home: Path, port: int, replicas: Mapping[str, Path], buffering: str) -> str:
    call = _LOCATION.format(
        path=f"= /{CALL}",
        name="hello",
        target=f"{protocol.REPLICA_CALL_PREFIX}{protocol.DEFAULT_METHOD}",
        root='""',
    )
    locations = [_LOCATION.format(path=f"/{n}", name=n, target="", root=f"/{n}") for n in replicas]
    upstreams = [_UPSTREAM.format(name=n, socket=path / protocol.SOCKET_FILE) for n, path in replicas.items()]
    return _NGINX.format(
        folder=home,
        port=port,
        buffering=buffering,
        upstreams="\n".join(upstreams),
        locations="\n".join([*locations, call]),
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _until(ready: Callable[[], bool], what: str, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
        except httpx.HTTPError:
            pass  # it does not listen yet
        if time.monotonic() > until:
            raise SystemExit(f"{what} did not answer within {seconds:g} s")
        time.sleep(0.05)
