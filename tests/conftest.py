"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.channel.make import Tree
    from tests.channel.serve import FaultyServer

# Rich and Click look at these; tests must read the same on every machine.
os.environ.pop("FORCE_COLOR", None)
os.environ["NO_COLOR"] = "1"
for _name in [n for n in os.environ if n.startswith("FNGW_") and not n.startswith("FNGW_TEST_")]:
    del os.environ[_name]


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
