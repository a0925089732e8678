"""``python -m fngw_gateway``: one gateway process, on TCP and on the Unix socket that replicas use.

A process that was started by a supervisor inherits both sockets (``FNGW_FD``, ``FNGW_UNIX_FD``); alone, it makes
them. SIGTERM and SIGINT: it accepts no more, finishes what is under way, for at most ``GRACE_S``, and exits 0.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

from fngw.listening import several
from fngw_gateway import api  # noqa: F401 - the app is made with it: imported here, forks of this process share it
from fngw_gateway.app import Gateway, create_gateway
from fngw_gateway.front import Front
from fngw_gateway.settings import GatewaySettings
from fngw_state import footprint

log = logging.getLogger("fngw_gateway")

GRACE_S = 25
KEEP_ALIVE_S = 75
BACKLOG = 2048
#: Files that this process may open, where the system lets it: a request takes two, and many start with only 1024.
FILES = 65536
#: Beginnings of uvicorn's messages.
_SAID_BETTER = (
    "ASGI callable returned without",
    "Unsupported upgrade",
    "No supported WebSocket",
    "Invalid HTTP request",
)


def main() -> int:
    """Serve until told to stop; return the exit code."""
    settings = GatewaySettings()
    _configure_logging(settings.log_level)
    _allow_files()
    settings.layout.create()
    tcp = _tcp_socket(settings)
    unix, made = _unix_socket(settings)
    settings = settings.model_copy(update={"port": tcp.getsockname()[1]})
    for number in (signal.SIGTERM, signal.SIGINT):
        # The server takes the signals while it serves, and raises them again at its end: into this.
        signal.signal(number, _ignore)
    server = _Server(settings)
    footprint.settle()
    log.info("listening on %s:%s and %s", *tcp.getsockname()[:2], settings.layout.gateway_socket)
    try:
        server.run(sockets=[*several(tcp, settings.accepts), *several(unix, settings.accepts)])
    finally:
        _remove(made)
    return 0 if server.started else 3


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    """Tells the gateway that it is about to stop before it waits for the requests under way."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._gateway = create_gateway(settings)
        super().__init__(_config(self._gateway))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.leave()
        await super().shutdown(sockets)


def _config(gateway: Gateway) -> uvicorn.Config:
    return uvicorn.Config(
        gateway,
        interface="asgi3",
        loop="uvloop",
        http=Front,
        ws=gateway.websocket_protocol,  # type: ignore[arg-type]  # any callable that makes a protocol
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        backlog=BACKLOG,
    )


def _ignore(_number: int, _frame: Any) -> None:
    """The server has stopped by then."""


def _tcp_socket(settings: GatewaySettings) -> socket.socket:
    if settings.fd is not None:
        return socket.socket(fileno=settings.fd)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        sys.exit(f"fngw: cannot listen on {settings.host}:{settings.port}: {error.strerror}; try another FNGW_PORT")
    return sock


def _unix_socket(settings: GatewaySettings) -> tuple[socket.socket, tuple[Path, int] | None]:
    """Return the replicas' socket, and what to remove at the end.

    It is bound under another name and renamed, so that there is no moment without one, nor a stale one.
    """
    if settings.unix_fd is not None:
        return socket.socket(fileno=settings.unix_fd), None
    path = settings.layout.gateway_socket
    draft = path.with_name(f".{os.getpid()}")
    draft.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(draft))
    draft.chmod(0o666)
    sock.listen(BACKLOG)
    draft.rename(path)
    return sock, (path, path.stat().st_ino)


def _remove(made: tuple[Path, int] | None) -> None:
    """Remove the socket's file, if it is still the one made here."""
    if made is not None and made[0].exists() and made[0].stat().st_ino == made[1]:
        made[0].unlink()


def _configure_logging(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").addFilter(_worth_saying)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _worth_saying(record: logging.LogRecord) -> bool:
    """Leave out what the client or the log was told better: an answer cut off, a request to upgrade, or no HTTP."""
    return not record.getMessage().startswith(_SAID_BETTER)


if __name__ == "__main__":
    sys.exit(main())
