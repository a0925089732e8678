"""How long a new ``user_config`` takes through many idle replicas. `python bench/reconfigure.py`

One deployment of 50 replicas with a ``reconfigure`` that returns at once, as local processes. Each round changes
the ``user_config`` and waits for the end of that deploy: five batches of ten in turn, each acknowledged by every
replica before the next. Measured from the request to the gateway until its ``done`` event is here.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Figures, arguments, machine, print_table, stack

from fngw.client import Client
from fngw.deploying import finish
from fngw.endpoint import resolve
from fngw.progress import Progress

REPLICAS = 50
GOAL_P99_S = 0.150
APP = """
import fngw


@fngw.deployment(name="many", version="1", num_replicas={replicas}, user_config={{"n": 0}}, num_cpus=0)
class Many:
    def reconfigure(self, config):
        self.n = config["n"]

    def __call__(self):
        return self.n
"""


def main() -> int:
    options = arguments(__doc__, rounds=50).parse_args()
    with tempfile.TemporaryDirectory() as folder, stack("process") as running:
        path = Path(folder, "many_app.py")
        path.write_text(APP.format(replicas=REPLICAS))
        fngw = Path(sys.executable).with_name("fngw")
        subprocess.run([fngw, "deploy", path, "--url", running.url], check=True, stdout=sys.stderr)
        with Client(resolve(running.url, None)) as client:
            change(client, -1)
            rounds = sorted(change(client, number) for number in range(1, options.rounds + 1))
    p99 = rounds[min(len(rounds) - 1, int(len(rounds) * 0.99))]
    print(machine())
    row = Figures.of(rounds).row(f"{REPLICAS} replicas, {len(rounds)} rounds", scale=1e3)
    print_table(("a new user_config", "median ms", "min–max", "p99 ms"), [(*row, f"{p99 * 1e3:.0f}")])
    met = p99 <= GOAL_P99_S
    print(f"goal: p99 ≤ {GOAL_P99_S * 1e3:.0f} ms: {'met' if met else 'MISSED'}")
    return 0 if met else 1


def change(client: Client, number: int) -> float:
    """Give every replica ``{"n": number}``; return the seconds it took."""
    began = time.perf_counter()
    accepted = client.adjust("many", {"user_config": {"n": number}})
    finish(client, "many", accepted.revision, Progress())
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
