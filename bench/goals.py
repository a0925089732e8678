"""What a figure is to be, and whether it is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness import Figures, print_table

__all__ = ["Goal", "Least", "Most", "print_goals"]


@dataclass(frozen=True)
class Least:
    """At least so much."""

    bound: float

    def holds(self, value: float) -> bool:
        return value >= self.bound

    def __str__(self) -> str:
        return f"≥ {self.bound:g}"


@dataclass(frozen=True)
class Most:
    """At most so much."""

    bound: float

    def holds(self, value: float) -> bool:
        return value <= self.bound

    def __str__(self) -> str:
        return f"≤ {self.bound:g}"


@dataclass(frozen=True)
class Goal:
    """Figures of several rounds, the bound for their median, and a tighter one that would be better still."""

    name: str
    values: Sequence[float]
    unit: str
    bound: Least | Most
    moon: Least | Most | None = None

    @property
    def verdict(self) -> str:
        if not self.values:
            return "not measured"
        median = statistics.median(self.values)
        if not self.bound.holds(median):
            return "MISSED"
        return "reached, and so is the moon" if self.moon and self.moon.holds(median) else "reached"

    def row(self) -> tuple[str, ...]:
        wanted = f"{self.bound} {self.unit}" + (f" (moon: {self.moon})" if self.moon else "")
        if not self.values:
            return self.name, "–", "", wanted, self.verdict
        digits = 0 if statistics.median(self.values) >= 20 else 2
        name, median, span = Figures.of(self.values).row(self.name, digits=digits)
        return name, median, span, wanted, self.verdict


def print_goals(goals: Sequence[Goal]) -> None:
    """Print figures, goals and verdicts."""
    print("\nGoals (the median decides)\n")
    print_table(("", "median", "min–max", "goal", ""), [goal.row() for goal in goals])
