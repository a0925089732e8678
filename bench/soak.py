"""A soak: a million requests through the gateway while clients leave, dawdle and replicas die. `make soak`

Each request has a number that its answer must carry, with a checksum over both: an answer that went to the wrong
request ends the soak. An error has to be explained by a fault. In the end, at rest, files, tasks and connections
have to be as few as before, and over the last third no process may have grown.

    steady   two replicas that live throughout    frail   three that are killed    late   exceeds its time limit

The exit status is 0 only when all of that holds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import soak_app
import uvloop
from harness import Stack, machine, print_table, stack
from soak_book import Book
from soak_clients import Crowd
from soak_deaths import Reaper, deploy
from soak_requests import Wrong
from soak_watch import MOST_GROWTH, Sample, Watch, leaks, slope

import fngw

#: What a run is warmed up with: pools, threads and caches come to their size.
WARM_UP = 20_000
SAMPLES = 20
#: A run with so many complaints has told enough.
MOST_COMPLAINTS = 1000
SETTLE_S = 20.0


class Soak:
    """One run.

    Args:
        where: an fngw on the process engine.
        folder: where its parts answer to the census.
        options: the program's.
    """

    def __init__(self, where: Stack, folder: Path, options: argparse.Namespace) -> None:
        self._options = options
        self.book = Book()
        self._crowd = Crowd(int(where.url.rpartition(":")[2]), self.book, options.seed, options.rate)
        self._reaper = Reaper(where.url, self.book, options.seed)
        self._watch = Watch(where, folder)
        self.samples: list[Sample] = []
        self.connections_left = 0
        self.seconds = self.cpu_seconds = 0.0

    async def run(self) -> None:
        """Warm up, look, go, look again.

        Raises:
            ExceptionGroup: of ``Wrong``, or of what made the soak itself fail.
            TimeoutError: it is not done in time.
        """
        requests = self._options.requests
        async with asyncio.timeout(self._options.minutes * 60):
            await self._crowd.ask(self._options.clients, lambda: self.book.done >= min(WARM_UP, requests // 10))
            await asyncio.to_thread(deploy, soak_app.Frail)
            await asyncio.to_thread(self._watch.pools_closed, self._options.rest)
            self.samples.append(await asyncio.to_thread(self._watch.at_rest, self.book.done, None, SETTLE_S))
            begun, spent = time.monotonic(), time.process_time()
            await self._go(self.book.done + requests)
            self.seconds, self.cpu_seconds = time.monotonic() - begun, time.process_time() - spent
            left = await asyncio.to_thread(self._watch.pools_closed, self._options.rest)
            self.connections_left = left if self._options.rest else 0
            end = await asyncio.to_thread(self._watch.at_rest, self.book.done, self.samples[0], SETTLE_S)
            self.samples.append(end)

    async def _go(self, goal: int) -> None:
        def enough() -> bool:
            if sum(self.book.complaints.values()) > MOST_COMPLAINTS:
                return True
            return self.book.done >= goal and self._reaper.finished_first_round

        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look())
            group.create_task(self._reaper.reap(self._options.death_every))
            await self._crowd.ask(self._options.clients, enough)
            looking.cancel()
            self.book.close()

    async def _look(self) -> None:
        """Look at the processes now and then, and tell how it goes."""
        every = max(1, self._options.requests // SAMPLES)
        due = self.book.done + every
        while True:
            await self.book.reached(due)
            due += every
            self.samples.append(await asyncio.to_thread(self._watch.look, self.book.done))
            seconds, complaints = self.samples[-1].seconds, sum(self.book.complaints.values())
            print(f"{self.book.done} requests after {seconds:.0f} s, {complaints} unexplained", flush=True)

    def failures(self) -> list[str]:
        """Return what is wrong, if anything."""
        found = [f"{count} × {what}" for what, count in self.book.complaints.items()]
        found += leaks(self.samples[0], self.samples[-1])
        if self.connections_left:
            found.append(f"{self.connections_left} connections to replicas are never closed")
        for pid, held in self.samples[0].held.items():
            growth = slope(self.samples[1:-1], pid)
            if growth is not None and growth > MOST_GROWTH:
                found.append(f"{held.part} ({pid}) grows by {growth:.2f} MiB per 100,000 requests")
        return found


# -- the report ---------------------------------------------------------------------------------------------


def report(soak: Soak) -> None:
    """Print what was asked, what was done to it, and what was held."""
    print("\nRequests\n")
    print_table(("kind", "count", "", "outcome"), [(kind, n, "", what) for kind, n, what in soak.book.rows()])
    print("\nFaults\n")
    print_table(("fault", "count"), [(name, f"{n}") for name, n in soak.book.faults.most_common()])
    print("\nMemory, each process' own, MiB, while requests are under way\n")
    print_growth(soak.samples)
    print("\nAt rest, before → after\n")
    print_rest(soak.samples[0], soak.samples[-1])
    done = soak.samples[-1].done - soak.samples[0].done
    cpu = soak.cpu_seconds / done * 1e6
    print(f"\n{done} requests in {soak.seconds:.0f} s, {done / soak.seconds:.0f}/s; the client's own CPU: ", end="")
    print(f"{cpu:.0f} µs each, so {1e6 / cpu:.0f}/s at most ({machine()})")


def print_growth(samples: Sequence[Sample]) -> None:
    first = samples[0].held
    head = ("requests", "seconds", "in flight", "queued", *(held.part for held in first.values()))
    rows = []
    for sample in samples:
        own = (f"{sample.held[pid].own:.1f}" if pid in sample.held else "–" for pid in first)
        rows.append((f"{sample.done}", f"{sample.seconds:.0f}", f"{sample.in_flight}", f"{sample.queued}", *own))
    slopes = [slope(samples[1:-1], pid) for pid in first]
    growth = ("–" if value is None else f"{value:+.2f}" for value in slopes)
    print_table(head, [*rows, ("MiB per 100,000, last third", "", "", "", *growth)])


def print_rest(before: Sample, after: Sample) -> None:
    rows = []
    for pid, old in before.held.items():
        new = after.held.get(pid)
        fields = ("files", "connections", "threads", "tasks", "objects", "rss", "pss", "own")
        rows.append((old.part, *(_change(getattr(old, f), getattr(new, f, None)) for f in fields)))
    print_table(("", "files", "connections", "threads", "tasks", "objects", "RSS", "PSS", "own"), rows)


def _change(before: float | None, after: float | None) -> str:
    digits = 1 if isinstance(before, float) else 0
    return " → ".join("–" if value is None else f"{value:.{digits}f}" for value in (before, after))


# -- the program --------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whole = {"type": int, "metavar": "N"}
    parser.add_argument("--requests", default=1_000_000, help="after the warm-up (default: %(default)s)", **whole)
    parser.add_argument("--clients", default=48, help="at a time (default: %(default)s)", **whole)
    parser.add_argument("--workers", default=1, help="of the gateway (default: %(default)s)", **whole)
    parser.add_argument("--seed", default=1, help="of all that is random (default: %(default)s)", **whole)
    parser.add_argument("--rate", default=0, help="requests per second, at most (default: no limit)", **whole)
    parser.add_argument("--minutes", type=float, default=25, help="the longest it may take (default: %(default)s)")
    every = "requests from one death or redeploy to the next (default: %(default)s)"
    parser.add_argument("--death-every", default=4000, help=every, **whole)
    rest = "seconds for idle connections to replicas to be closed; 0 not to look (default: %(default)s)"
    parser.add_argument("--rest", type=float, default=75, help=rest)
    return parser.parse_args()


def take_census(folder: Path) -> None:
    """Have every process that is started from here on tell of its tasks when asked."""
    own = str(Path(__file__).with_name("soak_census"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (own, os.environ.get("PYTHONPATH"))))
    os.environ["SOAK_CENSUS"] = str(folder)


def main() -> int:
    """Soak, and tell; the exit status is 1 when anything was wrong."""
    options = parse()
    with tempfile.TemporaryDirectory(prefix="fngw-bench-") as name:
        folder = Path(name)
        take_census(folder)
        with stack("process", "--workers", str(options.workers)) as where:
            fngw.connect(where.url)
            for what in (soak_app.Steady, soak_app.Frail, soak_app.Late):
                deploy(what)
            soak = Soak(where, folder, options)
            return judged(soak)


def judged(soak: Soak) -> int:
    """Run, report, and return the exit status."""
    try:
        uvloop.run(soak.run())
    except TimeoutError:
        print(f"FAILED: it was not over in time; {soak.book.done} requests were done")
        return 1
    except ExceptionGroup as group:
        wrong, other = group.split(Wrong)
        if wrong is None or other is not None:
            raise
        print(f"WRONG after {soak.book.done} requests: {'; '.join(map(str, leaves(wrong)))}")
        return 1
    report(soak)
    for detail in soak.book.told:
        print(detail)
    failures = soak.failures()
    for failure in failures:
        print(f"FAILED: {failure}")
    print("not passed" if failures else "passed: every answer was right or explained, and nothing leaks")
    return 1 if failures else 0


def leaves(group: BaseExceptionGroup[Wrong]) -> Iterator[Wrong]:
    """Return the exceptions in a group of groups."""
    for error in group.exceptions:
        yield from leaves(error) if isinstance(error, BaseExceptionGroup) else (error,)


if __name__ == "__main__":
    sys.exit(main())
