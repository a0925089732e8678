"""Builds, against `docker build` of the same on the same engine. `make bench`

    unchanged  asking for what is there already, until it is known that nothing is to be built
    code       changed sources on an environment that is there      | FROM environment, COPY code
    warm       an environment whose packages are in the cache       | RUN pip install of wheels in a layer below
    cold       the same with empty caches, and nothing solved yet   | RUN pip install from the same index
    import     numpy, pandas and scikit-learn in a new container    | the same in pip's image

Left is what an fngw takes that is asked over HTTP, from the request to the image's id; right what `docker build`
takes, from the command to its end. The packages come from an index on loopback, so that no network is measured.

Nothing is removed between two cold builds, each of which has a base of its own instead: where many files were just
removed, ext4 takes several times as long to make others (`recently_deleted` in Linux' fs/ext4/ialloc.c), which is
not what a deploy meets. It takes 2 GB of disk for each round.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
from harness import Figures, Stack, arguments, bar, interleaved, machine, paired_ratios, print_table, stack

from fngw import protocol
from fngw.bundle import collect, write_tar
from fngw.client import Client
from fngw.endpoint import Endpoint
from fngw.spec import CodeRef, DeploymentSpec
from fngw_builder.environment.solve import PREFERRED, REQUIRED

PYTHON = "%d.%d" % sys.version_info[:2]
ASKED = ("numpy", "pandas", "scikit-learn")
#: What pip is to install: the same, and what the builder adds to it for the runtime.
SET = (*ASKED, *sorted(REQUIRED | PREFERRED))
#: Of what the set needs with an older Python X.Y than this machine's, as a base may have.
OLDER = ("async-timeout",)
IMPORTS = "numpy, pandas, sklearn.ensemble"
INTERPRETER = f"{protocol.CONTAINER_ENV_DIR}/bin/python"
#: name of the pair → the most that fngw may take of what `docker build` takes.
GOALS = {"code": 1.0, "warm": 0.7, "cold": 1.0, "import": 1.0}
UNCHANGED_GOAL_S = 0.3
#: Under which the two lie that are compared in a round.
OURS, THEIRS = "fngw", "docker"


# -- packages -----------------------------------------------------------------------------------------------


def wheels() -> Path:
    """Return the folder with the wheels of `SET` and of pip; they are downloaded once per machine and Python."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "fngw-bench" / f"wheels-{PYTHON}"
    if not folder.is_dir():
        print(f"downloading {', '.join(SET)}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as name:
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
            command = [*pip, "--only-binary", ":all:", "--dest", name, "pip", *OLDER, *SET]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            shutil.copytree(name, folder)
    return folder


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder of wheels as a package index on loopback; yield its address."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.channel.index import write_index

    with tempfile.TemporaryDirectory(prefix="fngw-bench-index-", dir=folder.parent) as name:
        write_index(Path(name), {}, folder.glob("*.whl"))
        server = _Server(("127.0.0.1", 0), partial(_Quiet, directory=name))
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients leave when they have what they want."""


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""


# -- docker build -------------------------------------------------------------------------------------------


class DockerBuilds:
    """What people would do without fngw.

    Args:
        folder: an empty one, for contexts.
        packages: the wheels.
        index: where they are served.
    """

    def __init__(self, folder: Path, packages: Path, index: str) -> None:
        self._folder = folder
        self._index = index
        self._pip = next(packages.glob("pip-*.whl")).name
        self._name = f"fngw-bench-{secrets.token_hex(4)}"
        self._packages = packages
        self._has_wheels = False
        self._ids: list[str] = []
        self._count = 0
        self.base = f"{self._name}/base:py{{python}}"
        self.installed = f"{self._name}/installed"
        self.renew()

    def renew(self) -> None:
        """Have another base, with a layer of its own: no image that there is shares those above it."""
        self._has_wheels = False
        ground = self.base.format(python=PYTHON)
        self._build(ground, f"FROM fngw/base:py{PYTHON}\nCOPY . /srv", {"bench": secrets.token_bytes(8)})
        venv = f"USER root\nRUN python3 -m venv --without-pip {protocol.CONTAINER_ENV_DIR}"
        self._build(f"{self._name}/pip", f"FROM {ground}\n{venv}\nCOPY . /wheels", [self._packages / self._pip])

    def close(self) -> None:
        """Remove what was built, the newest first."""
        for image in reversed(self._ids):
            remove(image)

    def code(self, environment: str, files: Mapping[str, bytes]) -> float:
        """Return the seconds that sources on an environment take."""
        recipe = f"FROM {environment}\nCOPY . {protocol.CONTAINER_APP_DIR}"
        return self._build(f"{self._name}/code", recipe, files)

    def warm(self) -> float:
        """Return the seconds that the packages take from wheels in a layer below."""
        if self._has_wheels:
            remove(self._ids.pop())  # what was installed before
        else:
            recipe = f"FROM {self._name}/pip\nCOPY . /wheels"
            self._build(f"{self._name}/wheels", recipe, list(self._packages.iterdir()))
            self._has_wheels = True
        return self._install(f"{self._name}/wheels", "--no-index --find-links /wheels", "none")

    def cold(self) -> float:
        """Return the seconds that they take from the index."""
        return self._install(f"{self._name}/pip", f"--no-cache-dir --index-url {self._index}", "host")

    def _install(self, base: str, options: str, network: str) -> float:
        pip = f"{INTERPRETER} /wheels/{self._pip}/pip --disable-pip-version-check install --quiet"
        recipe = f"FROM {base}\nRUN {pip} --root-user-action ignore {options} {' '.join(SET)}"
        return self._build(self.installed, recipe, {}, "--no-cache", "--network", network)

    def _build(self, tag: str, recipe: str, files: Mapping[str, bytes] | Sequence[Path], *words: str) -> float:
        self._count += 1
        context = self._folder / str(self._count)
        context.mkdir()
        if isinstance(files, Mapping):
            for name, data in files.items():
                (context / name).write_bytes(data)
        else:
            for file in files:
                (context / file.name).hardlink_to(file)
        iid = context.with_suffix(".id")
        command = ["docker", "build", "--quiet", "--tag", tag, "--iidfile", iid, *words, "--file", "-", context]
        begin = time.perf_counter()
        done = subprocess.run(command, input=recipe, capture_output=True, text=True)
        took = time.perf_counter() - begin
        if done.returncode:
            raise SystemExit(f"docker build:\n{recipe}\n{done.stdout}{done.stderr}")
        self._ids.append(iid.read_text().strip())
        shutil.rmtree(context)
        return took


def remove(image: str) -> None:
    """Remove an image, all its tags included; it may be gone."""
    done = subprocess.run(["docker", "rmi", "--force", image], capture_output=True, text=True, check=False)
    if done.stderr and "No such image" not in done.stderr:
        print(f"{image} is left: {done.stderr.strip()}", file=sys.stderr)


# -- fngw ---------------------------------------------------------------------------------------------------


@dataclass
class Builds:
    """Asks an fngw for builds.

    Args:
        where: it.
        folder: an empty one, for sources.
        index: where the packages are served.
    """

    where: Stack
    folder: Path
    index: str
    environment: str = ""
    steps: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(dict))
    _spec: DeploymentSpec | None = None
    _word: str = field(default_factory=lambda: secrets.token_hex(4))
    _images: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._http = httpx.Client(base_url=self.where.url, timeout=600)
        self._client = Client(Endpoint(self.where.url))
        # There is no such Python, which a builder says: once the controller has said what is built for.
        nothing = {"spec": dataclasses.replace(self._packed({}), python="3.99", pip=None).to_dict()}
        until = time.monotonic() + 30
        while self._http.post("/-/api/v1/builds", json=nothing).status_code == 503:
            if time.monotonic() > until:
                raise SystemExit("no controller has come up within 30 s")
            time.sleep(0.05)

    def close(self) -> None:
        """Remove the images that were made."""
        self._http.close()
        self._client.close()
        self._forget_images()

    def sources(self, number: int) -> dict[str, bytes]:
        """Return what nobody has deployed before."""
        return {
            "main.py": f"NUMBER = '{self._word} {number}'\n\n\ndef answer(request):\n    return NUMBER\n".encode()
        }

    def unchanged(self) -> float:
        """Return the seconds until it is known that there is nothing to build."""
        assert self._spec is not None
        took, result, _ = self._ask(self._spec)
        if not result["reused"]:
            raise SystemExit(f"built again: {result}")
        return took

    def code(self, number: int) -> float:
        """Return the seconds that changed sources take, from packing them."""
        begin = time.perf_counter()
        self._spec = self._packed(self.sources(number))
        self._ask(self._spec)
        return time.perf_counter() - begin

    def warm(self, number: int) -> float:
        """Return the seconds that an environment takes whose packages are in the cache; it is solved anew."""
        self._forget_images()
        return self._made_anew("warm", number)

    def cold(self, number: int) -> float:
        """Return the seconds that it takes when there is nothing. The base must be another than before."""
        cache = self.where.data_dir / "cache"
        if cache.exists():
            cache.rename(cache.with_name(f"cache-{number}"))
        return self._made_anew("cold", number)

    def _made_anew(self, what: str, number: int) -> float:
        shutil.rmtree(self.where.data_dir / "locks", ignore_errors=True)
        self._spec = self._packed(self.sources(-1))
        took, result, marks = self._ask(self._spec)
        self.environment = result["environment"]
        if number >= 0:
            for step, seconds in marks.items():
                self.steps[what].setdefault(step, []).append(seconds)
        return took

    def _packed(self, files: Mapping[str, bytes]) -> DeploymentSpec:
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        blob = write_tar(collect(self.folder, 1 << 20))
        with blob.file:
            self._client.upload(blob)
        code = CodeRef(blob.digest, "main:answer", is_class=False)
        return DeploymentSpec("builds", code, PYTHON, pip=(f"--index-url {self.index}", *ASKED))

    def _ask(self, spec: DeploymentSpec) -> tuple[float, dict[str, Any], dict[str, float]]:
        """Return the seconds from the request to the result, the result, and the seconds of each step."""
        begin, step, since = time.perf_counter(), "begin", time.perf_counter()
        marks: dict[str, float] = defaultdict(float)
        event: dict[str, Any] = {}
        with self._http.stream("POST", "/-/api/v1/builds", json={"spec": spec.to_dict()}) as response:
            if response.is_error:
                raise SystemExit(f"fngw refused: {response.read().decode()}")
            for line in response.iter_lines():
                if line.startswith("data: "):
                    event, now = json.loads(line.removeprefix("data: ")), time.perf_counter()
                    if event["kind"] == "progress":
                        marks[step] += now - since
                        step, since = event["step"], now
        end = time.perf_counter()
        marks[step] += end - since
        if event.get("kind") != "done":
            raise SystemExit(f"the build failed: {event}")
        self._images += [event["result"]["ref"], event["result"]["environment"]]
        return end - begin, event["result"], marks

    def _forget_images(self) -> None:
        for image in dict.fromkeys(self._images):
            remove(image)
        self._images.clear()


def import_in(image: str) -> float:
    """Return the seconds that the imports take in a new container of an image, the interpreter's start left out."""
    code = f"import time; begin = time.perf_counter(); import {IMPORTS}; print(time.perf_counter() - begin)"
    command = ["docker", "run", "--rm", "--network", "none", "--read-only", "--entrypoint", INTERPRETER, image]
    return float(subprocess.run([*command, "-c", code], check=True, capture_output=True, text=True).stdout)


# -- the report ---------------------------------------------------------------------------------------------


def pair(
    ours: Callable[[int], float], theirs: Callable[[int], float], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Measure two in turn; what one has written is on the disk before the other begins."""

    def settled(case: Callable[[int], float]) -> Callable[[int], float]:
        def measured(number: int) -> float:
            os.sync()
            return case(number)

        return measured

    return interleaved({OURS: settled(ours), THEIRS: settled(theirs)}, rounds, warm_up=warm_up)


def report(unchanged: list[float], pairs: dict[str, dict[str, list[float]]], builds: Builds) -> bool:
    """Print what was measured; tell whether all goals are met."""
    figures = Figures.of(unchanged)
    met = figures.median <= UNCHANGED_GOAL_S
    print(f"\nBuilds on Docker ({machine()})\n")
    rows = [(*figures.row("unchanged: a decision", 1000), f"goal ≤ {UNCHANGED_GOAL_S * 1000:.0f}: {verdict(met)}")]
    for name, both in pairs.items():
        ratio = Figures.of(both[OURS]).median / Figures.of(both[THEIRS]).median
        paired = paired_ratios(both[OURS], both[THEIRS])
        ok = max(ratio, paired.median) <= GOALS[name]
        met = met and ok
        rows += [Figures.of(both[side]).row(f"{name}: {side}", 1000) for side in (OURS, THEIRS)]
        words = f"of medians {ratio:.2f}; goal ≤ {GOALS[name]}: {verdict(ok)}"
        rows.append((*paired.row("  ratio of pairs", digits=2), words))
    print_table(("", "median ms", "min–max", ""), [(*row, "")[:4] for row in rows])
    for what, steps in builds.steps.items():
        whole = Figures.of(pairs[what][OURS]).median
        print(f"\nWhere the time of {what} goes\n")
        shares = [(Figures.of(seconds), step) for step, seconds in steps.items()]
        rows = [(*share.row(step, 1000), bar(share.median / whole)) for share, step in shares]
        print_table(("step", "median ms", "min–max", "share"), rows)
    return met


def verdict(met: bool) -> str:
    """Return it in words."""
    return "met" if met else "MISSED"


def main() -> int:
    """Measure; the exit status is 1 when a goal is missed."""
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument(
        "--only", choices=[*GOALS, "unchanged"], action="append", help="measure this; can be repeated"
    )
    options = parser.parse_args()
    wanted = options.only or [*GOALS, "unchanged"]
    packages = wheels()
    with ExitStack() as ending:
        index = ending.enter_context(served(packages))
        context, sources = (Path(ending.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        docker = DockerBuilds(context, packages, index)
        ending.callback(docker.close)
        os.environ["FNGW_BASE_IMAGE"] = docker.base
        builds = Builds(ending.enter_context(stack("docker")), sources, index)
        ending.callback(builds.close)
        pairs, unchanged = measured(builds, docker, wanted, options.rounds)
        return int(not report(unchanged, pairs, builds))


def measured(
    builds: Builds, docker: DockerBuilds, wanted: Sequence[str], rounds: int
) -> tuple[dict[str, dict[str, list[float]]], list[float]]:
    """Return the figures of the pairs that are wanted, and those of ``unchanged``."""
    pairs = {}

    def cold(number: int) -> float:
        docker.renew()
        os.sync()
        return builds.cold(number)

    if "cold" in wanted:
        pairs["cold"] = pair(cold, lambda _: docker.cold(), rounds)
    if "warm" in wanted:
        pairs["warm"] = pair(builds.warm, lambda _: docker.warm(), rounds)
    if not builds.environment:
        builds.warm(-1)
    if "import" in wanted:
        docker.warm()
        pairs["import"] = pair(
            lambda _: import_in(builds.environment), lambda _: import_in(docker.installed), 3 * rounds
        )
    if "code" in wanted:
        pairs["code"] = pair(
            builds.code, lambda n: docker.code(builds.environment, builds.sources(n)), 3 * rounds, warm_up=2
        )
    unchanged = [builds.unchanged() for _ in range(3 * rounds)]
    return pairs, unchanged


if __name__ == "__main__":
    sys.exit(main())
