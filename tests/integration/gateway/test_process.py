"""``python -m fngw_gateway`` as a process of its own, with a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fngw_state.layout import Layout
from fngw_state.records import RoutedDeployment, RoutedReplica, RoutingTable
from fngw_state.store import Store

from .conftest import RedisServer
from .wire import Client, Message, Peer, Upstream, echo, eventually, samples


class Gateways:
    """Gateway processes on one data directory."""

    def __init__(self, directory: Path, redis: RedisServer, store: Store) -> None:
        self.layout = Layout(directory / "data", directory / "run")
        self.store = store
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("FNGW_")},
            "FNGW_DATA_DIR": str(self.layout.data),
            "FNGW_RUN_DIR": str(self.layout.run),
            "FNGW_REDIS_URL": redis.url,
            "FNGW_PORT": str(self.port),
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.clients: list[Client] = []

    def start(self, *fds: int, **env: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "fngw_gateway"], env={**self._env, **env}, pass_fds=fds, stderr=subprocess.PIPE
        )
        self.processes.append(process)
        return process

    async def client(self, *, unix: bool = False) -> Client:
        if unix:
            client = Client(*await asyncio.open_unix_connection(self.layout.gateway_socket))
        else:
            client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def ask(self, method: str, path: str, headers: str = "", *, unix: bool = False) -> Message:
        client = await self.client(unix=unix)
        answer = await client.ask(method, path, headers)
        client.close()
        return answer

    async def ready(self) -> None:
        async def healthy() -> bool:
            assert self.processes[-1].poll() is None
            try:
                return (await self.ask("GET", "/-/healthz")).status == 200
            except OSError:
                return False

        await eventually(healthy, 90)

    async def publish(self, *upstreams: Upstream) -> int:
        """Route ``/f`` to these replicas."""
        replicas = tuple(RoutedReplica(u.path.stem, u.address) for u in upstreams)
        return await self.publish_all(RoutedDeployment("f", "/f", replicas, 10, 100, None))

    async def publish_all(self, *deployments: RoutedDeployment) -> int:
        """Publish a table of these; return its generation once every gateway routes by it."""
        number = await self.store.next_number()
        table = RoutingTable(number, deployments)
        await self.store.put_routes(await self.store.lead("c"), table)

        async def applied() -> bool:
            return set((await self.store.gateways()).values()) == {number}

        await eventually(applied, 60)
        return number

    def end(self, process: subprocess.Popen[bytes]) -> str:
        """Wait for a process; return what it said."""
        assert process.stderr is not None
        with process.stderr:
            said = process.stderr.read().decode()
        process.wait(60)
        return said

    def clear(self) -> None:
        for client in self.clients:
            client.abort()
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


@pytest.fixture
async def gateways(short_dir: Path, redis: RedisServer, store: Store) -> AsyncIterator[Gateways]:
    gateways = Gateways(short_dir, redis, store)
    yield gateways
    gateways.clear()


@pytest.fixture
async def replica(short_dir: Path) -> AsyncIterator[Upstream]:
    upstream = Upstream(short_dir / "r0.sock", echo)
    await upstream.start()
    yield upstream
    await upstream.stop()


async def test_it_serves_on_tcp_and_on_the_unix_socket(gateways: Gateways, replica: Upstream) -> None:
    process = gateways.start(FNGW_TOKEN="secret")
    await gateways.ready()
    await gateways.publish(replica)
    for unix in (False, True):
        assert (await gateways.ask("GET", "/f/x", unix=unix)).json()["first"] == "GET /f/x HTTP/1.1"
        assert (await gateways.ask("GET", "/-/routes", unix=unix)).json() == {"/f": "f"}
    assert (await gateways.ask("POST", "/-/call/f/m")).status == 401
    assert (await gateways.ask("POST", "/-/call/f/m", unix=True)).status == 200
    info = await gateways.ask("GET", "/x/../-/api/v1/info", "Authorization: Bearer secret\r\nX-Request-Id: me\r\n")
    assert (info.status, info.get("x-request-id")) == (200, "me")
    assert stat.S_IMODE(gateways.layout.gateway_socket.stat().st_mode) == 0o666
    process.send_signal(signal.SIGTERM)
    said = await asyncio.to_thread(gateways.end, process)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "pending" not in said
    assert await gateways.store.gateways() == {}
    assert not gateways.layout.gateway_socket.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_finishes_what_is_under_way(gateways: Gateways, short_dir: Path, number: signal.Signals) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer, upstream: Upstream) -> None:
        await peer.request()
        upstream.count += 1
        await go_on.wait()
        peer.answer(b"finished")

    slow = Upstream(short_dir / "slow.sock", script)
    await slow.start()
    process = gateways.start()
    await gateways.ready()
    await gateways.publish(slow)
    asked = asyncio.create_task(gateways.ask("GET", "/f"))
    await eventually(lambda: slow.count == 1)
    process.send_signal(number)

    async def refuses() -> bool:
        try:
            (await gateways.client()).abort()
        except OSError:
            return True
        return False

    await eventually(refuses)
    go_on.set()
    assert (await asked).body == b"finished"
    said = await asyncio.to_thread(gateways.end, process)
    assert process.returncode == 0, said
    await slow.stop()


async def test_it_serves_on_while_redis_is_away(gateways: Gateways, replica: Upstream, redis: RedisServer) -> None:
    gateways.start()
    await gateways.ready()
    await gateways.publish(replica)
    client = await gateways.client()
    await redis.kill()
    for _ in range(50):
        assert (await client.ask("GET", "/f")).status == 200

    async def noticed() -> bool:
        health = await gateways.ask("GET", "/-/healthz")
        assert health.status == 200
        return "why" in health.json()

    await eventually(noticed, 60)
    await redis.start()
    await gateways.publish()
    waiting = asyncio.create_task(client.ask("GET", "/f"))
    await gateways.publish(replica)
    assert (await waiting).status == 200


async def test_10_000_routes(gateways: Gateways, replica: Upstream) -> None:
    """Each request reaches the deployment of its longest prefix, before and after a swap, and while tables swap."""
    gateways.start()
    await gateways.ready()
    replicas = (RoutedReplica("r0", replica.address),)

    def table(turn: int) -> list[RoutedDeployment]:
        # The tenth ones lie within others: /t/7/x/7 within /t/7. Each turn moves them all.
        prefixes = [f"/t/{n}" if n % 10 else f"/t/{n + 7}/x/{turn}" for n in range(10_000)]
        return [RoutedDeployment(f"d{n}", prefix, replicas, 10, 100, None) for n, prefix in enumerate(prefixes)]

    client = await gateways.client()

    async def reaches(path: str) -> str | None:
        """The root path that the replica is told: the prefix of the route that was taken."""
        answer = await client.ask("GET", path)
        if answer.status == 404:
            assert answer.json()["code"] == "route_not_found"
            return None
        return str(dict(answer.json()["headers"])["fngw-root-path"])

    for turn in range(3):
        publishing = asyncio.create_task(gateways.publish_all(*table(turn)))
        while not publishing.done():
            assert await reaches("/t/7/y") in (["/t/7"] if turn else [None, "/t/7"])
        await publishing
        for n in random.sample(range(10_000), 100):
            if n % 10:
                assert await reaches(f"/t/{n}/y") == f"/t/{n}"
                assert await reaches(f"/t/{n}x") is None
                assert await reaches(f"/T/{n}") is None
                assert await reaches(f"/t%2F{n}") is None
            else:
                assert await reaches(f"/t/{n + 7}/x/{turn}/y") == f"/t/{n + 7}/x/{turn}"
                assert await reaches(f"/t/{n + 7}/x/{turn}y") == f"/t/{n + 7}"
                assert await reaches(f"/t/{n + 7}/x/{turn + 1}") == f"/t/{n + 7}"
    assert len((await gateways.ask("GET", "/-/routes")).json()) == 10_000


async def test_a_header_bomb_takes_no_memory_and_stops_nobody(gateways: Gateways, replica: Upstream) -> None:
    process = gateways.start()
    await gateways.ready()
    await gateways.publish(replica)
    client = await gateways.client()
    before = resident(process.pid)
    stop = asyncio.Event()

    async def bomb() -> None:
        """Send a header without an end for as long as anybody listens."""
        bomber = await gateways.client()
        bomber.write(b"GET /f HTTP/1.1\r\ncookie: ")
        with contextlib.suppress(ConnectionError):
            while not stop.is_set():
                bomber.write(b"x" * 2**20)
                await bomber.writer.drain()

    bombs = [asyncio.create_task(bomb()) for _ in range(50)]
    for _ in range(200):
        assert (await client.ask("GET", "/f")).status == 200
    most = resident(process.pid)
    await asyncio.wait(bombs, timeout=30)
    stop.set()
    assert all(task.done() for task in bombs), "they are cut off"
    # 50 of them may have 320 KiB each.
    assert max(most, resident(process.pid)) - before < 50 * 2**20


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_it_says_why_it_is_not_ready(gateways: Gateways, redis: RedisServer) -> None:
    await redis.kill()
    gateways.start()

    async def answered() -> Message | None:
        with contextlib.suppress(OSError):
            return await gateways.ask("GET", "/-/healthz")
        return None

    health = await eventually(answered, 90)
    assert health.status == 503
    assert "Redis" in health.json()["why"]
    assert (await gateways.ask("GET", "/f")).json()["code"] == "not_ready"
    await redis.start()
    await gateways.ready()


@pytest.fixture
def inherited(short_dir: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(short_dir / "inherited.sock"))
    unix.listen()
    yield tcp, unix
    tcp.close()
    unix.close()


async def test_several_processes_share_inherited_sockets(
    gateways: Gateways, replica: Upstream, inherited: tuple[socket.socket, socket.socket]
) -> None:
    tcp, unix = inherited
    gateways.port = tcp.getsockname()[1]
    fds = {"FNGW_FD": str(tcp.fileno()), "FNGW_UNIX_FD": str(unix.fileno())}
    processes = [gateways.start(tcp.fileno(), unix.fileno(), **fds) for _ in range(2)]
    await gateways.ready()

    async def both() -> bool:
        return len(await gateways.store.gateways()) == 2

    await eventually(both, 60)
    await gateways.publish(replica)
    answers = await asyncio.gather(*(gateways.ask("GET", "/f") for _ in range(20)))
    assert {a.status for a in answers} == {200}
    call = Client(*await asyncio.open_unix_connection(unix.getsockname()))
    gateways.clients.append(call)
    assert (await call.ask("POST", "/-/call/f/m")).status == 200
    processes[0].send_signal(signal.SIGTERM)
    assert "Traceback" not in await asyncio.to_thread(gateways.end, processes[0])
    assert processes[0].returncode == 0
    for _ in range(10):
        assert (await gateways.ask("GET", "/f")).status == 200


async def test_each_gateway_has_a_queue_of_its_own(gateways: Gateways, short_dir: Path) -> None:
    """``max_queued_requests`` is exact to one per gateway process: two may hold twice as many."""
    go_on = asyncio.Event()

    async def one_at_a_time(peer: Peer, upstream: Upstream) -> None:
        while await peer.request():
            if upstream.count:
                peer.answer(status="503 Full", headers="fngw-at-capacity: 1\r\n")
                continue
            upstream.count += 1
            await go_on.wait()
            peer.answer(b"done")
            upstream.count -= 1

    replica = Upstream(short_dir / "r0.sock", one_at_a_time)
    await replica.start()
    gateways.start()
    await gateways.ready()
    first = gateways.port
    with socket.create_server(("127.0.0.1", 0)) as free:
        second = free.getsockname()[1]
    gateways.port = second
    gateways.start(FNGW_PORT=str(second))
    await gateways.ready()
    await gateways.publish_all(RoutedDeployment("f", "/f", (RoutedReplica("r0", replica.address),), 1, 3, None))

    async def ask(port: int) -> Message:
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        gateways.clients.append(client)
        return await client.ask("GET", "/f")

    async def queued(port: int) -> float:
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        gateways.clients.append(client)
        return samples(await client.ask("GET", "/-/metrics")).get('requests_queued{deployment="f"}', 0)

    async def waiting(port: int, count: int) -> bool:
        return await queued(port) == count

    held = [asyncio.create_task(ask(first))]
    await eventually(lambda: replica.count == 1)
    held += [asyncio.create_task(ask(port)) for port in (first, second) for _ in range(3)]
    await eventually(lambda: waiting(first, 6))  # the sum over both, whichever is asked
    refused = await asyncio.gather(*(ask(port) for port in (first, second) for _ in range(2)))
    assert {(answer.status, answer.json()["code"]) for answer in refused} == {(503, "overloaded")}
    go_on.set()
    assert {answer.status for answer in await asyncio.gather(*held)} == {200}
    await replica.stop()


async def test_metrics_are_of_all_processes_whichever_is_asked(
    gateways: Gateways, replica: Upstream, inherited: tuple[socket.socket, socket.socket]
) -> None:
    tcp, unix = inherited
    gateways.port = tcp.getsockname()[1]
    fds = {"FNGW_FD": str(tcp.fileno()), "FNGW_UNIX_FD": str(unix.fileno())}

    def start() -> subprocess.Popen[bytes]:
        return gateways.start(tcp.fileno(), unix.fileno(), **fds)

    processes = [start(), start()]
    await gateways.ready()

    async def count(n: int) -> bool:
        return len(await gateways.store.gateways()) == n

    await eventually(lambda: count(2), 60)
    await gateways.publish(replica)
    slots = gateways.layout.metrics

    async def all_see(requests: int) -> bool:
        """Each answer is of one process or the other; ten in a row are hardly ever all of one."""
        seen = [samples(await gateways.ask("GET", "/-/metrics")) for _ in range(10)]
        return {counted.get('requests_total{deployment="f",code="2xx"}') for counted in seen} == {requests}

    asked = 0

    async def both_have_served() -> bool:
        nonlocal asked
        answers = await asyncio.gather(*(gateways.ask("GET", "/f") for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        asked += len(answers)
        return len(list(slots.glob("*.json"))) == 2

    def written() -> int:
        """How many requests are in the slots on disk: that is what outlives a process."""
        rows = [json.loads(slot.read_text()).get("f") for slot in slots.glob("*.json")]
        return sum(row[2] for row in rows if row)

    await eventually(both_have_served, 60)
    await eventually(lambda: all_see(asked))
    await eventually(lambda: written() == asked)
    processes[0].kill()
    processes[0].wait()
    assert await all_see(asked), "counters do not go back"
    start()
    await gateways.ready()
    await both_have_served()
    await eventually(lambda: all_see(asked))
    assert len(list(slots.glob("*.lock"))) == 2, "the successor took the slot over"


async def test_a_port_in_use_is_said(gateways: Gateways) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = gateways.start(FNGW_PORT=str(taken.getsockname()[1]))
        said = await asyncio.to_thread(gateways.end, process)
    assert process.returncode == 1
    assert "cannot listen on 127.0.0.1" in said
    assert "FNGW_PORT" in said
    assert "Traceback" not in said
