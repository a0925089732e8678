"""Ports for servers that cannot pick one themselves."""

from __future__ import annotations

import contextlib
import random
import socket

#: Below those that the kernel gives to whoever asks for any: between the look and the use nobody is given one.
FIRST, LAST = 20_000, 32_000


def free_port() -> int:
    """Return a port of loopback that nobody has."""
    while True:
        port = random.randint(FIRST, LAST)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
