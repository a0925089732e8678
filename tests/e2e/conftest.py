"""A whole fngw per engine, started as a user starts it, shared by the tests of one worker.

``stack`` runs each test twice: on containers and on local processes. ``docker_stack`` and ``process_stack`` name
one. Each test deploys under names of its own (``unique``) and the deployments are deleted after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from fngw_state import keys
from fngw_state.layout import default_run_dir

BIN = Path(sys.executable).parent
DEADLINE_S = 60.0
#: Of a command: it waits for builds and starts, which take ten times as long on a machine that is busy.
COMMAND_S = 200.0
#: Of a test, unless it has a mark of its own.
TEST_S = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_S))


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return the first true value of ``condition``; fail, naming ``what``, when none comes in time."""
    until = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            pytest.fail(f"waited {deadline_s:g} s for {what}")
        time.sleep(0.02)


@dataclass
class Stack:
    """One running fngw."""

    engine: str
    data_dir: Path
    url: str

    @property
    def env(self) -> dict[str, str]:
        """The environment of a command that talks to this stack."""
        return {**os.environ, "FNGW_URL": self.url, "FNGW_DATA_DIR": str(self.data_dir)}

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=DEADLINE_S)

    def fngw(self, *words: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run one fngw command."""
        command = [str(BIN / "fngw"), *words]
        given = {"timeout": COMMAND_S, **more}
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, **given)
        if check and done.returncode:
            raise AssertionError(f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def python(self, code: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a script as a user does: code in ``__main__``, the stack's URL in the environment."""
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=COMMAND_S, **more)

    def status(self, name: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/-/api/v1/deployments/{name}", timeout=DEADLINE_S)
        answer.raise_for_status()
        return answer.json()

    def logs(self, name: str) -> str:
        """What its replicas have written: as ``fngw logs`` has it, and cheaper to ask for again and again."""
        answer = httpx.get(f"{self.url}/-/api/v1/deployments/{name}/logs", timeout=DEADLINE_S)
        return answer.raise_for_status().text

    def replicas(self, name: str) -> dict[str, int]:
        """The serving replicas: id → pid."""
        return {r["id"]: r["pid"] for r in self.status(name)["replicas"] if r["state"] == "READY"}

    def pids(self, module: str) -> list[int]:
        """The processes of one part, such as ``fngw_controller``, oldest first."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes().split(b"\0")
                environment = (path / "environ").read_bytes()
            except OSError:
                continue
            if module.encode() in words and f"FNGW_DATA_DIR={self.data_dir}\0".encode() in environment:
                found.append(int(path.name))
        return sorted(found)

    def pid(self, module: str) -> int:
        """The process of a part that there is one of."""
        return int(wait_for(lambda: self.pids(module), f"a process of {module}")[0])

    @property
    def redis_url(self) -> str:
        """The URL of its Redis, password included."""
        environment = Path(f"/proc/{self.pid('fngw_controller')}/environ").read_bytes().split(b"\0")
        return dict(entry.decode().partition("=")[::2] for entry in environment)["FNGW_REDIS_URL"]

    def log(self, part: str) -> str:
        path = self.data_dir / "logs" / f"{part}.log"
        return path.read_text() if path.exists() else ""


def start_stack(engine: str, *words: str, **variables: str) -> Stack:
    """Start an fngw on an empty data directory and a free port, with these variables in its environment."""
    data = Path(tempfile.mkdtemp(prefix="fngw-e2e-"))
    # Port 0: the supervisor picks one, and tells it in its lock file.
    where = ("--engine", engine, "--port", "0", "--data-dir", str(data))
    command = [str(BIN / "fngw"), "up", "--detach", *where, *words]
    env = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, env=env)
    if done.returncode:
        log = data / "logs" / "up.log"
        raise AssertionError(f"fngw up: {done.stdout}{done.stderr}{log.read_text() if log.exists() else ''}")
    held = json.loads((data / "fngw.lock").read_text())
    return Stack(engine, data, held["url"])


def stop_stack(stack: Stack) -> None:
    """Stop it; what it leaves behind is a failure."""
    images = built_images(stack)
    done = stack.fngw("down", "--data-dir", str(stack.data_dir), check=False)
    # `fngw down` waits for the lock, which is free a moment before the process is gone.
    until = time.monotonic() + DEADLINE_S
    while (left := leftovers(stack)) and time.monotonic() < until:
        time.sleep(0.02)
    remove(stack.data_dir)
    for image in images:  # not by force: another worker's stack may have made the same one
        subprocess.run(["docker", "rmi", image], capture_output=True, timeout=COMMAND_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not left, f"left behind: {left}"


def built_images(stack: Stack) -> list[str]:
    """The images that were built for this stack's deployments, and that it has not cleared away by itself."""
    if stack.engine != "docker":
        return []
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as client:
        return client.zrange(keys.IMAGES, 0, -1)


def remove(data: Path) -> None:
    """Remove a data directory, and the run directory that belongs to it."""
    shutil.rmtree(default_run_dir(data), ignore_errors=True)
    shutil.rmtree(data, ignore_errors=True)


def leftovers(stack: Stack) -> list[str]:
    """Processes that still name this stack's data directory in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes()
        except OSError:
            continue
        if str(stack.data_dir).encode() in environment and int(path.name) != os.getpid():
            found.append(f"{path.name}: {(path / 'cmdline').read_bytes()!r}")
    return found


@pytest.fixture(scope="session")
def docker_stack() -> Iterator[Stack]:
    stack = start_stack("docker")
    yield stack
    stop_stack(stack)


@pytest.fixture(scope="session")
def process_stack() -> Iterator[Stack]:
    stack = start_stack("process")
    yield stack
    stop_stack(stack)


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "process"])
def stack(request: pytest.FixtureRequest) -> Stack:
    return request.getfixturevalue(f"{request.param}_stack")


DRIVER = """
import json, sys
import fngw
from app import App

options, args, kwargs = json.loads(sys.argv[1])
try:
    App.options(**options).deploy(*args, **kwargs)
except fngw.FngwError as error:
    answer = {"type": type(error).__name__, "code": error.code, "text": str(error), "hint": error.hint}
    print(json.dumps(answer))
"""


class Project:
    """A folder with a user's ``app.py``, deployed as often as a test likes.

    Args:
        stack: where to.
        name: the deployment's.
        folder: where the file goes.
    """

    def __init__(self, stack: Stack, name: str, folder: Path) -> None:
        self.stack = stack
        self.name = name
        self.folder = folder
        folder.mkdir()
        (folder / "driver.py").write_text(DRIVER)

    def write(self, source: str) -> None:
        """Write the code: a deployment named ``App``."""
        (self.folder / "app.py").write_text(source)

    def begin(self, *args: Any, kwargs: dict[str, Any] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Begin to deploy; for ``end``."""
        words = json.dumps([{"name": self.name, **options}, args, kwargs or {}])
        command = [sys.executable, "driver.py", words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=self.stack.env, **pipes)

    def end(self, deploy: subprocess.Popen[str]) -> dict[str, Any] | None:
        """Wait for a deploy; return the error that it raised (type, code, text, hint), or None."""
        out, err = deploy.communicate(timeout=COMMAND_S)
        assert deploy.returncode == 0, err
        return json.loads(out) if out.strip() else None

    def deploy(self, *args: Any, **options: Any) -> dict[str, Any] | None:
        """Deploy; return the error that it raised, or None."""
        return self.end(self.begin(*args, **options))

    def deployed(self, *args: Any, **options: Any) -> dict[str, int]:
        """Deploy, which must work; return the replicas: id → pid."""
        error = self.deploy(*args, **options)
        assert error is None, error
        return self.stack.replicas(self.name)


@pytest.fixture
def project(request: pytest.FixtureRequest, unique: str, tmp_path: Path) -> Callable[[Stack], Project]:
    """A project on a stack, under a name of its own."""
    return lambda stack: Project(stack, unique, tmp_path / unique)


class Traffic:
    """Constant load on a deployment: see ``traffic.py``. A context manager; ``report`` is there after it."""

    def __init__(self, stack: Stack, name: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("traffic.py")), stack.url, name]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=stack.env, **pipes)
        self.report: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Traffic:
        assert self._process.stdout and self._process.stdout.readline() == "going\n"
        return self

    def __exit__(self, *exc: object) -> None:
        out, _ = self._process.communicate(timeout=COMMAND_S)
        self.report = json.loads(out)

    @property
    def errors(self) -> list[str]:
        """What went wrong, over all kinds of calls."""
        return [f"{kind}: {error}" for kind, book in self.report.items() for error in book["errors"]]

    @property
    def answers(self) -> int:
        return sum(book["ok"] for book in self.report.values())


