"""Calls that wait: how many a dispatcher gets done, against RQ's stock worker; how many a gateway takes in; how
soon they start; whether memory stays flat.

    .venv/bin/python bench/calls.py [--rounds N] [--calls N]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop
from calls_rig import Rig, rig
from goals import Goal, Least, Most, print_goals
from harness import Figures, arguments, interleaved, machine, paired_ratios, print_table, stack

from fngw_dispatcher.http import Client, tcp

T = TypeVar("T")

PER_ROUND = 1000
STOCK_PER_ROUND = 20
ACCEPTED_PER_ROUND = 2000
CONNECTIONS = 32

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


def memory(where: Rig, count: int) -> Goal:
    """The dispatcher's memory after a fifth of the calls, and after all."""
    run(where.flow(count // 5))
    early = where.memory()
    run(where.flow(count - count // 5))
    late = where.memory()
    print(
        f"  dispatcher's memory: {early / 1024:.1f} MiB after {count // 5} calls, {late / 1024:.1f} after {count}"
    )
    return Goal(f"growth over {count - count // 5} calls", [(late - early) / 1024], "MiB", Most(4))


def accepting(rounds: int) -> Goal:
    """202s per second of one gateway worker, over TCP, with no dispatcher running."""
    with stack("process", "--workers", "1", "--dispatchers", "0") as where:
        deploy(where.url)
        port = int(where.url.rpartition(":")[2])
        rates = [run(accept_rate(port)) for _ in range(rounds + 1)]
    return Goal("202s per second and gateway worker", rates[1:], "/s", Least(1500))


def deploy(url: str) -> None:
    import os
    import subprocess

    done = subprocess.run([sys.executable, "-c", APP], env=os.environ | {"FNGW_URL": url}, capture_output=True)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    with urllib.request.urlopen(f"{url}/-/routes") as answer:
        assert "/bench" in json.load(answer)


async def accept_rate(port: int) -> float:
    client = Client(tcp("127.0.0.1", port), 2**20)
    headers = (("host", "localhost"), ("prefer", "respond-async"), ("content-type", "text/plain"))
    left = iter(range(ACCEPTED_PER_ROUND))

    async def submit() -> None:
        for _ in left:
            answer = await client.send("POST", "/bench", headers, b"x" * 100)
            assert answer.status == 202, answer

    began = time.perf_counter()
    await asyncio.gather(*(submit() for _ in range(CONNECTIONS)))
    rate = ACCEPTED_PER_ROUND / (time.perf_counter() - began)
    await client.close()
    return rate


def main() -> int:
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--calls", type=int, default=20_000, help="for the memory (default: %(default)s)")
    given = parser.parse_args()
    with rig() as where:
        goals = [starts(where, given.rounds), *throughput(where, given.rounds), memory(where, given.calls)]
    goals.append(accepting(given.rounds))
    print_goals(goals)
    print(machine())
    return 0 if all("MISSED" not in goal.verdict for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
