"""A Docker engine that is restarted under a running fngw: its own engine, in a network namespace of its own."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

SOURCE = """
import fngw

@fngw.deployment
class App:
    def __call__(self):
        return "served"
"""


class PrivateEngine:
    """A dockerd that no other test uses."""

    def __init__(self, wait):
        self._wait = wait
        self.folder = Path(tempfile.mkdtemp(prefix="fngw-dockerd-"))
        self.url = f"unix://{self.folder}/d.sock"
        self._namespace = f"fngw-{secrets.token_hex(3)}"
        subprocess.run(["ip", "netns", "add", self._namespace], check=True)
        subprocess.run(["ip", "-n", self._namespace, "link", "set", "lo", "up"], check=True)
        self._process = None

    def start(self):
        options = [f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec"]
        options += [f"--pidfile={self.folder}/pid", f"--host={self.url}", "--bridge=none", "--iptables=false"]
        log = (self.folder / "log").open("a")
        # Not `ip netns exec`: it mounts /sys anew, and hides the control groups.
        command = ["nsenter", f"--net=/run/netns/{self._namespace}", "dockerd", *options]
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        self._wait(self._answers, "a private Docker engine")

    def _answers(self):
        assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
        return self.docker("version").returncode == 0

    def docker(self, *words, **more):
        return subprocess.run(["docker", "-H", self.url, *words], capture_output=True, **more)

    def stop(self):
        """As an upgrade of the engine does: containers die with it."""
        self._process.terminate()
        assert self._process.wait(timeout=60) is not None

    def load(self, *images):
        """Copy images from the usual engine."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as save:
            self.docker("load", stdin=save.stdout, check=True)
        assert save.returncode == 0

    def remove(self):
        if self._process.poll() is None:
            self.stop()
        subprocess.run(["ip", "netns", "delete", self._namespace], check=True)
        shutil.rmtree(self.folder)


@pytest.fixture
def private_engine(wait):
    engine = PrivateEngine(wait)
    try:
        engine.start()
        version = "py%d.%d" % sys.version_info[:2]
        engine.load(f"fngw/base:{version}", f"fngw/runtime:{version}")
        yield engine
    finally:
        engine.remove()


@pytest.mark.slow
@pytest.mark.docker
def test_replicas_come_back_after_a_restart_of_the_engine(private_engine, own_stack, project, wait, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", private_engine.url)
    with own_stack("docker") as stack:
        app = project(stack)
        app.write(SOURCE)
        first = app.deployed(version="1", num_replicas=2)
        controller = stack.pid("fngw_controller")
        private_engine.stop()
        private_engine.start()
        found = wait(lambda: others(app, first), "two new replicas")
        assert httpx.get(f"{stack.url}/{app.name}", timeout=60).text == "served"
        assert stack.pid("fngw_controller") == controller, "the controller did not live through it"
        assert len(app.deployed(version="1", num_replicas=3).keys() & found.keys()) == 2
        stack.fngw("delete", app.name)


def others(app, old):
    found = app.stack.replicas(app.name)
    return found if len(found) == 2 and not found.keys() & old.keys() else None
