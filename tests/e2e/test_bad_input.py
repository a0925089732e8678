"""What goes wrong, as a person meets it: what happened, to what, what to do next; and nothing lost or half-done."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

GOOD = """
import fngw

@fngw.deployment(name="{name}", version="1")
class Model:
    def __init__(self, weights="none"):
        self.weights = weights

    def __call__(self, request):
        return self.weights
"""
BAD = """
import fngw

@fngw.deployment(name="{name}", version="2")
class Model:
    def __init__(self):
        self.load()

    def load(self):
        raise OSError("no weights at /models/x.bin")
"""


def told(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """What a person reads of a failure: an error, no traceback of ours, a next step."""
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Error: " in done.stderr and "Hint: " in done.stderr, done.stderr
    ours = [part for part in ("fngw/cli", "fngw_supervisor/", "fngw_runtime/", "importlib") if part in done.stderr]
    assert not ours, done.stderr
    return done.stderr


def test_files_that_cannot_be_deployed(process_stack, files):
    folder = files(
        {
            "plain.py": "def f():\n    pass\n",
            "empty.py": "",
            "raises.py": "import json\n\ndef load():\n    return json.loads('{')\n\nload()\n",
            "needs.py": "import fngw\nimport not_installed_here\n",
            "typo.py": "import fngw\ndef f(:\n    pass\n",
            "ends.py": "import sys\nsys.exit('done')\n",
            "wrong.py": "import fngw\n@fngw.deployment(num_replica=2)\ndef f():\n    pass\n",
            "json.py": "import fngw\n",
        }
    )

    def deploy(*words: str) -> str:
        return told(process_stack.fngw("deploy", *words, check=False, cwd=folder))

    assert "plain.py has no deployments; it has the function f" in (none := deploy("plain.py"))
    assert "@fngw.deployment" in none
    assert "empty.py has no deployments; it defines nothing" in deploy("empty.py")
    raised = deploy("raises.py")
    assert "raises.py cannot be imported: JSONDecodeError" in raised
    first = raised.partition("Traceback (most recent call last):\n")[2].splitlines()[0]
    assert first == f'  File "{folder}/raises.py", line 6, in <module>'  # it begins with the user's own frame
    assert "install not_installed_here" in deploy("needs.py")
    assert "SyntaxError" in (typo := deploy("typo.py")) and "line 2" in typo
    assert "__main__" in deploy("ends.py")
    assert "num_replicas" in deploy("wrong.py")
    assert "rename" in deploy("json.py")

    as_json = process_stack.fngw("deploy", "raises.py", "--json", check=False, cwd=folder)
    error = json.loads(as_json.stdout)["error"]
    assert error["code"] == "import_failed" and "Traceback" in error["detail"] and as_json.returncode == 1
    assert httpx.get(f"{process_stack.url}/-/api/v1/deployments", timeout=60).json() == {"deployments": []}


def test_a_constructor_that_raises(stack, files, unique, wait):
    folder = files({"good.py": GOOD.format(name=unique), "bad.py": BAD.format(name=unique)})

    def deploy(*words: str) -> subprocess.CompletedProcess[str]:
        return stack.fngw("deploy", *words, check=False, cwd=folder)

    # The first deploy of a name: nothing of it is left running.
    text = told(deploy("bad.py"))
    assert f"Error: the deploy of {unique} failed: its constructor raised OSError: no weights at" in text
    assert "in load" in text and "nothing runs under this name" in text and f"fngw logs {unique}" in text
    # The status tells of it a moment later.
    status = wait(lambda: failed(stack.status(unique)), "the end of its replica")
    assert status["replicas"] == []
    assert "no weights" in status["message"] and "no weights" in stack.fngw("status", unique).stdout
    assert httpx.get(f"{stack.url}/{unique}", timeout=60).status_code in (404, 503)
    wait(lambda: "OSError: no weights" in stack.logs(unique), "what it wrote to be kept")

    assert deploy("good.py").returncode == 0
    before = stack.replicas(unique)
    assert stack.status(unique)["status"] == "HEALTHY" and len(before) == 1

    # An old version serves on, in the same replicas.
    done = deploy("bad.py", "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (1, "constructor_failed")
    assert "what served before serves on" in error["hint"] and "in load" in error["detail"]
    assert stack.replicas(unique) == before
    assert httpx.get(f"{stack.url}/{unique}", timeout=60).text == "none"
    status = wait(lambda: failed(stack.status(unique)), "the status to tell of it")
    assert status["version"] == "1" and "no weights" in status["message"]

    # The way back is a deploy that works.
    assert deploy("good.py", "--version", "3", "--arg", "new").returncode == 0
    assert httpx.get(f"{stack.url}/{unique}", timeout=60).text == "new"
    assert stack.status(unique)["status"] == "HEALTHY" and stack.status(unique)["message"] == ""


def failed(status: dict) -> dict | None:
    """That of a failure, when nothing is left of what failed."""
    left = [r for r in status["replicas"] if r["state"] != "READY"]
    return status if status["status"] == "UNHEALTHY" and not left else None


def test_the_sdk_raises_what_the_command_line_tells(process_stack, script, unique):
    text = """
