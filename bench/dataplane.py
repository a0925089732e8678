"""The data plane: fngw's gateway against nginx and against nothing at all, before the same replica. `make bench`

    direct    the replica alone: the same app on loopback TCP
    nginx     Debian's nginx → the replica's Unix socket
    fngw N    fngw with N gateway workers → the replica's Unix socket

Everything is measured in turn, slice by slice (direct, nginx, fngw 1, fngw 2, direct, …), so that what slows the
machine down slows all. `c` is connections; `CPU` is the gateway's (or nginx's) per request; `of nginx` compares
requests per second within each round. Load generator, gateway and replica share the machine's cores.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import scale
from goals import Goal, Least, Most, print_goals
from harness import Figures, arguments, interleaved_all, machine, paired_ratios, print_table, stack
from subjects import CALL, Subject, deploy_all, direct, fngw_subject, nginx
from wrk import Request, Slice, Wrk, cpu_seconds, require_wrk

from fngw import protocol

#: How many connections: every kind is measured with these, and GET hello with more (all with --full).
CONNECTIONS = (1, 64)
ALL_CONNECTIONS = (1, 8, 64, 256)
BY_HANDLE = "handle"


@dataclass(frozen=True)
class Cell:
    """One figure of the table: a kind of request, so many connections, and who answers."""

    kind: str
    connections: int
    subject: str


Results = Mapping[Cell, Sequence[Slice]]


def requests() -> dict[str, Request]:
    """Return what is sent, by kind; ``call`` is a call by handle as it is on the wire."""
    kib = json.dumps({"text": "x" * (1024 - len('{"text": ""}'))}).encode()
    return {
        "hello": Request(),
        "json": Request("POST", kib, {"content-type": "application/json"}),
        "body": Request("POST", b"x" * 2**20, {"content-type": "application/octet-stream"}),
        "stream": Request(),
        CALL: Request(
            "POST", b"".join(map(bytes, protocol.encode_frame(((), {})))), {"content-type": protocol.CALL_TYPE}
        ),
    }


def measure(subjects: Sequence[Subject], folder: Path, options: Namespace) -> dict[Cell, list[Slice]]:
    """Run everything, in turn."""
    cases: dict[Cell, Callable[[], Slice]] = {}
    for kind, request in requests().items():
        if options.only not in (None, kind):
            continue
        wrk = Wrk(folder, request)
        for count in ALL_CONNECTIONS if options.full or kind == "hello" else CONNECTIONS:
            for subject in subjects:
                run = partial(wrk.run, subject.urls[kind], count, options.slice, subject.pids)
                cases[Cell(kind, count, subject.name)] = run
    for count in CONNECTIONS if options.only in (None, BY_HANDLE) else ():
        for subject in subjects:
            if subject.name.startswith("fngw"):
                run = partial(by_handle, subject, count, options.slice)
                cases[Cell(BY_HANDLE, count, subject.name)] = run
    return interleaved_all(cases, options.rounds)


def by_handle(subject: Subject, at_a_time: int, seconds: float) -> Slice:
    """Call through the SDK from another Python process, so many calls at a time."""
    url = subject.urls["hello"].removesuffix("/hello")
    client = str(Path(__file__).with_name("handle_client.py"))
    before = cpu_seconds(subject.pids)
    done = subprocess.run(
        [sys.executable, client, url, str(at_a_time), str(seconds)], capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise SystemExit(f"calls by handle failed\n{done.stderr}")
    found = json.loads(done.stdout)
    spent = cpu_seconds(subject.pids) - before
    return Slice(
        found["calls"] / found["seconds"], found["p50"], found["p99"], found["p99"], spent / found["calls"] * 1e6
    )


# -- the report ---------------------------------------------------------------------------------------------

NAMES = {
    "hello": "GET hello",
    "json": "POST 1 KiB JSON",
    "body": "POST 1 MiB",
    "stream": "GET 64 KiB, streamed",
    CALL: "call by handle, by wrk",
    BY_HANDLE: "call by handle, SDK",
}


def rows(results: Results) -> Iterator[tuple[str, ...]]:
    """Return the table's rows."""
    before = ""
    for cell, slices in results.items():
        rps = Figures.of([s.rps for s in slices])
        p50, p99, cpu = (statistics.median(getattr(s, f) for s in slices) for f in ("p50", "p99", "cpu"))
        what = f"{NAMES[cell.kind]}, c={cell.connections}"
        yield (
            what if what != before else "",
            f"{rps.median:.0f}",
            f"{rps.least:.0f}–{rps.most:.0f}",
            f"{p50:.0f}".rjust(7),
            f"{p99:.0f}".rjust(7),
            f"{cpu:.0f}".rjust(5) if cpu else "    –",
            _of_nginx(results, cell),
            cell.subject,
        )
        before = what


