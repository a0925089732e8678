"""How much memory this machine has, or the container that this process runs in may use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["memory"]

#: Version 1 calls a number of pages that no machine has "no limit".
NO_LIMIT = 1 << 60


def memory(root: Path = Path("/")) -> int | None:
    """Return bytes of memory: the machine's, or the tightest limit of a control group around this process.

    Args:
        root: where ``proc`` and ``sys`` are.

    Returns:
        None where neither can be read.
    """
    try:
        found = re.search(r"^MemTotal:\s+(\d+) kB$", (root / "proc/meminfo").read_text(), re.M)
    except OSError:
        found = None
    total = [int(found.group(1)) * 1024] if found else []
    return min([*total, *_limits(root)], default=None)


def _limits(root: Path) -> Iterator[int]:
    for path in _limit_files(root):
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < NO_LIMIT:  # else "max"
            yield int(text)


def _limit_files(root: Path) -> Iterator[Path]:
    """The files that may limit this process: of its own group, and of all groups around that one."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        folder, name = (mounted, "memory.max") if not controllers else (mounted / "memory", "memory.limit_in_bytes")
        for group in (PurePosixPath(own), *PurePosixPath(own).parents):
            yield folder / group.relative_to("/") / name
