"""Accepting more than one connection in a turn of the event loop.

uvloop stands on libuv, which accepts one in a turn (libuv #3696). A turn of a busy process lasts as long as all
that it has to do: of 256 clients that came at once, the last waited for a second while the first were answered
again and again.

Standard library only, Python >= 3.7: this module is copied into replica images.
"""

from __future__ import annotations

import socket
from typing import List

__all__ = ["ACCEPTS", "several"]

#: Of one process that has a socket for itself. Each takes a microsecond of every connection that comes alone.
ACCEPTS = 16


def several(listener: socket.socket, accepts: int = ACCEPTS) -> List[socket.socket]:
    """Return a listening socket and duplicates of it; a loop that serves them all accepts from each in every turn.

    Args:
        listener: it.
        accepts: how many sockets, and so connections per turn.

    Example:
        >>> await server.serve(sockets=several(listener))  # uvicorn's, which closes them all
    """
    return [listener, *(listener.dup() for _ in range(accepts - 1))]
