"""fngw against other servers for Python functions: Ray Serve (its own proxy, and HAProxy), LitServe, BentoML.
`make bench-peers`

Each peer is installed from the package index into a virtual environment of its own, thrown away in the end.
It runs in network and process namespaces of its own (Ray listens on all interfaces), next to an fngw with one
gateway worker and one replica; both are measured in turn, with the same answer to the same kind of request. A peer
that cannot be installed, or does not start here, is told as such.

Needs root (unshare), wrk and a network.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path

import dataplane_app
import httpx
from goals import Goal, Least, print_goals
from harness import Figures, arguments, interleaved_all, machine, paired_ratios, print_table, stack
from wrk import Request, Slice, Wrk, require_wrk

import fngw

CONNECTIONS = (1, 64)
PORT = 18000
INSTALL_S = 600
START_S = 120
MEASURE_S = 300


@dataclass(frozen=True)
class Peer:
    """One server: what to install, its program, how to start that, and what to ask it."""

    name: str
    packages: tuple[str, ...]
    source: str
    words: tuple[str, ...]
    path: str
    request: Request = field(default_factory=Request)
    env: tuple[tuple[str, str], ...] = ()
    at_least: float | None = None  # how many times its requests per second fngw is to reach


_RAY = """\
import ray, time
from ray import serve
from starlette.responses import PlainTextResponse

@serve.deployment(max_ongoing_requests=1000, ray_actor_options={{"num_cpus": 0.1}})
class Hello:
    async def __call__(self, request):
        return PlainTextResponse("Hello, world")

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
serve.start(http_options={{"host": "127.0.0.1", "port": {port}}})
serve.run(Hello.bind(), route_prefix="/hello")
while True:
    time.sleep(60)
"""
_LIT = """\
import litserve

class Hello(litserve.LitAPI):
    def setup(self, device):
        pass
    def decode_request(self, request):
        return request
    def predict(self, x):
        return "Hello, world"
    def encode_response(self, output):
        return output