@pytest.fixture
def traffic() -> type[Traffic]:
    return Traffic


@pytest.fixture
def unique() -> str:
    """A deployment name that no other test uses."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture(autouse=True)
def delete_deployments(request: pytest.FixtureRequest) -> Iterator[None]:
    """Delete what a test deployed on the stacks that it used."""
    yield
    for name in ("docker_stack", "process_stack"):
        if name in request.fixturenames or "stack" in request.fixturenames:
            stack = _running(request, name)
            if stack is not None:
                with stack.http as http:
                    for entry in _deployments(http):
                        http.delete(f"/-/api/v1/deployments/{entry['name']}")
                    # The next test finds nothing, and nobody else at work.
                    wait_for(lambda http=http: not _deployments(http), "the end of what was deployed")


def _deployments(http: httpx.Client) -> list[dict[str, Any]]:
    return list(http.get("/-/api/v1/deployments").json()["deployments"])


def _running(request: pytest.FixtureRequest, name: str) -> Stack | None:
    """The stack of this name, if the test ran on it."""
    if name in request.fixturenames:
        return request.getfixturevalue(name)
    callspec = getattr(request.node, "callspec", None)
    if callspec and f"{callspec.params.get('stack')}_stack" == name:
        return request.getfixturevalue(name)
    return None


@pytest.fixture
def files(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Write a user's files: name → text. Returns the folder."""

    def write(texts: dict[str, str]) -> Path:
        for name, text in texts.items():
            path = tmp_path / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "files"

    return write


