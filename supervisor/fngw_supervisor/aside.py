"""Calls a function in a child process, so that what it imports is gone with it.

``fngw up`` stays for months, and asks Docker once: the client would cost it 6 MiB for all that time.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T]) -> T:
    """Return what ``work`` returns, called in a fork of this process, which must have one thread.

    Args:
        work: returns something that can be pickled. When it fails there, it is called again here, to fail the same.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(work, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    if not data:
        return work()
    answer: T = pickle.loads(data)
    return answer


def _answer(work: Callable[[], object], writing: int) -> None:
    """The child, to its end."""
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(pickle.dumps(work()))
    finally:
        os._exit(0)  # whatever was raised: the parent finds nothing in the pipe, and does the same again
