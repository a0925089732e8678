"""``python -m fngw_state.health SOCKET PATH``: exit 0 if ``GET PATH`` on a Unix socket answers 200.

For the health checks of containers, whose image has no curl. Standard library only: it runs every few seconds.
"""

from __future__ import annotations

import http.client
import socket
import sys

TIMEOUT_S = 5.0


def status(path: str, target: str) -> int:
    """Return the status that a server on a Unix socket answers with.

    Args:
        path: the socket.
        target: what to ask for, such as ``"/healthz"``.

    Raises:
        OSError: nothing answers within ``TIMEOUT_S``.
        http.client.HTTPException: what answers is not HTTP.
    """
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(TIMEOUT_S)
    try:
        connection.sock.connect(path)
        connection.request("GET", target)
        return connection.getresponse().status
    finally:
        connection.close()


def main() -> int:
    """Print what the server answers; return the exit code."""
    path, target = sys.argv[1:3]
    try:
        found = status(path, target)
    except (OSError, http.client.HTTPException) as error:
        print(f"{path}: {error or type(error).__name__}")
        return 1
    print(f"{path}: {found}")
    return 0 if found == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