def _of_nginx(results: Results, cell: Cell) -> str:
    other = results.get(Cell(cell.kind, cell.connections, "nginx"))
    if other is None or cell.subject == "nginx":
        return "–"
    return f"{paired_ratios([s.rps for s in results[cell]], [s.rps for s in other]).median:.2f}"


def goals(results: Results) -> list[Goal]:
    """Return what the figures are to be, for one worker."""

    def pairs(kind: str, count: int, other: str) -> list[tuple[Slice, Slice]]:
        mine, others = (results.get(Cell(kind, count, name), ()) for name in ("fngw 1", other))
        return list(zip(mine, others, strict=False))

    def of_nginx(kind: str, count: int, field: str) -> list[float]:
        return [getattr(a, field) / getattr(b, field) for a, b in pairs(kind, count, "nginx")]

    def least(kind: str, count: int, name: str, field: str) -> list[float]:
        """Other work on the machine only ever adds to a latency, or to CPU: the quietest round has least of it."""
        slices = results.get(Cell(kind, count, name), ())
        return [min(getattr(s, field) for s in slices)] if slices else []

    quiet = [a - b for a, b in zip(*(least("hello", 1, n, "p50") for n in ("fngw 1", "direct")), strict=False)]
    added = [a.p50 - b.p50 for a, b in pairs("hello", 1, "direct")]
    cpu = [s.cpu for s in results.get(Cell("hello", 64, "fngw 1"), ())]
    return [
        Goal("GET hello, c=64: requests/s, of nginx'", of_nginx("hello", 64, "rps"), "×", Least(0.75)),
        Goal("GET hello, c=1: p50 above the replica's", added, "µs", Most(200), Most(150)),
        Goal("  the same, each in its quietest round", quiet, "µs", Most(200), Most(150)),
        Goal("GET hello, c=64: gateway CPU per request", cpu, "µs", Most(100), Most(60)),
        Goal("  the same, in its quietest round", least("hello", 64, "fngw 1", "cpu"), "µs", Most(100), Most(60)),
        Goal("GET hello, c=64: p99, of nginx'", of_nginx("hello", 64, "p99"), "×", Most(1.5)),
        Goal("POST 1 MiB, c=1: requests/s, of nginx'", of_nginx("body", 1, "rps"), "×", Least(0.85)),
        Goal("POST 1 MiB, c=64: requests/s, of nginx'", of_nginx("body", 64, "rps"), "×", Least(0.85)),
    ]


def parse() -> Namespace:
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--slice", type=float, default=1.0, help="seconds of each measured slice")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 0.5 s: a look, not a measurement")
    parser.add_argument("--full", action="store_true", help="every kind of request with 8 and 256 connections, too")
    parser.add_argument(
        "--no-scale", action="store_true", help="leave out what is measured of many routes and clients"
    )
    parser.add_argument("--only", choices=NAMES, help="one kind of request alone")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.slice = 2, 0.5
    return options


def main() -> int:
    """Measure and print; the exit status is 0 whatever the figures are, as another machine has others."""
    options = parse()
    require_wrk()
    with ExitStack() as context:
        folder = Path(context.enter_context(tempfile.TemporaryDirectory(prefix="fngw-bench-")))
        one, two = (context.enter_context(stack("process", "--workers", n)) for n in "12")
        deploy_all(two)
        deploy_all(one)
        front = context.enter_context(nginx(one, folder))
        subjects = [context.enter_context(direct(one, folder)), *([front] if front else [])]
        subjects += [fngw_subject("fngw 1", one), fngw_subject("fngw 2", two)]
        results = measure(subjects, folder, options)
        found = goals(results)
        report(results, options)
        if not options.no_scale:
            found += scale.measure(one, folder, options.rounds)
    print_goals(found)
    return 0


def report(results: Results, options: Namespace) -> None:
    """Print the table."""
    print(f"\nThe data plane: {options.rounds} rounds of {options.slice:g} s slices, in turn ({machine()})\n")
    print_table(("", "req/s", "min–max", "p50 µs", "p99 µs", "CPU µs", "of nginx", ""), list(rows(results)))


if __name__ == "__main__":
    sys.exit(main())
