"""``fngw up`` and ``fngw down`` as a person uses them: what runs, what comes back, what a kill leaves."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess

import httpx
import pytest

from fngw_controller.__main__ import installation_id

APP = """
import os
import fngw

@fngw.deployment(init_args=("kept",), version="1", num_replicas=2)
class Counter:
    def __init__(self, word):
        self.word = word

    def __call__(self, request):
        return {"word": self.word, "pid": os.getpid()}

@fngw.deployment(route_prefix=None)
def hidden(x):
    return x + 1
"""


def containers(stack) -> list[str]:
    """This stack's containers, running or not."""
    label = f"org.fngw.installation={installation_id(stack.data_dir)}"
    command = ["docker", "ps", "--all", "--quiet", "--filter", f"label={label}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("engine", [pytest.param("docker", marks=pytest.mark.docker), "process"])
def test_deployments_come_back_by_themselves(engine, installation, files, wait):
    folder = files({"app.py": APP})
    stack = installation.up(engine, "--workers", "2")
    stack.fngw("deploy", "app.py", cwd=folder)
    before = stack.replicas("Counter")

    # A second one on the same data directory says which one is running.
    for more in ((), ("--detach",)):
        second = installation.run("up", "--engine", engine, "--port", "0", *more)
        assert second.returncode == 1 and "Hint: " in second.stderr
        for part in ("already running", str(stack.data_dir), f"process {installation.held['pid']}", stack.url):
            assert part in second.stderr, (part, second.stderr)
    assert stack.replicas("Counter") == before

    down = installation.run("down", "--json")
    assert json.loads(down.stdout) == {"stopped": True} and down.returncode == 0
    wait(lambda: not installation.leftovers(), "the end of all processes")
    assert engine == "process" or not containers(stack)
    again = installation.run("down")
    assert again.returncode == 0 and "no fngw is running" in again.stdout

    stack = installation.up(engine)
    assert wait(lambda: word(stack), "an answer") == "kept"
    wait(lambda: len(stack.replicas("Counter")) == 2 and stack.replicas("hidden"), "the deployments")
    assert not before.keys() & stack.replicas("Counter").keys()
    assert stack.status("Counter")["version"] == "1"
    assert stack.fngw("call", "hidden", "--data", "1").stdout == "2\n"


@pytest.mark.parametrize("engine", [pytest.param("docker", marks=pytest.mark.docker), "process"])
def test_a_killed_supervisor_leaves_nothing(engine, installation, files, wait):
    stack = installation.up(engine)
    stack.fngw("deploy", "app.py:Counter", cwd=files({"app.py": APP}))
    running = containers(stack) if engine == "docker" else list(stack.replicas("Counter").values())
    assert len(running) == 2
    os.kill(installation.held["pid"], signal.SIGKILL)
    wait(lambda: not installation.leftovers(), "the end of its parts")
    if engine == "docker":
        assert not containers(stack)
    else:
        wait(lambda: not any(map(alive, running)), "the end of its replicas")

    stack = installation.up(engine)
    assert wait(lambda: word(stack), "an answer") == "kept"
    wait(lambda: len(stack.replicas("Counter")) == 2, "the deployment")


def word(stack) -> str | None:
    """What a replica answers. Whoever asks before they are back waits for them: half a minute at most."""
    answer = httpx.get(f"{stack.url}/Counter", timeout=60)
    if answer.status_code != 200:
        assert answer.json()["code"] == "no_replicas" and answer.elapsed.total_seconds() > 29, answer.text
        return None
    return answer.json()["word"]


def test_ctrl_c_in_a_terminal(installation, files, wait):
    stack_side, terminal = pty.openpty()
    words = ("--engine", "process", "--port", "0")
    up = installation.begin(
        "up",
        *words,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        process_group=None,
        preexec_fn=_take(terminal),
    )
    os.close(terminal)
    said = read_until(stack_side, "Ctrl-C stops")
    assert "engine      process" in said and "without isolation" in said and "http://localhost:" in said
    env = {**installation.env, "FNGW_URL": installation.held["url"]}
    command = [up.args[0], "deploy", "app.py"]
    subprocess.run(command, cwd=files({"app.py": APP}), env=env, check=True, capture_output=True)
    os.write(stack_side, b"\x03")  # the terminal makes SIGINT of it, for all that run in it
    said = read_until(stack_side, "come back at the next fngw up")
    assert "draining replicas" in said and "Traceback" not in said and "Error" not in said
    assert up.wait(60) == 0
    os.close(stack_side)
    wait(lambda: not installation.leftovers(), "the end of all processes")


def _take(terminal: int):
    """Return what makes a terminal that of a new session: there, Ctrl-C is SIGINT to the foreground's processes."""
    import fcntl
    import termios

    def before_exec() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    return before_exec


def read_until(terminal: int, words: str) -> str:
    """Return what the terminal shows up to these words."""
    import select

    shown = ""
    while words not in shown:
        assert select.select([terminal], [], [], 60)[0], f"waited for {words!r}; there is:\n{shown}"
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            piece = b""
        assert piece, f"it ended without {words!r}:\n{shown}"
        shown += piece.decode()
    return shown.replace("\r\n", "\n")


def test_parts_that_die_are_started_again(installation, wait):
    stack = installation.up()
    for part in ("fngw_gateway", "fngw_controller", "fngw_builder"):
        first = stack.pid(part)
        os.kill(first, signal.SIGKILL)
        wait(lambda p=part, f=first: stack.pids(p) and f not in stack.pids(p), f"another {part}")
    wait(lambda: healthy(stack), "a healthy gateway")
    assert "was killed by SIGKILL; starting it again" in stack.log("up")
    assert stack.fngw("list").returncode == 0


def test_the_nursery_may_die(installation, wait):
    """The parts that it forked go on; those that are started later come from another one."""
    stack = installation.up()
    parts = {name: stack.pid(name) for name in ("fngw_gateway", "fngw_controller", "fngw_builder")}
    first = stack.pid("fngw_supervisor.nursery")
    os.kill(first, signal.SIGKILL)
    wait(lambda: not stack.pids("fngw_supervisor.nursery"), "the nursery's end")
    os.kill(parts["fngw_gateway"], signal.SIGKILL)
    wait(lambda: stack.pids("fngw_gateway") and healthy(stack), "another gateway")
    assert stack.pid("fngw_supervisor.nursery") != first
    assert stack.pid("fngw_gateway") != parts["fngw_gateway"]
    assert {name: stack.pid(name) for name in parts if name != "fngw_gateway"} == {
        name: pid for name, pid in parts.items() if name != "fngw_gateway"
    }
    assert "nursery     has ended; starting another" in stack.log("up")
    assert stack.fngw("list").returncode == 0


def healthy(stack) -> bool:
    try:
        return httpx.get(f"{stack.url}/-/healthz", timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def test_a_token(installation, files):
    stack = installation.up(env={"FNGW_TOKEN": "s3cret"})
    folder = files({"app.py": APP})
    for words in (("list",), ("deploy", "app.py"), ("call", "hidden"), ("logs", "hidden")):
        refused = stack.fngw(*words, check=False, cwd=folder)
        assert refused.returncode == 5 and "FNGW_TOKEN" in refused.stderr, (words, refused.stderr)
    wrong = stack.fngw("list", "--token", "other", "--json", check=False)
    assert wrong.returncode == 5 and json.loads(wrong.stdout)["error"]["code"] == "unauthorized"
    assert stack.fngw("deploy", "app.py", "--token", "s3cret", cwd=folder).returncode == 0
    assert stack.fngw("call", "hidden", "--data", "1", "--token", "s3cret").stdout == "2\n"
    assert httpx.get(f"{stack.url}/Counter", timeout=60).status_code == 200  # users of what is deployed need none
