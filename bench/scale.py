"""The data plane with much of everything: routes, deployments in a table, idle clients, deploys beside traffic."""

from __future__ import annotations

import os
import random
import resource
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from io import StringIO
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import redis
from goals import Goal, Most
from harness import Stack
from memory import process_memory
from subjects import processes, replica_dirs
from wrk import Request, Slice, Wrk, read

import fngw
from fngw import protocol
from fngw_gateway.proxy.routing import Routes, read_path
from fngw_state import keys
from fngw_state.records import RoutedDeployment, RoutedReplica, RoutingTable
from fngw_supervisor.embedded import find_server

__all__ = ["measure"]

ROUTES = 10_000
TABLE = 1_000
CLIENTS = 10_000
#: One address has some 28,000 ports for connections to one other.
CLIENTS_PER_ADDRESS = 2_000
ASKED = 20_000
PUBLISHED = 10
DEPLOY_SLICE_S = 3.0


def measure(where: Stack, folder: Path, rounds: int) -> list[Goal]:
    """Measure everything.

    Args:
        where: an fngw with one gateway worker, on which ``dataplane_app`` runs.
        folder: an existing one for files.
        rounds: of what is measured in turn.
    """
    return [routing(rounds), *tables(where, folder, rounds), *deploys(where, folder, rounds), *clients(where)]


# -- routes -------------------------------------------------------------------------------------------------


def routing(rounds: int) -> Goal:
    """Find a route among many, and the only one, in turn."""
    one, many = (Routes((f"/team/{n}", n) for n in range(size)) for size in (1, ROUTES))
    rng = random.Random(7)
    paths = [b"/team/%d/users/1" % rng.randrange(ROUTES) for _ in range(ASKED)]
    differences = [
        _per_match_us(many, paths) - _per_match_us(one, [b"/team/0/users/1"] * ASKED) for _ in range(rounds)
    ]
    return Goal(f"a route among {ROUTES}, above the only one", differences, "µs", Most(3))


def _per_match_us(routes: Routes[int], paths: list[bytes]) -> float:
    begin = time.perf_counter()
    for raw in paths:
        key = read_path(raw)
        assert key is not None
        routes.match(key[1])
    return (time.perf_counter() - begin) / len(paths) * 1e6


# -- tables -------------------------------------------------------------------------------------------------


class Publisher:
    """Gives a gateway tables of 1,000 deployments, each time with another replica of one of them."""

    def __init__(self, client: redis.Redis, replica: Path) -> None:
        self._redis = client
        self._numbers = count(1)
        self._first = _routed("hello", str(replica / protocol.SOCKET_FILE))
        self._others = [_routed(f"d{n}", f"/nowhere/{n}") for n in range(TABLE - 1)]

    def publish(self) -> float:
        """Publish a table; return the seconds until the gateway tells that it routes by it."""
        generation = next(self._numbers)
        self._others[generation % len(self._others)] = _routed("changed", f"/nowhere/else/{generation}")
        text = RoutingTable(generation, (self._first, *self._others)).to_json()
        begin = time.perf_counter()
        self._redis.set(keys.ROUTES, text)
        self._redis.publish(keys.ROUTES_CHANNEL, str(generation))
        until = begin + 10
        while not self._acknowledged(generation):
            if time.perf_counter() > until:
                raise SystemExit("the gateway does not acknowledge a routing table")
            time.sleep(0.0005)
        return time.perf_counter() - begin

    def _acknowledged(self, generation: int) -> bool:
        gateways = [os.fsdecode(name) for name in self._redis.smembers(keys.GATEWAYS)]
        return any(self._redis.get(f"{keys.GATEWAY}{name}") == str(generation) for name in gateways)


def _routed(name: str, address: str) -> RoutedDeployment:
    return RoutedDeployment(
        name=name,
        route_prefix=f"/{name}",
        replicas=(RoutedReplica(f"{name}-1", address),),
        max_concurrent_queries=1000,
        max_queued_requests=1000,
        request_timeout_s=None,
    )


def tables(where: Stack, folder: Path, rounds: int) -> list[Goal]:
    """Apply tables in a gateway of its own, which has a Redis of its own, with and without traffic."""
    wrk, quiet, busy, still, moving = Wrk(folder, Request()), [], [], [], []
    with gateway(folder) as (url, client):
        publisher = Publisher(client, replica_dirs(where)["hello"])
        publisher.publish()
        for _ in range(rounds):
            quiet += [publisher.publish() * 1e3 for _ in range(PUBLISHED)]
            with wrk.running(f"{url}/hello", 8) as process:
                time.sleep(1)
            still.append(read(process, url))
            with wrk.running(f"{url}/hello", 8) as process:
                busy += [_paced(publisher, 1 / PUBLISHED) * 1e3 for _ in range(PUBLISHED)]
            moving.append(read(process, url))
    p99 = [a.p99 / b.p99 for a, b in zip(moving, still, strict=True)]
    return [
        Goal(f"a table of {TABLE}: published → acknowledged", quiet, "ms", Most(10)),
        Goal("  the same under traffic, c=8", busy, "ms", Most(10)),
        Goal(f"  p99 of that traffic, {PUBLISHED} tables/s, of without", p99, "×", Most(1.2)),
    ]


