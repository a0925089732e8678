"""Telling a full disk from other failures, and saying so: the one thing that can go wrong at any step."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fngw.errors import BuildFailed

#: The last: a quota.
FULL = (errno.ENOSPC, errno.EDQUOT)
TEXTS = ("no space left", "disk quota exceeded", "os error 28", "os error 122")


def is_full(text: str) -> bool:
    """Whether a program's message says that there was no space left."""
    return any(sign in text.lower() for sign in TEXTS)


def full(detail: str, folder: Path | None = None) -> BuildFailed:
    """Return the error for a full disk."""
    where = f" of {folder}" if folder else ""
    return BuildFailed(
        f"no space is left on the disk{where} for the environment",
        code="disk_full",
        hint="free some: `fngw prune` empties fngw's caches, and `fngw doctor` shows what they take",
        detail=detail.strip(),
    )


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Translate what the system says of a full disk into ``disk_full``.

    Args:
        folder: what is written to in the block.

    Raises:
        BuildFailed: ``disk_full``.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise full(str(error), folder) from error
        raise
