"""What the processes of an fngw hold while the soak runs, and at rest; and whether any of it leaks."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from harness import Stack
from memory import descendants, memory_of
from soak_deaths import status

from fngw import protocol
from fngw_state.layout import default_run_dir

__all__ = ["ASKABLE", "Held", "Sample", "Watch", "leaks", "slope"]

#: Parts that the soak's `sitecustomize` lets it ask; replicas are asked over HTTP.
ASKABLE = frozenset({"gateway", "controller", "dispatcher"})
HOLD_CONNECTIONS = frozenset({"gateway", "steady"})
#: What must be as it was, whatever happened: files of the replicas that live, and tasks of all who answer requests.
EXACT_FILES = frozenset({"steady"})
EXACT_TASKS = frozenset({"steady", "gateway"})
#: What else may be held more: pools of connections to Redis grow to the most that were ever needed at once.
SLACK = 8
#: MiB per 100,000 requests over the last third of a run.
MOST_GROWTH = 1.0
#: With fewer samples in the last third, or fewer requests, a slope would be noise.
LEAST_SAMPLES = 5
LEAST_REQUESTS = 200_000
CENSUS_S = 60.0
_CONNECTED = re.compile(r" 0001 03 +\d+ (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Held:
    """What one process holds; memory in MiB. ``tasks`` and ``objects`` are None where nobody can be asked.

    ``connections`` are those between gateways and replicas, which are kept for a while; ``files`` all else. Of
    several gateways nobody knows who has which: their files can be compared when there are no connections.
    """

    part: str
    files: int
    connections: int
    threads: int
    rss: float
    pss: float
    own: float
    tasks: int | None = None
    objects: int | None = None


@dataclass(frozen=True)
class Sample:
    """A look at all processes that live throughout, after so many requests."""

    done: int
    seconds: float
    held: dict[int, Held]
    in_flight: int
    queued: int


class Watch:
    """Looks at an fngw.

    Args:
        where: it.
        folder: where its parts answer to the census.
    """

    def __init__(self, where: Stack, folder: Path) -> None:
        self._where = where
        self._folder = folder
        self._began = time.monotonic()
        self._run = f"{default_run_dir(where.data_dir)}/r/"
        replicas = status(where.url, "steady")["replicas"]
        self._folders = {r["pid"]: f"{self._run}{r['id']}/" for r in replicas}
        parts = {pid: _part(pid) for pid in sorted(descendants(where.pid), reverse=True)}
        # All gateways; of the others the oldest process: what a part starts for a while comes and goes.
        oldest = {part: pid for pid, part in parts.items() if part not in ("", "runtime", "gateway")}
        self._parts = {pid: "gateway" for pid, part in parts.items() if part == "gateway"}
        self._parts |= {pid: part for part, pid in oldest.items()} | dict.fromkeys(self._folders, "steady")

    def look(self, done: int) -> Sample:
        """Look, while requests may be under way."""
        held = {pid: found for pid, part in self._parts.items() if (found := self._held(pid, part)) is not None}
        in_flight, queued = _gauges(self._where.url)
        return Sample(done, time.monotonic() - self._began, held, in_flight, queued)

    def _held(self, pid: int, part: str) -> Held | None:
        memory = memory_of(pid)
        if memory is None:
            return None
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        connections = self._connections(self._folders.get(pid, self._run)) if part in HOLD_CONNECTIONS else 0
        files = len(list(Path(f"/proc/{pid}/fd").iterdir())) - connections
        return Held(part, files, connections, threads, memory.rss, memory.pss, memory.own)

    def at_rest(self, done: int, before: Sample | None, patience_s: float) -> Sample:
        """Look when no request is under way, and all that is held has been let go of, or the time is over.

        Args:
            done: requests so far.
            before: what was held at rest before them.
            patience_s: how long connections may take to be closed.
        """
        until = time.monotonic() + patience_s
        while True:
            found = self._with_tasks(self.look(done))
            calm = not (found.in_flight or found.queued)
            if time.monotonic() > until or (calm and (before is None or not list(leaks(before, found)))):
                return found
            time.sleep(0.5)

    def pools_closed(self, patience_s: float) -> int:
        """Wait until the gateway has closed its idle connections; return how many are left."""
        until = time.monotonic() + patience_s
        while (left := self._connections(self._run)) and time.monotonic() < until:
            time.sleep(0.5)
        return left

    def _connections(self, to: str) -> int:
        """Connections to sockets below this folder."""
        paths = _CONNECTED.findall(Path("/proc/net/unix").read_text())
        return sum(path.startswith(to) for path in paths)

    def _with_tasks(self, sample: Sample) -> Sample:
        held = dict(sample.held)
        for pid, one in sample.held.items():
            told = self._ask_replica(pid) if one.part == "steady" else self._ask_part(pid, one.part)
            held[pid] = replace(one, **told)
        return replace(sample, held=held)

    def _ask_part(self, pid: int, part: str) -> dict[str, int]:
        if part not in ASKABLE:
            return {}
        path = self._folder / f"{pid}.json"
        path.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR1)
        _until(path.exists, f"{part} does not tell of its tasks")
        found: dict[str, int] = json.loads(path.read_text())
        return found

    def _ask_replica(self, pid: int) -> dict[str, int]:
        """Ask one replica itself, past the gateway."""
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=self._folders[pid] + protocol.SOCKET_FILE), timeout=CENSUS_S
        ) as client:
            found: dict[str, int] = client.get("http://steady/census/0").json()
        return found


def _part(pid: int) -> str:
    found = memory_of(pid)
    return found.part if found else ""


def _gauges(url: str) -> tuple[int, int]:
    """Return how many requests are in flight, and queued."""
    text = httpx.get(f"{url}/-/metrics", timeout=30).text
    sums = []
    for name in ("fngw_requests_in_flight", "fngw_requests_queued"):
        sums.append(sum(int(float(value)) for value in re.findall(rf"^{name}\{{.*\}} (\S+)$", text, re.MULTILINE)))
    return sums[0], sums[1]


def _until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + CENSUS_S
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(what)
        time.sleep(0.01)


# -- judging ------------------------------------------------------------------------------------------------


def leaks(before: Sample, after: Sample) -> Iterator[str]:
    """Return what is held at rest that was not held before."""
    for gauge in ("in_flight", "queued"):
        if count := getattr(after, gauge):
            yield f"{count} requests are {gauge} at rest"
    for pid, old in before.held.items():
        new = after.held.get(pid)
        if new is None:
            yield f"{old.part} ({pid}) has not lived through it"
            continue
        if new.files > old.files + SLACK * (old.part not in EXACT_FILES):
            yield f"{old.part} ({pid}): {old.files} open files, kept connections aside, became {new.files}"
        if (new.tasks or 0) > (old.tasks or 0) + SLACK * (old.part not in EXACT_TASKS):
            yield f"{old.part} ({pid}): {old.tasks} tasks became {new.tasks}"


def slope(samples: Sequence[Sample], pid: int) -> float | None:
    """Return MiB per 100,000 requests of a process' own memory over the last third; None: too little was seen."""
    last = [s for s in samples if s.done >= samples[-1].done * 2 / 3 and pid in s.held]
    if len(last) < LEAST_SAMPLES or last[-1].done - last[0].done < LEAST_REQUESTS:
        return None
    xs, ys = [s.done / 1e5 for s in last], [s.held[pid].own for s in last]
    middle = sum(xs) / len(xs)
    return sum((x - middle) * y for x, y in zip(xs, ys, strict=True)) / sum((x - middle) ** 2 for x in xs)
