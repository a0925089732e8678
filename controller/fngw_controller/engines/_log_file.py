"""Reading a log that another process appends to: its last lines, then what comes."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 1 << 16
#: How often a followed log is looked at.
POLL_S = 0.1


def open_at(path: Path, tail: int | None, since: float | None) -> BinaryIO:
    """Open a log at the line to begin with; an absent one is empty.

    Args:
        path: the log.
        tail: begin with this many last lines; None: at the start.
        since: Unix seconds. Lines have no times, so a log that was written to after it counts as a whole.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return io.BytesIO()
    if since is not None and path.stat().st_mtime < since:
        file.seek(0, io.SEEK_END)
    elif tail is not None:
        seek_lines(file, tail)
    return file


def seek_lines(file: BinaryIO, count: int) -> None:
    """Go to the beginning of the last ``count`` lines, reading backwards; an unfinished last line is one."""
    position = end = file.seek(0, io.SEEK_END)
    while position > 0 and count > 0:
        size = min(BLOCK, position)
        position = file.seek(position - size)
        block = file.read(size)
        at = size - 1 if position + size == end and block.endswith(b"\n") else size  # that one begins no line
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            count -= 1
            if count == 0:
                file.seek(position + at + 1)
                return
    file.seek(0 if count > 0 else end)


async def chunks(file: BinaryIO, until: asyncio.Task[Any] | None) -> AsyncIterator[bytes]:
    """Yield what is there, then what is added until the task ``until`` is done."""
    while True:
        last = until is None or until.done()  # asked before reading: what was written before the end is read
        while chunk := file.read(BLOCK):
            yield chunk
        if until is None or last:
            return
        await asyncio.wait({until}, timeout=POLL_S)