import sys
import fngw

@fngw.deployment(name=sys.argv[1])
class Broken:
    def __init__(self, password):
        raise KeyError(password)

try:
    Broken.deploy("secret")
except fngw.DeploymentFailed as error:
    assert isinstance(error, RuntimeError) and error.code == "constructor_failed"
    assert "its constructor raised KeyError: 'secret'" in str(error) and "in __init__" in error.detail, error
else:
    raise AssertionError("it was deployed")
try:
    Broken()
except RuntimeError as error:
    assert ".deploy(" in str(error)
else:
    raise AssertionError("it was called")
try:
    fngw.connect("http://localhost:9")
except ConnectionError as error:
    assert isinstance(error, fngw.Unreachable)
    assert "http://localhost:9" in str(error) and "fngw up" in str(error), error
else:
    raise AssertionError("there is no gateway")
"""
    script(process_stack, text, unique)


def test_what_is_taken_and_what_is_too_large(process_stack, files, unique):
    folder = files({"one.py": GOOD.format(name=unique), "two.py": GOOD.format(name=f"{unique}-two")})
    process_stack.fngw("deploy", "one.py", cwd=folder)
    before = process_stack.replicas(unique)
    route = told(process_stack.fngw("deploy", "two.py", "--route-prefix", f"/{unique}", check=False, cwd=folder))
    assert (
        f"route_prefix '/{unique}' is taken by deployment '{unique}'" in route and "another route_prefix" in route
    )
    assert set(deployed(process_stack)) == {unique}

    # A name is not taken but deployed again, unless it was said what is expected there.
    expected = ("--version", "2", "--set", "prev_version=0")
    wrong = process_stack.fngw("deploy", "one.py", *expected, "--json", check=False, cwd=folder)
    assert json.loads(wrong.stdout)["error"]["code"] == "version_conflict" and wrong.returncode == 1
    assert process_stack.replicas(unique) == before

    twice = files({"twice.py": GOOD.format(name="same") + GOOD.format(name="same").replace("Model", "Other")})
    assert "two of the deployments are named 'same'" in told(
        process_stack.fngw("deploy", "twice.py", check=False, cwd=twice)
    )


def test_a_bundle_larger_than_the_gateway_takes(installation, files, unique):
    stack = installation.up(env={"FNGW_MAX_BUNDLE": "2MiB"})
    folder = files({"one.py": GOOD.format(name=unique)})
    (folder / "data" / "deep").mkdir(parents=True)
    with (folder / "data" / "deep" / "weights.bin").open("wb") as file:
        file.truncate(5 * 2**20)
    large = told(stack.fngw("deploy", "one.py", check=False, cwd=folder))
    assert "data/ 5.0 MiB" in large and "more than 2 MiB" in large and ".fngwignore" in large
    (folder / ".fngwignore").write_text("data/\n")
    stack.fngw("deploy", "one.py", cwd=folder)


def deployed(stack) -> list[str]:
    return [d["name"] for d in httpx.get(f"{stack.url}/-/api/v1/deployments", timeout=60).json()["deployments"]]


# -- fngw up ----------------------------------------------------------------------------------------------


def test_a_port_in_use(installation):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ("--engine", "process", "--port", str(port))
        for more in ((), ("--detach",)):
            text = told(installation.run("up", *words, *more))
            assert f"port {port} of 127.0.0.1 is in use" in text and f"process {os.getpid()}" in text
            assert f"--port {port + 1}" in text and text.count("Error") == 1
        as_json = installation.run("up", *words, "--detach", "--json")
        assert json.loads(as_json.stdout)["error"]["code"] == "port_in_use"
    assert not installation.leftovers()


def test_a_corrupt_data_directory(installation):
    def up() -> str:
        return told(installation.run("up", "--detach", "--engine", "process", "--port", "0"))

    for name in ("layout.json", "secrets.json"):
        path = installation.data / name
        good = path.read_text() if path.exists() else None
        path.write_text("{half")
        text = up()
        assert f"{path} cannot be read" in text and f"mv {path} {path}.bad" in text
        assert path.read_text() == "{half"  # nothing was removed or overwritten
        path.unlink() if good is None else path.write_text(good)
    (installation.data / "layout.json").write_text('{"layout": 99}')
    assert "layout 99; this fngw reads layout 1" in up()
    (installation.data / "layout.json").unlink()

    manifest = installation.data / "redis" / "appendonlydir"
    installation.up()
    assert installation.run("down").returncode == 0
    (damaged,) = manifest.glob("*.manifest")
    kept = damaged.read_bytes()
    damaged.write_text("nonsense\n")
    text = up()
    assert "append-only file" in text and "damaged" in text and "nothing was removed" in text
    assert not installation.leftovers()
    damaged.write_bytes(kept)
    installation.up()


@pytest.fixture
def small_disk(installation) -> Iterator[Path]:
    """The installation's data directory, on a disk of 48 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "fngw-test", installation.data], check=True)
    yield installation.data
    installation.run("down")
    subprocess.run(["umount", "--lazy", installation.data], check=True)