if __name__ == "__main__":
    server = litserve.LitServer(Hello(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port={port}, generate_client_file=False, log_level="error")
"""
_BENTO = """\
import bentoml

@bentoml.service(workers=1, traffic={{"max_concurrency": 1000}}, metrics={{"enabled": False}})
class Hello:
    @bentoml.api
    async def hello(self) -> str:
        return "Hello, world"
"""
_JSON = Request("POST", b"{}", {"content-type": "application/json"})
_NO_STATS = (("RAY_USAGE_STATS_ENABLED", "0"), ("BENTOML_DO_NOT_TRACK", "True"))

PEERS = (
    Peer("Ray Serve", ("ray[serve]",), _RAY, ("python", "app.py"), "/hello", env=_NO_STATS, at_least=20),
    Peer(
        "Ray Serve, HAProxy",
        ("ray[serve,haproxy]",),
        _RAY,
        ("python", "app.py"),
        "/hello",
        env=(*_NO_STATS, ("RAY_SERVE_ENABLE_HA_PROXY", "1"), ("RAY_SERVE_EXPERIMENTAL_PIP_HAPROXY", "1")),
        at_least=3,
    ),
    Peer("LitServe", ("litserve",), _LIT, ("python", "app.py"), "/predict", _JSON),
    Peer(
        "BentoML",
        ("bentoml",),
        _BENTO,
        ("bentoml", "serve", "app:Hello", "--host", "127.0.0.1", "--port", "{port}"),
        "/hello",
        _JSON,
        env=_NO_STATS,
    ),
)


class Absent(Exception):
    """A peer cannot be measured here, and why."""


# -- outside: install, and hand over into namespaces ---------------------------------------------------------


def compare(peer: Peer, folder: Path, options: Namespace) -> dict[str, list[Slice]]:
    """Install a peer and measure it and fngw in turn; return the slices by "name c".

    Raises:
        Absent: it cannot be done here.
    """
    home = folder / peer.name.replace(" ", "-").replace(",", "").lower()
    _install(peer, home)
    words = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, __file__]
    words += ["--inside", peer.name, str(home), "--rounds", str(options.rounds), "--slice", str(options.slice)]
    done = _run(words, MEASURE_S, "measuring it")
    found: dict[str, list[dict[str, float]]] = json.loads(done.splitlines()[-1])
    return {key: [Slice(**one) for one in slices] for key, slices in found.items()}


def _install(peer: Peer, home: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    _run([uv, "venv", "--quiet", "--python", version, str(home)], INSTALL_S, "making an environment for it")
    python = str(home / "bin" / "python")
    _run([uv, "pip", "install", "--quiet", "--python", python, *peer.packages], INSTALL_S, "installing it")
    (home / "app.py").write_text(peer.source.format(port=PORT))


def _run(words: Sequence[str], seconds: float, what: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"{what} failed: {error}") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no word"]
        raise Absent(f"{what} failed: {last[0]}")
    return done.stdout


# -- inside: both run here ----------------------------------------------------------------------------------


def inside(peer: Peer, home: Path, options: Namespace) -> None:
    """Measure in these namespaces, and print the figures as a line of JSON."""
    _loopback_up()
    with running(peer, home) as url, stack("process", "--workers", "1") as own:
        fngw.connect(own.url)
        with redirect_stderr(StringIO()):
            dataplane_app.hello.deploy()
        cases: dict[str, Callable[[], Slice]] = {}
        theirs, ours = Wrk(home, peer.request), Wrk(home, Request())
        for count in CONNECTIONS:
            cases[f"{peer.name} {count}"] = _case(theirs, url, count, options.slice)
            cases[f"fngw {count}"] = _case(ours, f"{own.url}/hello", count, options.slice)
        found = interleaved_all(cases, options.rounds)
    print(json.dumps({key: [asdict(one) for one in slices] for key, slices in found.items()}))


def _case(wrk: Wrk, url: str, count: int, seconds: float) -> Callable[[], Slice]:
    return lambda: wrk.run(url, count, seconds)


def _loopback_up() -> None:
    """What `ip link set lo up` does (netdevice(7)), without the program."""
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name, flags = struct.unpack("16sh14x", fcntl.ioctl(sock, get_flags, struct.pack("16sh14x", b"lo", 0)))
        fcntl.ioctl(sock, set_flags, struct.pack("16sh14x", name, flags | up))


@contextmanager
def running(peer: Peer, home: Path) -> Iterator[str]:
    """Run a peer; return the URL to ask, once it answers."""
    program, *words = (word.format(port=PORT) for word in peer.words)
    env = {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "HOME": str(home), "VIRTUAL_ENV": str(home)}
    env["TMPDIR"] = tempfile.gettempdir()  # short: Ray puts sockets there
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [str(home / "bin" / program), *words],
            cwd=home,
            env={**env, **dict(peer.env)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{PORT}{peer.path}"
    try:
        _until_it_answers(peer, url, process, home / "log")
        yield url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _until_it_answers(peer: Peer, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(httpx.HTTPError):
            content = peer.request.body or None
            answer = httpx.request(peer.request.method, url, content=content, headers=dict(peer.request.headers))
            if answer.status_code == 200:
                return
        time.sleep(0.2)
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no word"]
    raise SystemExit(f"it did not answer within {START_S} s: {last[0]}")


# -- the report ---------------------------------------------------------------------------------------------


def rows(peer: Peer, found: dict[str, list[Slice]]) -> Iterator[tuple[str, ...]]:
    for count in CONNECTIONS:
        mine = [s.rps for s in found[f"fngw {count}"]]
        for name in (peer.name, "fngw"):
            slices = found[f"{name} {count}"]
            rps = Figures.of([s.rps for s in slices])
            p50, p99 = (statistics.median(getattr(s, f) for s in slices) for f in ("p50", "p99"))
            ratio = "" if name == "fngw" else f"{paired_ratios(mine, [s.rps for s in slices]).median:.1f} ×"
            what = f"{name}, c={count}"
            yield what, f"{rps.median:.0f}", f"{rps.least:.0f}–{rps.most:.0f}", f"{p50:.0f}", f"{p99:.0f}", ratio


def main() -> int:
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--slice", type=float, default=1.5, help="seconds of each measured slice")
    parser.add_argument("--only", choices=[p.name for p in PEERS], help="one peer alone")
    parser.add_argument("--inside", nargs=2, metavar=("PEER", "FOLDER"), help="used by this bench itself")
    options = parser.parse_args()
    require_wrk()
    by_name = {peer.name: peer for peer in PEERS}
    if options.inside:
        inside(by_name[options.inside[0]], Path(options.inside[1]), options)
        return 0
    table, goals, absent = measure([by_name[options.only]] if options.only else PEERS, options)
    print(f"\nGET (or POST) hello: {options.rounds} rounds of {options.slice:g} s slices, in turn ({machine()})\n")
    print_table(("", "req/s", "min–max", "p50 µs", "p99 µs", "fngw is"), table)
    for line in absent:
        print(line)
    if goals:
        print_goals(goals)
    return 0


def measure(peers: Sequence[Peer], options: Namespace) -> tuple[list[tuple[str, ...]], list[Goal], list[str]]:
    """Return the table's rows, the goals, and what could not be measured."""
    table: list[tuple[str, ...]] = []
    goals: list[Goal] = []
    absent: list[str] = []
    for peer in peers:
        with tempfile.TemporaryDirectory(prefix="peer-") as folder:
            try:
                found = compare(peer, Path(folder), options)
            except Absent as error:
                absent.append(f"{peer.name} cannot be measured here: {error}")
                continue
        table += rows(peer, found)
        if peer.at_least:
            pairs = zip(found["fngw 64"], found[f"{peer.name} 64"], strict=True)
            ratios = [a.rps / b.rps for a, b in pairs]
            goals.append(Goal(f"requests/s at c=64, of {peer.name}'s", ratios, "×", Least(peer.at_least)))
    return table, goals, absent


if __name__ == "__main__":
    sys.exit(main())
