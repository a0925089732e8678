"""A code-only redeploy on Docker, against starting the very image that it made. `make bench`

    deploy   from calling Deployment.deploy() with changed code to the first right answer over HTTP
    floor    `docker run` of that image, confined as the replica is, from the command to the end of the imports that
             a replica needs (the interpreter, uvicorn, starlette, cloudpickle, the runtime, the user's module)

The goal: deploy ≤ 2.5 × floor, both from the same rounds. Below it is where the deploy's time goes, from the times
of its events, of the container, and of the replica's socket, which all come from this machine's clock.
"""

from __future__ import annotations

import importlib
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import docker
import httpx
from harness import Figures, Stack, arguments, bar, interleaved, machine, paired_ratios, print_table, stack

import fngw
from fngw.client import Client
from fngw_state.layout import default_run_dir

GOAL = 2.5
NAME = "redeploy"
MODULE = "fngw_bench_app"
SOURCE = """\
import fngw


@fngw.deployment(name="{name}")
class App:
    def __init__(self, greeting):
        self.greeting = greeting

    def __call__(self, request):
        return f"{{self.greeting}} {answer}"
"""
INTERPRETER = "/opt/fngw/env/bin/python"
IMPORTS = f"import uvicorn, starlette, cloudpickle, fngw_runtime.process, {MODULE}"

#: The phases of a deploy, in order: a name, the mark at which it ends, and what happens in it.
PHASES = (
    ("pack", "packed", "the SDK collects and packs the sources"),
    ("upload", "uploaded", "bundle and arguments → gateway"),
    ("put", "accepted", "the spec → gateway → Redis"),
    ("build", "image", "the controller wakes, RQ job, code layer, docker load"),
    ("plan", "starting", "the controller: image known → replica to be started"),
    ("prepare", "created", "its directory, its login to Redis, docker create begins"),
    ("start", "started", "docker create and start → the container's process runs"),
    ("interpreter", "bound", "Python, the runtime's imports → its socket is bound"),
    ("ready", "healthy", "the user's import, the constructor → the controller knows"),
    ("route", "done", "table → Redis → gateways → acknowledged → settled"),
    ("tell", "returned", "the last event → SDK → deploy() returns"),
    ("answer", "end", "the first request"),
)


class Redeploy:
    """Deploys one class again and again, each time with other code.

    Args:
        where: the stack, to which this process is connected.
        folder: an empty one for the code, on ``sys.path``.
    """

    def __init__(self, where: Stack, folder: Path) -> None:
        self._where = where
        self._file = folder / f"{MODULE}.py"
        self._http = httpx.Client(base_url=where.url, timeout=30)
        self._docker = docker.APIClient(version="auto")
        # Images are made of their content alone, and an engine keeps them: what an earlier run made is no change.
        self._run = secrets.token_hex(4)
        self._count = 0
        self._images: set[str] = set()
        self.container: dict[str, Any] = {}
        self.phases: dict[str, list[float]] = {name: [] for name, _, _ in PHASES}

    def close(self) -> None:
        """Remove what was deployed, and the images that were made for it."""
        self._http.close()
        fngw.shutdown()
        for image in self._images:
            self._docker.remove_image(image, force=True)
        self._docker.close()

    def deploy(self, number: int) -> float:
        """Deploy changed code; return the seconds until its first right answer.

        The replica before it drains meanwhile, which is waited for after that: it must not slow the floor down.
        """
        deployment, answer = self._changed()
        marks: dict[str, float] = {}
        with _tapped(marks), redirect_stderr(StringIO()):
            begin = time.time()
            deployment.deploy("hello")
            returned = time.time()
            while self._http.get(f"/{NAME}").text != answer:
                if time.time() > returned + 30:
                    raise SystemExit(f"/{NAME} does not answer {answer!r}")
        end = time.time()
        self.container = self._inspect(marks)
        self._wait_until_alone()
        if number >= 0:
            self._note({**marks, "begin": begin, "returned": returned, "end": end})
        return end - begin

    def _changed(self) -> tuple[Any, str]:
        self._count += 1
        answer = f"{self._run}-{self._count}"
        self._file.write_text(SOURCE.format(name=NAME, answer=answer))
        sys.modules.pop(MODULE, None)
        return importlib.import_module(MODULE).App, f"hello {answer}"

    def _inspect(self, marks: dict[str, float]) -> dict[str, Any]:
        """Return the new replica's container, and note its times."""
        replica = marks.pop("replica")
        (found,) = self._docker.containers(filters={"label": f"org.fngw.replica={replica}"})
        container: dict[str, Any] = self._docker.inspect_container(found["Id"])
        self._images.add(container["Image"])
        marks["created"] = _unix(container["Created"])
        marks["started"] = _unix(container["State"]["StartedAt"])
        # The replica binds its socket once its own imports are through.
        socket = default_run_dir(self._where.data_dir) / "r" / str(replica) / "http.sock"
        marks["bound"] = socket.stat().st_mtime
        return container

    def _wait_until_alone(self) -> None:
        installation = self.container["Config"]["Labels"]["org.fngw.installation"]
        label, until = f"org.fngw.installation={installation}", time.monotonic() + 30
        while len(self._docker.containers(all=True, filters={"label": label})) > 1:
            if time.monotonic() > until:
                raise SystemExit("the replica of the code before is still there after 30 s")
            time.sleep(0.02)

    def _note(self, marks: dict[str, float]) -> None:
        before = "begin"
        for phase, after, _ in PHASES:
            self.phases[phase].append(marks[after] - marks[before])
            before = after


