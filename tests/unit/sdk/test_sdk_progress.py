"""What a person sees of a deploy: on a terminal, and elsewhere."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from fngw.client import Event
from fngw.progress import PlainProgress, Progress, RichProgress, amount, progress_for, size_text
from fngw.rollout import Rollout

from .terminal import Terminal

DEADLINE_S = 60.0
BUILD: list[dict[str, Any]] = [
    {"kind": "accepted", "message": "revision 3: new"},
    {"kind": "build", "message": "plan: image/base/code/layer"},
    {"kind": "progress", "step": "solve", "done": None, "total": None, "unit": ""},
    {"kind": "progress", "step": "download", "done": 0, "total": 50 * 2**20, "unit": "bytes"},
    {"kind": "progress", "step": "link", "done": 0, "total": 14, "unit": "packages"},
    {"kind": "progress", "step": "download", "done": 20 * 2**20, "total": 50 * 2**20, "unit": "bytes"},
    {"kind": "progress", "step": "link", "done": 5, "total": 14, "unit": "packages"},
    {"kind": "progress", "step": "download", "done": 50 * 2**20, "total": 50 * 2**20, "unit": "bytes"},
    {"kind": "progress", "step": "sing", "done": None, "total": None, "unit": ""},
    {"kind": "image", "message": "i", "image": "sha256:0123456789abcdef", "reused": False},
]
START: list[dict[str, Any]] = [
    {"kind": "replica", "message": "replica a starting", "replica": "a", "state": "starting"},
    {"kind": "replica", "message": "replica b starting", "replica": "b", "state": "starting"},
    {"kind": "replica", "message": "replica a healthy", "replica": "a", "state": "healthy"},
    {"kind": "replica", "message": "replica b failed: no", "replica": "b", "state": "failed"},
    {"kind": "replica", "message": "replica c healthy", "replica": "c", "state": "healthy"},
    {"kind": "done", "message": "up"},
]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """As wide a terminal on every machine, and a capable one."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def tell(progress: Progress, events: list[dict[str, Any]], replicas: int | None = 2) -> Rollout:
    rollout = Rollout(progress, replicas)
    for fields in events:
        rest = {k: v for k, v in fields.items() if k not in ("kind", "message")}
        rollout.hear(Event("0", fields["kind"], fields.get("message", fields.get("step", "")), rest))
    return rollout


