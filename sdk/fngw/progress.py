"""Telling a person how something long goes.

A terminal gets a line per thing that is done, and below them, in place, what is going on now: a bar where its end
is known. Elsewhere (a pipe, a build server) there is a plain line where something begins that may take long, and
one where it is done. Always on stderr: a script's stdout is its own. The base class tells nothing (``--json``).

Standard library only (rich on first use, where it is installed), Python >= 3.7.
"""

from __future__ import annotations

import os
import sys
from typing import IO, Any, Dict, Mapping, Optional, Set

__all__ = ["PlainProgress", "Progress", "RichProgress", "amount", "progress_for", "size_text"]

MIB, GIB = 2**20, 2**30


class Progress:
    """Tells nothing; the others say more."""

    def working(
        self,
        text: str,
        done: Optional[int] = None,
        total: Optional[int] = None,
        unit: str = "",
        brief: bool = False,
    ) -> None:
        """Something is going on. Called again, with the same text, as it does; ends at the next step.

        Args:
            done, total: how much of how much, in ``unit``; None where that is not known.
            unit: ``bytes``, or a word in the plural.
            brief: it takes but a moment as a rule, so only terminals show it.
        """

    def step(self, text: str) -> None:
        """Something is done."""

    def trouble(self, text: str) -> None:
        """Something went wrong, or otherwise than it should; what was going on goes on."""

    def detail(self, text: str) -> None:
        """A line of something longer, such as a build's log; told to those who asked for it."""

    def success(self, text: str, *more: str) -> None:
        """All is done; ``more`` are lines to go on with."""

    def rest(self) -> None:
        """Nothing goes on any more, however it ended."""


class PlainProgress(Progress):
    """A line where something begins, and where it is done.

    Args:
        stream: where to.
        verbose: details, too.
    """

    def __init__(self, stream: IO[str], verbose: bool = False) -> None:
        self._stream = stream
        self._verbose = verbose
        self._begun: Set[str] = set()

    def working(
        self,
        text: str,
        done: Optional[int] = None,
        total: Optional[int] = None,
        unit: str = "",
        brief: bool = False,
    ) -> None:
        if not brief and text not in self._begun:
            self._begun.add(text)
            self._print(f"{text} ({size_text(total)})" if total and unit == "bytes" else text)

    def step(self, text: str) -> None:
        self._begun.clear()
        self._print(text)

    def trouble(self, text: str) -> None:
        self._print(text)

    def detail(self, text: str) -> None:
        if self._verbose:
            self._print("  " + text)

    def success(self, text: str, *more: str) -> None:
        self._begun.clear()
        self._print(text, *("  " + line for line in more))

    def _print(self, *lines: str) -> None:
        for line in lines:
            print(line, file=self._stream)
        self._stream.flush()


class RichProgress(Progress):
    """For terminals.

    Args:
        stream: where to.
        verbose: details, too.
        colour: whether there may be any.
    """

    def __init__(self, stream: IO[str], verbose: bool = False, colour: bool = True) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False, soft_wrap=True, no_color=not colour)
        self._verbose = verbose
        self._bars: Any = None  # rich's, while something goes on
        self._tasks: Dict[str, Any] = {}  # its ids, by text

    def working(
        self,
        text: str,
        done: Optional[int] = None,
        total: Optional[int] = None,
        unit: str = "",
        brief: bool = False,
    ) -> None:
        if self._bars is None:
            self._bars = _bars(self._console)
            self._bars.start()
        if text not in self._tasks:
            self._tasks[text] = self._bars.add_task(text, total=total, amount="")
        self._hide_others(text)
        shown = amount(done, total, unit)
        self._bars.update(self._tasks[text], completed=done or 0, total=total, amount=shown, visible=True)

    def _hide_others(self, text: str) -> None:
        """What is complete, or has no known end, is over when something else is told of."""
        for task in self._bars.tasks:
            if task.description != text and (task.total is None or task.completed >= task.total):
                self._bars.update(task.id, visible=False)

    def step(self, text: str) -> None:
        self.rest()
        self._print("✓ ", "green", text)

    def trouble(self, text: str) -> None:
        self._print("! ", "bold yellow", text)

    def detail(self, text: str) -> None:
        if self._verbose:
            self._print("  ", "", text, "dim")

    def success(self, text: str, *more: str) -> None:
        self.rest()
        self._print("✓ ", "bold green", text, "bold")
        for line in more:
            self._print("  ", "", line)

    def rest(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._tasks = None, {}

    def _print(self, mark: str, mark_style: str, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(mark, mark_style).append(text, style))


def _bars(console: Any) -> Any:
    """Return rich's display of what is going on: it is redrawn in place, and leaves nothing behind."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn

    class Bar(BarColumn):
        def __call__(self, task: Task) -> Any:
            return "" if task.total is None else super().__call__(task)

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        Bar(bar_width=24),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def amount(done: Optional[int], total: Optional[int], unit: str) -> str:
    """Return how much of how much, for people.

    Example:
        >>> amount(3, 12, "files"), amount(2**20, 5 * 2**20, "bytes"), amount(7, None, "files")
        ('3/12 files', '1.0/5.0 MiB', '7 files')
    """
    if unit == "bytes":
        shown = size_text(total if total is not None else done or 0)
        if done is None or total is None or total < MIB:
            return shown
        return f"{done / (GIB if total >= GIB else MIB):.1f}/{shown}"
    counts = [str(n) for n in (done, total) if n is not None]
    return f"{'/'.join(counts)} {unit}".rstrip() if counts else ""


def size_text(size: int) -> str:
    """Return a size in bytes for people.

    Example:
        >>> size_text(2**21), size_text(100), size_text(3 * 2**30)
        ('2.0 MiB', '1 KiB', '3.0 GiB')
    """
    if size >= GIB:
        return f"{size / GIB:.1f} GiB"
    return f"{size / MIB:.1f} MiB" if size >= MIB else f"{max(min(1, size), size // 1024)} KiB"


def progress_for(
    stream: Optional[IO[str]] = None, environ: Optional[Mapping[str, str]] = None, verbose: bool = False
) -> Progress:
    """Return what suits ``stream`` (stderr when None): rich on a capable terminal, else plain lines.

    Args:
        environ: where ``TERM`` and ``NO_COLOR`` are; None: this process's.
        verbose: details, such as the lines of a build's log, too.
    """
    stream = sys.stderr if stream is None else stream
    environ = os.environ if environ is None else environ
    capable: Any = getattr(stream, "isatty", lambda: False)() and environ.get("TERM") != "dumb"
    if not capable:
        return PlainProgress(stream, verbose)
    try:
        return RichProgress(stream, verbose, colour=not environ.get("NO_COLOR"))
    except ImportError:  # inside a replica
        return PlainProgress(stream, verbose)