def fill(path: Path) -> None:
    """Leave no byte free."""
    with path.open("wb") as file:
        try:
            while True:
                file.write(b"\0" * 2**20)
        except OSError:
            pass
        try:
            while True:
                os.write(file.fileno(), b"\0")
        except OSError:
            pass


PARTS = ("fngw_controller", "fngw_builder", "fngw_gateway", "fngw_dispatcher")


def test_a_full_disk(installation, small_disk, files, wait):
    ballast = small_disk / "ballast"
    fill(ballast)
    text = told(installation.run("up", "--detach", "--engine", "process", "--port", "0"))
    assert "no space is left" in text and str(small_disk) in text and "free some space" in text
    assert not installation.leftovers()
    ballast.unlink()

    folder = files({"app.py": GOOD.format(name="app")})
    stack = installation.up()
    stack.fngw("deploy", "app.py", cwd=folder)
    before = stack.replicas("app")
    parts = {part: stack.pids(part) for part in PARTS}
    fill(ballast)
    (folder / "more.bin").write_bytes(os.urandom(2**20))

    def refused() -> dict | None:
        done = stack.fngw(
            "deploy", "app.py", "--version", "2", "--timeout", "20", "--json", check=False, cwd=folder
        )
        return json.loads(done.stdout)["error"] if done.returncode == 1 else None

    error = refused()
    assert error and error["code"] == "disk_full" and "free some space" in error["hint"], error
    # What runs goes on, and can be looked at.
    assert httpx.get(f"{stack.url}/app", timeout=60).text == "none"
    assert stack.replicas("app") == before and stack.status("app")["version"] == "1"
    assert not list((small_disk / "blobs").rglob("*.new"))
    wait(lambda: "free some space" in stack.log("up"), "the supervisor to say so")

    ballast.unlink()
    wait(
        lambda: stack.fngw("deploy", "app.py", "--version", "2", check=False, cwd=folder).returncode == 0,
        "a deploy that has space again",
    )
    assert stack.status("app")["version"] == "2" and not before.keys() & stack.replicas("app").keys()
    assert {part: stack.pids(part) for part in PARTS} == parts, stack.log("up")


def test_an_engine_that_is_out_of_reach(installation, tmp_path):
    words = ("up", "--port", "0", "--engine", "docker")
    away = f"unix://{tmp_path}/nowhere.sock"
    text = told(installation.run(*words, env={"DOCKER_HOST": away}))
    assert away in text and "No such file" in text and "--engine process" in text
    assert not installation.leftovers()


@pytest.mark.skipif(os.getuid() != 0, reason="it takes root to be somebody else")
def test_an_engine_without_permission(installation, tmp_path_factory):
    # Root may open every socket, so this is another user, in whose name the check of `fngw up` is made.
    folder = Path("/tmp") / f"fngw-denied-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        path = folder / "docker.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            path.chmod(0)
            code = (
                "import os\n"
                "from fngw_supervisor.engine import ask_docker, choose_engine\n"
                "from fngw_supervisor.settings import EngineChoice as E\n"
                "from fngw_supervisor.__main__ import reporting\n"
                "ask_docker()\n"  # everything is imported while it can still be read
                "os.setuid(65534)\n"
                "print(choose_engine(E.AUTO, ask_docker).notes[0])\n"
                "raise SystemExit(reporting(lambda: choose_engine(E.DOCKER, ask_docker)))\n"
            )
            done = subprocess.run(
                [sys.executable, "-c", code],
                env={**installation.env, "DOCKER_HOST": f"unix://{path}"},
                capture_output=True,
                text=True,
                timeout=60,
            )
        text = told(done)
        assert f"unix://{path}: Permission denied" in text and "usermod -aG docker" in text
        assert "Permission denied" in done.stdout and "local processes, without isolation" in done.stdout
    finally:
        shutil.rmtree(folder)


def test_a_data_directory_that_cannot_be_used(installation):
    installation.run("down")
    (installation.data / "file").write_text("")
    own, installation.data = installation.data, installation.data / "file"
    text = told(installation.run("up", "--engine", "process", "--port", "0"))
    installation.data = own
    assert str(own / "file") in text and "--data-dir" in text
