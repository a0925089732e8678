"""What all tests share."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.channel.make import Tree
    from tests.channel.serve import FaultyServer

# Rich and Click look at these; tests must read the same on every machine.
os.environ.pop("FORCE_COLOR", None)
os.environ["NO_COLOR"] = "1"
for _name in [n for n in os.environ if n.startswith("FNGW_") and not n.startswith("FNGW_TEST_")]:
    del os.environ[_name]
# How long an example takes, or takes to be drawn, is the machine's affair: one that was held up is no fault.
settings.register_profile("fngw", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fngw")


@pytest.fixture(scope="session")
def channel_tree() -> Tree:
    """A conda channel and a package index as folders, for the Python that is easiest to have; never write to it.

    Other Pythons, or more packages: `tests.channel.make.make_tree(("3.8",), also=("starlette==0.13.*",))`.
    """
    from tests.channel.make import make_tree  # here, as most tests need none of what it imports

    return make_tree()


@pytest.fixture
def channel(channel_tree: Tree) -> Iterator[FaultyServer]:
    """That tree, served on loopback for one test: counted, and with faults when the test asks for them."""
    from tests.channel.serve import FaultyServer

    with FaultyServer(channel_tree.root) as server:
        yield server


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry of images of this test's own; its ``HOST/REPOSITORY``."""
    address = ("127.0.0.1", free_port())
    config = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": "%s:%d" % address},
    }
    path = tmp_path / "registry.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    process = subprocess.Popen(["docker-registry", "serve", path], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not _answers(address):
            assert time.monotonic() < deadline and process.poll() is None, "the registry did not start"
            time.sleep(0.02)
        yield "%s:%d/fngw" % address
    finally:
        process.terminate()
        process.wait()


def _answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address):
            return True
    except ConnectionRefusedError:
        return False
