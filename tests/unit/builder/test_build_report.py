"""How much of a build's progress is passed on."""

from __future__ import annotations

from fngw_builder.report import EVERY_S, Throttled
from fngw_state.records import BuildProgress


def test_edges_are_told_at_once_and_the_rest_a_few_times_a_second() -> None:
    told: list[BuildProgress] = []
    clock = [0.0]
    report = Throttled(print, told.append, lambda: clock[0])
    for done in range(101):
        report.progress("download", done, 100, "bytes")
        report.progress("link", done // 10, 20, "packages")
        clock[0] += EVERY_S / 50
    shown = {step: [p.done for p in told if p.step == step] for step in ("download", "link")}
    assert shown == {"download": [0, 50, 100], "link": [0, 5, 10]}


def test_what_is_said_again_is_not_told_again() -> None:
    told: list[BuildProgress] = []
    clock = [0.0]
    report = Throttled(print, told.append, lambda: clock[0])
    for _ in range(3):
        report.progress("link", 2, 2, "packages")
        report.progress("solve")
        clock[0] += 1
    assert told == [BuildProgress("link", 2, 2, "packages"), BuildProgress("solve")]
