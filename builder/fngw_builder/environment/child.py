"""Running programs that do not outlive the build which wants them, however that ends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def running(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    stdin: int = subprocess.DEVNULL,
    stderr: int | IO[str] = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[str]]:
    """Run a program; the block's end waits for it. An exception, such as a cancellation, ends it first.

    Args:
        command: the program and its arguments.
        environment: all of its variables.
        cwd: its current folder.
        stdin, stderr: as for `subprocess.Popen`; stdout is a pipe, which the block is to read to its end.

    Raises:
        OSError: it cannot be started.
    """
    with subprocess.Popen(
        command,
        env=environment,
        cwd=cwd,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            raise


def lines(output: IO[str] | None) -> Iterator[str]:
    """Yield what a program prints, until it ends."""
    for line in output or ():
        yield line.rstrip("\n")
