"""A Docker engine that is restarted under a running fngw: its own engine, in a network namespace of its own."""

from __future__ import annotations

import sys

import httpx
import pytest
from tests.private_engine import PrivateEngine

SOURCE = """
import fngw

@fngw.deployment
class App:
    def __call__(self):
        return "served"
"""


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
