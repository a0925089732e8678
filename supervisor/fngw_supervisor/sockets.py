"""The listening sockets. Bound once, here, and inherited by the gateway workers.

While a worker is restarted the kernel keeps accepting connections on these, so that none is refused.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fngw.errors import FngwError

BACKLOG = 2048
#: Where every user's replicas may connect.
_UNIX_MODE = 0o666
#: ``sun_path`` of unix(7), less its final zero byte.
_UNIX_PATH_BYTES = 107
_LISTEN_STATE = "0A"  # TCP_LISTEN in /proc/net/tcp


@dataclass(frozen=True)
class Listening:
    """The two sockets of one fngw, and the URL that a person uses."""

    tcp: socket.socket
    unix: socket.socket
    unix_path: Path
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{_url_host(self.host)}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return self.host == "::1" or self.host.startswith("127.")

    def close(self) -> None:
        """Stop listening, as far as this process is concerned."""
        self.tcp.close()
        if self.unix.fileno() >= 0:
            self.unix.close()
            self.unix_path.unlink(missing_ok=True)


def _url_host(host: str) -> str:
    if host in ("0.0.0.0", "127.0.0.1", "::", "::1"):
        return "localhost"
    return f"[{host}]" if ":" in host else host


@contextmanager
def listening(host: str, port: int, unix_path: Path) -> Iterator[Listening]:
    """Listen on TCP and on a Unix socket, until the block is left.

    Args:
        host: a name or an address of this machine.
        port: 0 picks a free one.
        unix_path: a path of at most 107 bytes. A socket that lies there is replaced.

    Raises:
        FngwError: ``port_in_use``, ``bad_host`` or ``path_too_long``.
    """
    tcp = listen_tcp(host, port)
    try:
        unix = listen_unix(unix_path)
    except BaseException:
        tcp.close()
        raise
    bound_host, bound_port = tcp.getsockname()[:2]
    sockets = Listening(tcp, unix, unix_path, str(bound_host), int(bound_port))
    try:
        yield sockets
    finally:
        sockets.close()


def listen_tcp(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; see ``listening`` for the errors."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise FngwError(
            f"cannot listen on {host!r}: {error.strerror or error}",
            code="bad_host",
            hint="give an address of this machine, such as --host 127.0.0.1",
        ) from None
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_bind(host, port, error) from None
    return listener


def _cannot_bind(host: str, port: int, error: OSError) -> FngwError:
    if error.errno == errno.EADDRINUSE:
        holder = who_listens(port)
        held = f": {holder} listens on it" if holder else ""
        return FngwError(
            f"port {port} of {host} is in use{held}",
            code="port_in_use",
            hint=f"stop that one, or give another port: fngw up --port {port + 1 if port < 65535 else 8000}",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "ports below 1024 are for root; give another with --port"
        return FngwError(f"port {port} of {host} may not be used", code="port_denied", hint=hint)
    return FngwError(
        f"cannot listen on {host}:{port}: {error.strerror}",
        code="bad_host",
        hint="give an address of this machine, such as --host 127.0.0.1",
    )


def listen_unix(path: Path) -> socket.socket:
    """Return a listening Unix socket that every user may connect to; see ``listening`` for the errors."""
    if len(os.fsencode(path)) > _UNIX_PATH_BYTES:
        raise FngwError(
            f"{path} is too long for a Unix socket (at most {_UNIX_PATH_BYTES} bytes)",
            code="path_too_long",
            hint="set FNGW_RUN_DIR to a short path, such as /tmp/fngw",
        )
    path.unlink(missing_ok=True)  # the data directory's lock is held: it is an old one of ours
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(_UNIX_MODE)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


# -- who holds a port -------------------------------------------------------------------------------------


def who_listens(port: int) -> str | None:
    """Return ``"name (process 123)"`` of a process that listens on a TCP port, where it can be found."""
    inodes = set(_listening_inodes(port))
    for directory in Path("/proc").glob("[0-9]*") if inodes else ():
        with suppress(OSError):  # it ended meanwhile, or is another user's
            for fd in (directory / "fd").iterdir():
                with suppress(OSError):
                    match = re.fullmatch(r"socket:\[(\d+)\]", str(fd.readlink()))
                    if match and match[1] in inodes:
                        return f"{(directory / 'comm').read_text().strip()} (process {directory.name})"
    return None


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN_STATE and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
