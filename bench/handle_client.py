"""A process that calls a deployment by its handle: so many calls at a time, for so long. Used by ``dataplane.py``

python handle_client.py URL CALLS_AT_A_TIME SECONDS   → a line of JSON: calls, seconds, p50 and p99 in µs
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time

import fngw
from fngw.handles import DeploymentHandle

WARM_UP = 20


async def caller(handle: DeploymentHandle, until: float, took: list[float]) -> None:
    while (begin := time.perf_counter()) < until:
        await handle.remote()
        took.append(time.perf_counter() - begin)


async def main(at_a_time: int, seconds: float) -> None:
    handle, took = DeploymentHandle("hello"), list[float]()
    for _ in range(WARM_UP):
        await handle.remote()
    begin = time.perf_counter()
    await asyncio.gather(*(caller(handle, begin + seconds, took) for _ in range(at_a_time)))
    elapsed = time.perf_counter() - begin
    cuts = statistics.quantiles(took, n=100)
    print(json.dumps({"calls": len(took), "seconds": elapsed, "p50": cuts[49] * 1e6, "p99": cuts[98] * 1e6}))


if __name__ == "__main__":
    fngw.connect(sys.argv[1])
    asyncio.run(main(int(sys.argv[2]), float(sys.argv[3])))
