"""The log files of the parts: their last lines, and a bound on their size."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

#: A part's log is cut when it gets larger; one older half is kept beside it as ``<name>.log.1``.
LIMIT_BYTES = 32 * 2**20
_TAIL_BYTES = 64 * 2**10


def size(log: Path) -> int:
    """Return the size in bytes; 0 when there is none."""
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


def tail(log: Path, lines: int = 5, since: int = 0) -> list[str]:
    """Return the last non-empty lines that were written after the first ``since`` bytes."""
    with suppress(FileNotFoundError), log.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(0, min(since, end), end - _TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
        return [line for line in text.splitlines() if line.strip()][-lines:]
    return []


def bound(log: Path, limit: int = LIMIT_BYTES) -> bool:
    """Keep a copy of a log that has grown beyond ``limit`` bytes and empty it; tell whether it did.

    It is emptied in place, because the part that writes it holds it open (for appending, so that it goes on at the
    new end). What is written between the copy and the cut is lost.
    """
    if size(log) <= limit:
        return False
    with log.open("rb") as source, log.with_suffix(log.suffix + ".1").open("wb") as kept:
        source.seek(-limit, 2)
        while chunk := source.read(2**20):
            kept.write(chunk)
    with log.open("ab") as file:
        file.truncate(0)
    return True
