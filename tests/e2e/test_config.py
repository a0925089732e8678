"""A new ``user_config`` reaches running replicas without a restart, and a bad one changes nothing."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path
from typing import Any

import pytest

APP = """
import os
import time

import fngw


@fngw.deployment(name="NAME", version="1", num_replicas=3, user_config={"n": 0}, max_concurrent_queries=10)
class Configured:
    def __init__(self):
        self.n = None
        self.applied = 0

    def reconfigure(self, config):
        if config["n"] == 13:
            raise ValueError("an unlucky number")
        self.n = config["n"]
        self.applied += 1

    def __call__(self, request):
        before = self.n
        time.sleep(float(request.query_params.get("sleep", 0)))
        return {"before": before, "after": self.n, "pid": os.getpid(), "applied": self.applied}
"""


@pytest.fixture
def app(stack: Any, unique: str, tmp_path: Path) -> str:
    """Three replicas with ``{"n": 0}``; the deployment's name."""
    path = tmp_path / "configured_app.py"
    path.write_text(APP.replace("NAME", unique))
    stack.fngw("deploy", str(path))
    return unique


def answers(stack: Any, name: str, count: int = 40) -> list[dict[str, Any]]:
    with stack.http as http:
        return [http.get(f"/{name}").json() for _ in range(count)]


def test_every_replica_applies_it_and_none_restarts(stack: Any, app: str):
    before = stack.replicas(app)
    assert len(before) == 3
    stack.fngw("config", app, '{"n": 1}')
    assert {a["before"] for a in answers(stack, app)} == {1}
    stack.fngw("config", app, '{"n": 2}')
    seen = answers(stack, app)
    assert {a["before"] for a in seen} == {2}
    assert {a["applied"] for a in seen} == {3}
    assert stack.replicas(app) == before


def test_requests_under_way_finish_on_the_old_one(stack: Any, app: str):
    with stack.http as http, concurrent.futures.ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(http.get, f"/{app}", params={"sleep": "0.8"}) for _ in range(8)]
        stack.fngw("config", app, '{"n": 1}')
        assert all(a.json()["before"] == a.json()["after"] for a in [f.result() for f in slow])
    assert {a["before"] for a in answers(stack, app)} == {1}


def test_one_that_raises_is_undone_everywhere(stack: Any, app: str, wait: Any):
    before = stack.replicas(app)
    stack.fngw("config", app, '{"n": 1}')
    done = stack.fngw("config", app, '{"n": 13}', check=False)
    assert done.returncode == 1
    assert "an unlucky number" in done.stderr
    wait(lambda: "unlucky" in stack.status(app)["message"], "the status to say why")
    assert {a["before"] for a in answers(stack, app)} == {1}
    assert stack.replicas(app) == before
    stack.fngw("config", app, '{"n": 2}')
    assert stack.status(app)["status"] == "HEALTHY"


def test_a_replica_started_later_gets_the_newest(stack: Any, app: str):
    stack.fngw("config", app, '{"n": 7}')
    stack.fngw("scale", app, "5")
    assert len(stack.replicas(app)) == 5
    assert {a["before"] for a in answers(stack, app, 60)} == {7}


def test_a_function_takes_none(stack: Any, unique: str, tmp_path: Path):
    path = tmp_path / "plain_app.py"
    path.write_text(f"import fngw\n\n@fngw.deployment(name='{unique}')\ndef plain():\n    return 'ok'\n")
    stack.fngw("deploy", str(path))
    done = stack.fngw("config", unique, "1", check=False)
    assert done.returncode == 1 and "reconfigure" in done.stderr
