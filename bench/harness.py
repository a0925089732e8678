"""What all benches share: an fngw of their own, interleaved rounds, medians, tables.

What is measured is never one figure against a remembered one, but two against each other in turn: A B A B …
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

__all__ = [
    "Figures",
    "Stack",
    "arguments",
    "bar",
    "interleaved",
    "interleaved_all",
    "machine",
    "paired_ratios",
    "print_table",
    "stack",
]

K = TypeVar("K")
V = TypeVar("V")

FNGW = Path(sys.executable).with_name("fngw")


# -- an installation ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stack:
    """One running fngw: its engine, its data directory, its address, and the process id of its supervisor."""

    engine: str
    data_dir: Path
    url: str
    pid: int


@contextmanager
def stack(engine: str, *words: str) -> Iterator[Stack]:
    """Run an fngw on an empty data directory and a free port; stop and remove it in the end.

    Args:
        engine: ``docker`` or ``process``.
        words: further arguments of ``fngw up``.
    """
    data = Path(tempfile.mkdtemp(prefix="fngw-bench-"))
    try:
        where = ("--engine", engine, "--port", "0", "--data-dir", str(data))
        _run("up", "--detach", *where, *words)
        lock = json.loads((data / "fngw.lock").read_text())
        yield Stack(engine, data, lock["url"], int(lock["pid"]))
    finally:
        _run("down", "--data-dir", str(data))
        shutil.rmtree(data)


def _run(*words: str) -> None:
    done = subprocess.run([FNGW, *words], capture_output=True, text=True, timeout=180)
    if done.returncode:
        raise SystemExit(f"fngw {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")


# -- rounds -------------------------------------------------------------------------------------------------


def interleaved(
    cases: Mapping[str, Callable[[int], float]], rounds: int, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """Run every case once per round, one after the other, and return the figures of each.

    Args:
        cases: name → a function of the round's number; what it returns is the figure.
        rounds: how many count.
        warm_up: how many before those do not.
    """
    figures: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(-warm_up, rounds):
        for name, case in cases.items():
            figure = case(number)
            if number >= 0:
                figures[name].append(figure)
        _tick(number, rounds)
    return figures


def interleaved_all(cases: Mapping[K, Callable[[], V]], rounds: int) -> dict[K, list[V]]:
    """Run every case once per round, one after the other, and return what each gave. Nothing is warmed up.

    Args:
        cases: key → a function that measures.
        rounds: how many.
    """
    found: dict[K, list[V]] = {key: [] for key in cases}
    for number in range(rounds):
        for key, case in cases.items():
            found[key].append(case())
        _tick(number, rounds)
    return found


def _tick(number: int, rounds: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if number + 1 == rounds else ""
        print(f"\rround {max(0, number + 1)} of {rounds}", end=end, file=sys.stderr)


@dataclass(frozen=True)
class Figures:
    """The median of one case's figures, and how far they went."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figures:
        return cls(statistics.median(values), min(values), max(values))

    def row(self, name: str, scale: float = 1.0, digits: int = 0) -> tuple[str, ...]:
        """Return a row for ``print_table``: name, median, min–max."""
        low, high = (f"{value * scale:.{digits}f}" for value in (self.least, self.most))
        return name, f"{self.median * scale:.{digits}f}", f"{low}–{high}"


def paired_ratios(above: Sequence[float], below: Sequence[float]) -> Figures:
    """Return how many times ``below`` each figure of ``above`` was, in the round that both come from.

    What slows a whole machine down for seconds slows both of a round, so these vary less than the figures do.
    """
    return Figures.of([a / b for a, b in zip(above, below, strict=True)])


# -- what people see ----------------------------------------------------------------------------------------


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns: names (the first) to the left, figures to the right, a fourth and later ones as they are."""
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [
            cell.rjust(width) if n in (1, 2) else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  " + "  ".join(cells).rstrip())


def bar(share: float, width: int = 30) -> str:
    """Return ``share`` (0 to 1) as a bar of at most ``width`` characters."""
    return "█" * round(share * width)


def arguments(doc: str, *, rounds: int = 9) -> argparse.ArgumentParser:
    """Return a parser that knows ``--rounds``; benches add what is theirs."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds that count (default: %(default)s)")
    return parser


def machine() -> str:
    """Return what this ran on, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load {load:.1f} at the end"
    )