@pytest.fixture
def script(files: Callable[[dict[str, str]], Path]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a user's script: its text is ``__main__``, beside ``more`` files; the words are its arguments."""

    def run(
        stack: Stack, text: str, *words: str, more: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        folder = files({"script.py": text, **(more or {})})
        command = [sys.executable, "script.py", *words]
        done = subprocess.run(command, cwd=folder, env=stack.env, capture_output=True, text=True, timeout=COMMAND_S)
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


class Installation:
    """A data directory of a test's own: to start fngw on it, end it, and start it again.

    Args:
        data: the data directory.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("FNGW_")}

    def run(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run ``fngw up`` or ``fngw down`` to its end."""
        return subprocess.run(
            self._command(*words), capture_output=True, text=True, timeout=COMMAND_S, **self._with(more)
        )

    def begin(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        """Start a command; its output, errors included, is ``stdout``."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(self._command(*words), **{**pipes, **self._with(more)})

    def up(self, engine: str = "process", *words: str, **more: Any) -> Stack:
        """Start it in the background; it must work."""
        done = self.run("up", "--detach", "--engine", engine, "--port", "0", *words, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return Stack(engine, self.data, self.held["url"])

    @property
    def held(self) -> dict[str, Any]:
        """What the lock file says."""
        return dict(json.loads((self.data / "fngw.lock").read_text()))

    def leftovers(self) -> list[str]:
        """Its processes."""
        return leftovers(Stack("", self.data, ""))

    def _command(self, *words: str) -> list[str]:
        return [str(BIN / "fngw"), *words, "--data-dir", str(self.data)]

    def _with(self, more: dict[str, Any]) -> dict[str, Any]:
        return {**more, "env": {**self.env, **more.get("env", {})}}


@pytest.fixture
def installation() -> Iterator[Installation]:
    """One that is stopped and removed after the test, with nothing left behind."""
    own = Installation(Path(tempfile.mkdtemp(prefix="fngw-e2e-")))
    yield own
    done = own.run("down")
    wait_for(lambda: not own.leftovers(), f"the end of {own.leftovers()}")
    remove(own.data)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def own_stack() -> Callable[..., contextlib.AbstractContextManager[Stack]]:
    """A stack that no other test uses, on the engine that is named, with these options and ``FNGW_*`` variables."""

    @contextlib.contextmanager
    def started(engine: str, *words: str, **variables: str) -> Iterator[Stack]:
        stack = start_stack(engine, *words, **variables)
        try:
            yield stack
        finally:
            stop_stack(stack)

    return started


@pytest.fixture
def wait() -> Callable[..., Any]:
    """``wait_for``, for test modules, which cannot import it from here."""
    return wait_for
