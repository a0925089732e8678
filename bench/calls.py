"""Calls that wait: how many a dispatcher gets done, against RQ's stock worker; how many a gateway takes in; how
soon they start; whether memory stays flat.

    .venv/bin/python bench/calls.py [--rounds N] [--memory N] [--only-memory]

For the memory, calls go through a whole fngw: gateway, dispatcher, Redis, a replica. Results are kept for two
seconds, and each look comes when all calls are forgotten: what is left then stays, but for the 7 days for which
Redis remembers that there was a call.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import uvloop
from calls_rig import Rig, rig, until
from goals import Goal, Least, Most, print_goals
from harness import Figures, Stack, arguments, interleaved, machine, paired_ratios, print_table, stack
from memory import read

from fngw_dispatcher.http import Client, tcp

T = TypeVar("T")

PER_ROUND = 1000
STOCK_PER_ROUND = 20
ACCEPTED_PER_ROUND = 2000
CONNECTIONS = 32
LOOKS = 10
PARTS = ("gateway", "dispatcher", "controller", "redis")

APP = """
import fngw
@fngw.deployment
def bench():
    return "ok"
bench.deploy()
"""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return uvloop.run(coroutine)


def throughput(where: Rig, rounds: int) -> list[Goal]:
    """Compare a dispatcher with RQ's SimpleWorker on calls of 50 ms."""
    figures = interleaved(
        {
            "dispatcher": lambda _: run(where.calls_per_second(PER_ROUND)),
            "SimpleWorker": lambda _: where.stock_per_second(STOCK_PER_ROUND),
        },
        rounds,
    )
    ratios = paired_ratios(figures["dispatcher"], figures["SimpleWorker"])
    print_table(
        ("calls of 50 ms", "per s", "range"),
        [
            *(Figures.of(values).row(name) for name, values in figures.items()),
            ratios.row("ratio of pairs", digits=1),
        ],
    )
    pairs = [a / b for a, b in zip(figures["dispatcher"], figures["SimpleWorker"], strict=True)]
    return [
        Goal("calls per second and dispatcher", figures["dispatcher"], "/s", Least(500)),
        Goal("the same, against RQ's SimpleWorker", pairs, "×", Least(30)),
    ]


def starts(where: Rig, rounds: int) -> Goal:
    """Accepted → started with nothing else to do."""
    medians = [statistics.median(run(where.start_delays(50))) * 1000 for _ in range(rounds)]
    return Goal("accepted → started, p50", medians, "ms", Most(15))


def memory(count: int) -> list[Goal]:
    """PSS of each part after each tenth of the calls; the first two tenths fill caches and pools."""
    looks: list[dict[str, float]] = []
    with keeping_for(seconds=2), stack("process", "--workers", "1") as where:
        deploy(where.url)
        for done in range(count // LOOKS, count + 1, count // LOOKS):
            run(accept_rate(port_of(where), count // LOOKS))
            until(lambda: ended(where.url) == done, 300)  # noqa: B023
            until(lambda: not ask(where.url, "/-/calls?limit=1")["calls"], 60)
            looks.append({part: sum(m.pss for m in read(where) if m.part == part) for part in PARTS})
            print(f"  {done} calls: " + ", ".join(f"{p} {mib:.1f}" for p, mib in looks[-1].items()), flush=True)
    growth = {part: looks[-1][part] - looks[1][part] for part in PARTS}
    each = growth.pop("redis") * 2**20 / (count * (LOOKS - 2) // LOOKS)
    goals = [Goal(f"{part}: growth, all but the first fifth", [g], "MiB", Most(4)) for part, g in growth.items()]
    return [*goals, Goal("Redis: what it keeps of a forgotten call", [each], "B", Most(250))]


@contextmanager
def keeping_for(seconds: int) -> Iterator[None]:
    """Have results expire soon in what is started now."""
    os.environ["FNGW_CALL_RESULT_TTL"] = str(seconds)
    yield
    del os.environ["FNGW_CALL_RESULT_TTL"]


def ended(url: str) -> int:
    """How many calls have ended well."""
    with urllib.request.urlopen(f"{url}/-/metrics") as answer:
        lines = answer.read().decode().splitlines()
    name = 'fngw_calls_ended_total{deployment="bench",status="finished"} '
    return sum(int(line.removeprefix(name)) for line in lines if line.startswith(name))


def ask(url: str, path: str) -> Any:
    with urllib.request.urlopen(url + path) as answer:
        return json.load(answer)


def port_of(where: Stack) -> int:
    return int(where.url.rpartition(":")[2])


def accepting(rounds: int) -> Goal:
    """202s per second of one gateway worker, over TCP, with no dispatcher running."""
    with stack("process", "--workers", "1", "--dispatchers", "0") as where:
        deploy(where.url)
        rates = [run(accept_rate(port_of(where), ACCEPTED_PER_ROUND)) for _ in range(rounds + 1)]
    return Goal("202s per second and gateway worker", rates[1:], "/s", Least(1500))


def deploy(url: str) -> None:
    done = subprocess.run([sys.executable, "-c", APP], env=os.environ | {"FNGW_URL": url}, capture_output=True)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    assert "/bench" in ask(url, "/-/routes")


async def accept_rate(port: int, count: int) -> float:
    """Have calls taken in; return how many per second."""
    client = Client(tcp(["127.0.0.1"], port), 2**20)
    headers = (("host", "localhost"), ("prefer", "respond-async"), ("content-type", "text/plain"))
    left = iter(range(count))

    async def submit() -> None:
        for _ in left:
            answer = await client.send("POST", "/bench", headers, b"x" * 100)
            assert answer.status == 202, answer

    began = time.perf_counter()
    await asyncio.gather(*(submit() for _ in range(CONNECTIONS)))
    rate = count / (time.perf_counter() - began)
    await client.close()
    return rate


def speed(rounds: int) -> list[Goal]:
    with rig() as where:
        goals = [starts(where, rounds), *throughput(where, rounds)]
    return [*goals, accepting(rounds)]


def main() -> int:
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--memory", type=int, default=20_000, help="calls for the memory (default: %(default)s)")
    parser.add_argument("--only-memory", action="store_true", help="measure nothing else")
    given = parser.parse_args()
    goals = [] if given.only_memory else speed(given.rounds)
    goals += memory(given.memory)
    print_goals(goals)
    print(machine())
    return 0 if all("MISSED" not in goal.verdict for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
