"""``max_concurrent_queries`` is exact in each replica, over all callers and gateways; the queue is bounded."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

APP = """
import asyncio
import os
import threading
import time

import fngw


@fngw.deployment(name="NAME", num_replicas=2, max_concurrent_queries=3, max_queued_requests=QUEUE)
class Counted:
    def __init__(self):
        self.lock = threading.Lock()
        self.now = self.most = self.entered = 0

    async def __call__(self, request):
        self.enter()
        try:
            if "gate" in request.query_params:
                while not os.path.exists(request.query_params["gate"]):
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.05)
            return self.most
        finally:
            self.leave()

    def blocking(self, seconds):
        self.enter()
        try:
            time.sleep(seconds)
            return self.most
        finally:
            self.leave()

    def count(self):
        return os.getpid(), self.entered

    def enter(self):
        with self.lock:
            self.entered += 1
            self.now += 1
            self.most = max(self.most, self.now)

    def leave(self):
        with self.lock:
            self.now -= 1
"""


#: Prints how many requests have entered both replicas.
ENTERED = """
import fngw
handle = fngw.get_deployment("NAME").get_handle()
counts = {}
while len(counts) < 2:
    pid, entered = handle.count.remote().result(60)
    counts[pid] = entered
print(sum(counts.values()))
"""

#: Prints the most requests at a time that any replica saw during 60 calls of a blocking method.
BLOCKING = """
import fngw
handle = fngw.get_deployment("NAME").get_handle()
print(max(fngw.get([handle.blocking.remote(0.05) for _ in range(60)], timeout=60)))
"""


@pytest.fixture
def two_gateways(installation: Any) -> Any:
    """A stack whose port is shared by two gateway processes."""
    return installation.up("process", "--workers", "2")


def deploy(stack: Any, name: str, files: Any, queue: int) -> None:
    folder = files({"counted_app.py": APP.replace("NAME", name).replace("QUEUE", str(queue))})
    stack.fngw("deploy", str(folder / "counted_app.py"))


async def test_no_replica_ever_runs_more_than_its_limit(two_gateways: Any, unique: str, files: Any):
    deploy(two_gateways, unique, files, queue=1000)
    assert len(two_gateways.pids("fngw_gateway")) == 2

    async def ask() -> int:
        # A connection of its own for each, so that both gateway processes take some.
        async with httpx.AsyncClient(base_url=two_gateways.url, timeout=60) as http:
            answer = await http.get(f"/{unique}")
            assert answer.status_code == 200, answer.text
            return int(answer.text)

    by_handle = asyncio.to_thread(two_gateways.python, BLOCKING.replace("NAME", unique))
    called, *most = await asyncio.gather(by_handle, *(ask() for _ in range(120)))
    assert called.returncode == 0, called.stderr
    assert max(*most, int(called.stdout)) == 3, "the limit is reached, and not exceeded"


async def test_a_full_queue_refuses_and_says_when_to_come_back(
    process_stack: Any, unique: str, files: Any, tmp_path: Path
):
    deploy(process_stack, unique, files, queue=4)
    gate = tmp_path / "gate"
    async with httpx.AsyncClient(base_url=process_stack.url, timeout=60) as http:
        asked = [asyncio.create_task(http.get(f"/{unique}", params={"gate": str(gate)})) for _ in range(30)]
        # Until the gate is open the others can only be refused.
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        gate.touch()
        answers = await asyncio.gather(*asked)
        refused = [a for a in answers if a.status_code != 200]
        # Two replicas with three places each, and four places in the queue.
        assert len(answers) - len(refused) >= 10
        assert refused and {a.status_code for a in refused} == {503}
        assert {a.json()["code"] for a in refused} == {"overloaded"}
        assert all(int(a.headers["retry-after"]) >= 1 for a in refused)


def test_who_leaves_the_queue_never_reaches_a_replica(process_stack: Any, unique: str, files: Any, tmp_path: Path):
    deploy(process_stack, unique, files, queue=1000)
    port = int(process_stack.url.rpartition(":")[2])
    gate = tmp_path / "gate"

    def send(path: str) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        return connection

    def gateway_has_read_all() -> None:
        httpx.get(f"{process_stack.url}/-/healthz", timeout=60)  # one event loop: what came before is read before

    busy = [send(f"/{unique}?gate={gate}") for _ in range(6)]
    gateway_has_read_all()
    queued = [send(f"/{unique}") for _ in range(20)]
    gateway_has_read_all()
    for connection in queued:
        connection.close()
    gateway_has_read_all()
    gate.touch()
    for connection in busy:
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.close()
    done = process_stack.python(ENTERED.replace("NAME", unique))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["6"]
