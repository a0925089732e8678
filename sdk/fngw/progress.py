"""Telling a person how a deploy goes: plain lines, or, on a terminal, with colour and a bar for uploads.

Always on stderr: a script's stdout is its own. The base class tells nothing (for ``--json``).

Standard library only (rich on first use, where it is installed), Python >= 3.7.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import IO, Any, Callable, Iterator, Mapping, Optional

__all__ = ["PlainProgress", "Progress", "RichProgress", "progress_for"]

BAR_FROM = 2**20  # bytes; less is sent before a bar is seen

Advance = Callable[[int], None]


def _nothing(size: int) -> None:
    """Advance no bar."""


class Progress:
    """Tells nothing; the others say more."""

    def step(self, text: str) -> None:
        """Something is done."""

    def detail(self, text: str) -> None:
        """A line of something longer, such as a build's log."""

    def success(self, text: str, *more: str) -> None:
        """All is done; ``more`` are lines to go on with."""

    @contextmanager
    def transfer(self, what: str, size: int) -> Iterator[Advance]:
        """While ``what`` (of ``size`` bytes) is sent; yields a function to call with each piece's size."""
        yield _nothing


class PlainProgress(Progress):
    """A line per step."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def step(self, text: str) -> None:
        self._print(text)

    def detail(self, text: str) -> None:
        self._print("  " + text)

    def success(self, text: str, *more: str) -> None:
        self._print(text, *("  " + line for line in more))

    def _print(self, *lines: str) -> None:
        for line in lines:
            print(line, file=self._stream)
        self._stream.flush()


class RichProgress(Progress):
    """For terminals. rich leaves colour out where ``NO_COLOR`` is set."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False, soft_wrap=True)

    def step(self, text: str) -> None:
        self._print("✓ ", "green", text)

    def detail(self, text: str) -> None:
        self._print("  ", "", text, "dim")

    def success(self, text: str, *more: str) -> None:
        self._print("✓ ", "bold green", text, "bold")
        for line in more:
            self._print("  ", "", line)

    def _print(self, mark: str, mark_style: str, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(mark, mark_style).append(text, style))

    @contextmanager
    def transfer(self, what: str, size: int) -> Iterator[Advance]:
        if size < BAR_FROM:
            yield _nothing
            return
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Bar(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(f"sending {what}", total=size)
            yield lambda sent: bar.update(task, advance=sent)


def progress_for(stream: Optional[IO[str]] = None, environ: Optional[Mapping[str, str]] = None) -> Progress:
    """Return what suits ``stream`` (stderr when None): rich on a capable terminal, else plain lines."""
    stream = sys.stderr if stream is None else stream
    environ = os.environ if environ is None else environ
    capable: Any = getattr(stream, "isatty", lambda: False)() and environ.get("TERM") != "dumb"
    if not capable:
        return PlainProgress(stream)
    try:
        return RichProgress(stream)
    except ImportError:  # inside a replica
        return PlainProgress(stream)