def _paced(publisher: Publisher, every_s: float) -> float:
    begin = time.monotonic()
    took = publisher.publish()
    time.sleep(max(0.0, begin + every_s - time.monotonic()))
    return took


@contextmanager
def gateway(folder: Path) -> Iterator[tuple[str, redis.Redis]]:
    """Run a gateway with a Redis that nobody else writes to."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-", dir=folder)))
        path = home / "redis.sock"
        words = [
            str(find_server().path),
            "--port",
            "0",
            "--unixsocket",
            str(path),
            "--save",
            "",
            "--dir",
            str(home),
        ]
        stack.enter_context(_process(words, {}))
        client = stack.enter_context(redis.Redis(unix_socket_path=str(path), decode_responses=True))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        listener.close()
        env = {
            "FNGW_DATA_DIR": home,
            "FNGW_RUN_DIR": home / "r",
            "FNGW_REDIS_URL": f"unix://{path}",
            "FNGW_PORT": port,
            "FNGW_LOG_LEVEL": "warning",
        }
        stack.enter_context(
            _process([sys.executable, "-P", "-m", "fngw_gateway"], {k: str(v) for k, v in env.items()})
        )
        _until_listening(port)
        yield f"http://127.0.0.1:{port}", client


@contextmanager
def _process(words: list[str], env: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        words, env={"PATH": "/usr/bin:/bin", **env}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _until_listening(port: int) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise SystemExit("the gateway does not listen") from None
            time.sleep(0.05)


# -- deploys beside traffic ---------------------------------------------------------------------------------


@fngw.deployment(name="other")
class Other:
    """What is deployed again and again while another deployment has traffic."""

    def __init__(self, word: str) -> None:
        self._word = word

    def __call__(self) -> str:
        return self._word


def deploys(where: Stack, folder: Path, rounds: int) -> list[Goal]:
    """Compare p99 of one deployment with and without a deploy of another."""
    fngw.connect(where.url)
    wrk = Wrk(folder, Request())
    _deploy()
    ratios: dict[int, list[float]] = {8: [], 64: []}
    for _ in range(rounds):
        for connections, found in ratios.items():
            still, moving = (_slice(wrk, where, connections, deploy) for deploy in (False, True))
            found.append(moving.p99 / still.p99)
    return [
        Goal(f"p99 during another's deploy, c={n}, of without", found, "×", Most(1.2))
        for n, found in ratios.items()
    ]


def _slice(wrk: Wrk, where: Stack, connections: int, deploy: bool) -> Slice:
    with wrk.running(f"{where.url}/hello", connections) as process:
        begin = time.monotonic()
        if deploy:
            _deploy()
        time.sleep(max(0.0, begin + DEPLOY_SLICE_S - time.monotonic()))
    return read(process, where.url)


def _deploy() -> None:
    with redirect_stderr(StringIO()):
        Other.deploy(secrets.token_hex(4))  # type: ignore[attr-defined]


# -- idle clients -------------------------------------------------------------------------------------------


def clients(where: Stack) -> list[Goal]:
    """Hold many connections open that have asked once; return what the gateway needs for all it does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CLIENTS + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        print(f"\nulimit -Hn is {hard}: {CLIENTS} idle clients are not measured (it takes {wanted})")
        return []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    (pid,) = processes(where, "fngw_gateway")
    before = process_memory(pid)
    address = urlsplit(where.url)
    held = [_client(address.port or 80, n) for n in range(CLIENTS)]
    after = process_memory(pid)
    for client in held:
        client.close()
    return [
        Goal(f"{CLIENTS} idle clients: the gateway's PSS", [after], "MiB", Most(150)),
        Goal("  of which for them", [after - before], "MiB", Most(150)),
    ]


def _client(port: int, number: int) -> socket.socket:
    own = (f"127.0.0.{2 + number // CLIENTS_PER_ADDRESS}", 0)
    client = socket.create_connection(("127.0.0.1", port), timeout=30, source_address=own)
    client.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
    if not client.recv(4096).startswith(b"HTTP/1.1 200"):
        raise SystemExit("a request of an idle client failed")
    return client