def until(condition: Callable[[], bool], terminal: Terminal) -> None:
    """rich draws ten times a second."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, terminal.screen
        time.sleep(0.01)


# -- elsewhere --------------------------------------------------------------------------------------------


def test_plain_lines_say_once_what_begins_and_once_what_is_done() -> None:
    stream = io.StringIO()
    tell(PlainProgress(stream), [*BUILD, *START])
    assert stream.getvalue().splitlines() == [
        "solving the environment",
        "downloading packages (50.0 MiB)",
        "linking packages",
        "sing",
        "built image 0123456789ab…",
        "starting replicas",
        "replica b failed: no",
        "2 of 2 replicas are healthy",
    ]


def test_the_lines_of_a_build_are_for_those_who_ask() -> None:
    stream = io.StringIO()
    tell(PlainProgress(stream, verbose=True), BUILD)
    assert stream.getvalue().splitlines()[0] == "  plan: image/base/code/layer"
    terminal = Terminal()
    tell(RichProgress(terminal, verbose=True), BUILD)
    assert terminal.screen == ["  plan: image/base/code/layer", "✓ built image 0123456789ab…"]


def test_what_was_reused_and_what_is_odd_is_for_everybody() -> None:
    stream = io.StringIO()
    lines = ["lock sha256:0", "reused environment 3f2a (312 MB)", "warning: there is no CUDA here"]
    tell(PlainProgress(stream), [{"kind": "build", "message": line} for line in lines])
    assert stream.getvalue().splitlines() == lines[1:]


def test_the_end_follows_from_what_was_asked_for() -> None:
    def last_line(events: list[dict[str, Any]], replicas: int | None) -> str:
        stream = io.StringIO()
        tell(PlainProgress(stream), events, replicas)
        return stream.getvalue().splitlines()[-1]

    one = [START[2], START[-1]]
    assert last_line(one, 1) == "1 of 1 replica is healthy"
    assert last_line(one, 3) == "1 of 3 replicas are healthy"
    assert last_line(one, None) == "1 new replica is healthy"
    assert last_line(START, None) == "2 new replicas are healthy"
    told = io.StringIO()
    tell(PlainProgress(told), [{"kind": "accepted"}, {"kind": "done"}])
    assert told.getvalue() == ""


def test_whoever_gives_up_knows_what_was_last() -> None:
    assert tell(Progress(), []).last == "nothing was heard of it yet"
    assert tell(Progress(), BUILD[:3]).last == "solving the environment"
    assert tell(Progress(), [*BUILD, *START[:2]]).last == "replica b starting"
    assert tell(Progress(), [{"kind": "waiting", "message": "for a GPU"}]).last == "for a GPU"


# -- on a terminal ----------------------------------------------------------------------------------------


def test_what_goes_on_is_shown_in_place_and_leaves_nothing_behind() -> None:
    terminal = Terminal()
    progress = RichProgress(terminal)
    progress.step("sent code (5 KiB)")
    tell(progress, BUILD[:3])
    until(lambda: len(terminal.screen) == 2, terminal)
    assert "solving the environment" in terminal.screen[1] and re.search(r" \d:\d\d:\d\d$", terminal.screen[1])
    assert "━" not in terminal.screen[1]  # no bar without an end

    rollout = tell(progress, BUILD[3:5])  # solving is over now
    until(lambda: len(terminal.screen) == 3 and "0/14 packages" in terminal.screen[2], terminal)
    assert "downloading packages" in terminal.screen[1] and "0.0/50.0 MiB" in terminal.screen[1]
    progress.working("linking packages", 14, 14, "packages")
    progress.working("downloading packages", 25 * 2**20, 50 * 2**20, "bytes")
    until(lambda: len(terminal.screen) == 2 and "25.0/50.0 MiB" in terminal.screen[1], terminal)
    progress.trouble("the channel is slow")
    until(lambda: len(terminal.screen) == 3 and "25.0/50.0 MiB" in terminal.screen[-1], terminal)
    assert terminal.screen[1] == "! the channel is slow"

    progress.working("downloading packages", 50 * 2**20, 50 * 2**20, "bytes")
    until(lambda: "50.0/50.0 MiB" in terminal.screen[-1], terminal)
    rollout.hear(Event("0", "image", "", {"image": "x", "reused": True}))
    assert terminal.screen == ["✓ sent code (5 KiB)", "! the channel is slow", "✓ reused image x…"]


def test_a_whole_deploy_is_a_few_lines() -> None:
    terminal = Terminal()
    progress = RichProgress(terminal)
    progress.working("packing Greeter", brief=True)
    progress.step("sent code (5 KiB)")
    progress.step("Greeter is new")
    tell(progress, [*BUILD, *START])
    progress.success("Greeter runs at http://x/Greeter", "curl http://x/Greeter")
    assert terminal.screen == [
        "✓ sent code (5 KiB)",
        "✓ Greeter is new",
        "✓ built image 0123456789ab…",
        "! replica b failed: no",
        "✓ 2 of 2 replicas are healthy",
        "✓ Greeter runs at http://x/Greeter",
        "  curl http://x/Greeter",
    ]
    assert terminal.coloured
    assert "\x1b[?25l" in terminal.getvalue() and terminal.getvalue().rindex("\x1b[?25h")  # the cursor is back


def test_rest_ends_it_however_it_ended() -> None:
    terminal = Terminal()
    progress = RichProgress(terminal)
    progress.rest()
    progress.working("starting replicas", 0, 3, "healthy")
    progress.rest()
    assert terminal.screen == [] or not any(terminal.screen)
    progress.working("starting replicas", 0, 3, "healthy")  # and it can begin again
    until(lambda: any("0/3 healthy" in line for line in terminal.screen), terminal)
    progress.rest()


def test_text_is_not_taken_for_markup() -> None:
    terminal = Terminal()
    progress = RichProgress(terminal)
    progress.working("reading [bold]x[/bold]", 1, 2, "[red]files")
    until(lambda: any("[bold]x[/bold]" in line and "1/2 [red]files" in line for line in terminal.screen), terminal)
    progress.step("[green]done")
    assert terminal.screen == ["✓ [green]done"]


# -- which ------------------------------------------------------------------------------------------------


def test_what_suits_a_stream() -> None:
    assert isinstance(progress_for(Terminal(), {"TERM": "xterm"}), RichProgress)
    assert type(progress_for(Terminal(), {"TERM": "dumb"})) is PlainProgress
    assert type(progress_for(io.StringIO(), {"TERM": "xterm"})) is PlainProgress


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"NO_COLOR": "yes", "TERM": "xterm-256color"}])
def test_no_color(environ: dict[str, str]) -> None:
    terminal = Terminal()
    progress = progress_for(terminal, environ)
    tell(progress, [*BUILD, *START])
    progress.success("Greeter runs", "curl x")
    assert isinstance(progress, RichProgress)
    assert not terminal.coloured and terminal.screen[-2:] == ["✓ Greeter runs", "  curl x"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None, None, ""), ""),
        ((3, None, "files"), "3 files"),
        ((3, 12, "files"), "3/12 files"),
        ((None, 12, "files"), "12 files"),
        ((0, 3, ""), "0/3"),
        ((2**19, 2**20, "bytes"), "0.5/1.0 MiB"),
        ((100, 2**19, "bytes"), "512 KiB"),
        ((3 * 2**20, None, "bytes"), "3.0 MiB"),
        ((None, 2**21, "bytes"), "2.0 MiB"),
        ((2**29, 3 * 2**30, "bytes"), "0.5/3.0 GiB"),
    ],
)
def test_amounts(given: tuple[int | None, int | None, str], said: str) -> None:
    assert amount(*given) == said


def test_sizes() -> None:
    assert [size_text(n) for n in (0, 1, 2048, 2**20, 3 * 2**19, 3 * 2**29)] == [
        "0 KiB",
        "1 KiB",
        "2 KiB",
        "1.0 MiB",
        "1.5 MiB",
        "1.5 GiB",
    ]