@contextmanager
def _tapped(marks: dict[str, float]) -> Iterator[None]:
    """Note when the SDK's client does what, and what the events of a deploy say; the client is as before after."""
    upload, deploy, events = Client.upload, Client.deploy, Client.events

    def tapped_upload(self: Client, *args: Any) -> bool:
        marks.setdefault("packed", time.time())
        sent = upload(self, *args)
        marks["uploaded"] = time.time()
        return sent

    def tapped_deploy(self: Client, *args: Any) -> Any:
        accepted = deploy(self, *args)
        marks["accepted"] = time.time()
        return accepted

    def tapped_events(self: Client, *args: Any) -> Iterator[Any]:
        for event in events(self, *args):
            kind = event.fields["state"] if event.kind == "replica" else event.kind
            marks[kind] = int(event.id.partition("-")[0]) / 1000
            if kind == "starting":
                marks["replica"] = event.fields["replica"]
            yield event

    _set_methods(tapped_upload, tapped_deploy, tapped_events)
    try:
        yield
    finally:
        _set_methods(upload, deploy, events)


def _set_methods(upload: Callable[..., Any], deploy: Callable[..., Any], events: Callable[..., Any]) -> None:
    for name, method in (("upload", upload), ("deploy", deploy), ("events", events)):
        setattr(Client, name, method)


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# -- the floor ----------------------------------------------------------------------------------------------


class Floor:
    """``docker run`` of the image that was deployed last."""

    def __init__(self, redeploy: Redeploy) -> None:
        self._redeploy = redeploy
        self.whole: list[float] = []  # until the command has ended and the container is removed

    def run(self, number: int) -> float:
        """Return the seconds from the command to the end of the imports."""
        container = self._redeploy.container
        command = ["docker", "run", "--rm", *confinement(container), "--entrypoint", INTERPRETER]
        command += [container["Image"], "-c", f"{IMPORTS}\nprint('imported', flush=True)"]
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        imported = time.perf_counter() - begin
        process.stdout.close()
        if process.wait() or line.strip() != "imported":
            raise SystemExit(f"the floor did not run: {line!r}, status {process.returncode}")
        if number >= 0:
            self.whole.append(time.perf_counter() - begin)
        return imported


def confinement(container: dict[str, Any]) -> list[str]:
    """Return the options of ``docker run`` that confine a container as an inspected one is."""
    host = container["HostConfig"]
    words = ["--init", "--read-only", "--user", container["Config"]["User"], "--network", host["NetworkMode"]]
    words += ["--pids-limit", str(host["PidsLimit"]), "--shm-size", str(host["ShmSize"])]
    words += ["--cpu-shares", str(host["CpuShares"])]
    words += [word for cap in host["CapDrop"] for word in ("--cap-drop", cap)]
    words += [word for option in host["SecurityOpt"] for word in ("--security-opt", option)]
    words += [word for path, how in host["Tmpfs"].items() for word in ("--tmpfs", f"{path}:{how}")]
    for mount in host["Mounts"]:
        read_only = ",readonly" if mount.get("ReadOnly") else ""
        words += ["--mount", f"type=bind,source={mount['Source']},target={mount['Target']}{read_only}"]
    return words


# -- the report ---------------------------------------------------------------------------------------------


def report(figures: dict[str, list[float]], floor: Floor, redeploy: Redeploy) -> bool:
    """Print what was measured; tell whether the goal is met."""
    deploy, imported = Figures.of(figures["deploy"]), Figures.of(figures["floor"])
    rows = [
        deploy.row("redeploy: deploy() → first answer", 1000),
        imported.row("floor: docker run → imports done", 1000),
        Figures.of(floor.whole).row("  the same, → exited and removed", 1000),
    ]
    print(f"\nCode-only redeploy on Docker ({len(figures['deploy'])} rounds, interleaved; {machine()})\n")
    print_table(("", "median ms", "min–max"), rows)
    print("\nWhere the deploy's time goes\n")
    print_table(("phase", "median ms", "min–max", "share", ""), list(_phase_rows(redeploy.phases, deploy.median)))
    ratio = deploy.median / imported.median
    pairs = paired_ratios(figures["deploy"], figures["floor"])
    print(f"\nratio of medians {ratio:.2f}; of pairs {pairs.median:.2f} ({pairs.least:.2f}–{pairs.most:.2f})")
    print(f"goal ≤ {GOAL}: {verdict(ratio, pairs.median)}")
    return max(ratio, pairs.median) <= GOAL


def verdict(ratio: float, paired: float) -> str:
    """Return whether the goal is met, in words: two ways to say the same that disagree say that neither is sure."""
    if max(ratio, paired) <= GOAL:
        return "met"
    if min(ratio, paired) > GOAL:
        return "MISSED"
    return "UNDECIDED, as the two ratios disagree: the machine is too busy; run it again on a quieter one"


def _phase_rows(phases: dict[str, list[float]], whole: float) -> Iterator[tuple[str, ...]]:
    for name, _, what in PHASES:
        figures = Figures.of(phases[name])
        yield *figures.row(name, 1000), bar(figures.median / whole), what


def main() -> int:
    """Measure; the exit status is 1 when the goal is missed."""
    options = arguments(__doc__ or "").parse_args()
    sys.dont_write_bytecode = True  # two versions of a module within one second would share it
    with stack("docker") as where, tempfile.TemporaryDirectory(prefix="fngw-bench-app-") as folder:
        sys.path.insert(0, folder)
        fngw.connect(where.url)
        with closing(Redeploy(where, Path(folder))) as redeploy:
            floor = Floor(redeploy)
            figures = interleaved({"deploy": redeploy.deploy, "floor": floor.run}, options.rounds, warm_up=2)
            return int(not report(figures, floor, redeploy))


if __name__ == "__main__":
    sys.exit(main())
