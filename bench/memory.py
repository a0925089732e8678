"""What an idle control plane takes of memory, part by part. `python bench/memory.py`

    PSS   proportional set size: pages that several processes share count to each by its share, so the sum is right
    own   pages that nobody else has: what ending the part would give back
    RSS   resident set size, for comparison: counts shared pages in every part

Nothing is deployed. The figures are of the last round; between the first and the last nothing should have grown.

A first start that does not count fills a cache of byte-code: compiling leaves up to 10 MiB of holes in a process,
and an installation is compiled once in its life.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from goals import Goal, Most, print_goals
from harness import Stack, arguments, machine, print_table, stack

PAUSE_S = 2.0
GOAL = 150
MIB = 1024  # in kB, as the kernel counts
#: The beginnings of Redis' title; all else is a Python module that names itself.
SERVERS = ("redis-server", "valkey-server")


@dataclass(frozen=True)
class Memory:
    """One process: its part's name, and its memory in MiB."""

    part: str
    pss: float
    own: float
    rss: float


def read(stack: Stack) -> list[Memory]:
    """Return the memory of every process of an installation."""
    found = [memory_of(pid) for pid in sorted(descendants(stack.pid))]
    return [memory for memory in found if memory is not None]


def descendants(pid: int) -> set[int]:
    """Return a process and all that it started, and they."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold anything; the parent is the second word behind it.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # ended meanwhile
        children.setdefault(parent, []).append(int(path.parent.name))
    found, waiting = set(), [pid]
    while waiting:
        found.add(one := waiting.pop())
        waiting += children.get(one, [])
    return found


def memory_of(pid: int) -> Memory | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None  # ended meanwhile
    sizes = {key: int(value.split()[0]) / MIB for key, _, value in (line.partition(":") for line in lines)}
    return Memory(part(command), sizes["Pss"], sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["Rss"])


def process_memory(pid: int) -> float:
    """Return the PSS of one process in MiB; 0 when it has ended."""
    found = memory_of(pid)
    return found.pss if found else 0.0


def part(command: list[str]) -> str:
    """Return the name of the part that runs as ``command``."""
    modules = [word.removeprefix("fngw_") for word in command if word.startswith("fngw_")]
    if modules:
        return modules[0].rpartition(".")[2]
    name = Path(command[0].split(" ")[0]).name  # Redis writes its socket into its title
    if name.startswith(SERVERS):
        return "redis"
    return "supervisor" if "up" in command else name


def main() -> int:
    """Measure and print."""
    parser = arguments(__doc__ or "", rounds=7)
    parser.add_argument("--engine", choices=("docker", "process"), default="docker")
    parser.add_argument("--dispatchers", type=int, default=1, help="the goal is from before there were any: 0")
    options = parser.parse_args()
    totals = []
    with byte_code():
        with stack(options.engine):
            pass
        with stack(options.engine, "--workers", "1", "--dispatchers", str(options.dispatchers)) as where:
            for _ in range(options.rounds):
                time.sleep(PAUSE_S)
                found = read(where)
                totals.append(sum(memory.pss for memory in found))
    report(found, totals, options.engine)
    return 0


@contextmanager
def byte_code() -> Iterator[None]:
    """Let what is started now keep its byte-code in a folder, whatever this environment says of that."""
    before = os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="fngw-bench-") as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        yield
    if before is not None:
        os.environ["PYTHONDONTWRITEBYTECODE"] = before


def report(found: list[Memory], totals: list[float], engine: str) -> None:
    print(f"\nIdle control plane, engine {engine}, MiB ({machine()})\n")
    rows = [(m.part, f"{m.pss:.1f}", f"{m.own:.1f}", f"{m.rss:.1f}") for m in sorted(found, key=lambda m: -m.pss)]
    sums = [f"{sum(column):.1f}" for column in zip(*((m.pss, m.own, m.rss) for m in found), strict=True)]
    print_table(("part", "PSS", "own", "RSS"), [*rows, ("all", *sums)])
    print(f"\nPSS of all over {len(totals)} looks, {PAUSE_S:g} s apart: {totals[0]:.1f} → {totals[-1]:.1f} MiB")
    print_goals([Goal("PSS of the whole idle control plane", totals, "MiB", Most(GOAL))])


if __name__ == "__main__":
    sys.exit(main())
