"""Old versions are cleared away by a count: from the history, the engine and the disk."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from fngw_state import keys

KEEP = 3
REDEPLOYS = 20
ENGINES = [pytest.param("docker", marks=pytest.mark.docker), "process"]
APP = """
import fngw


@fngw.deployment
class App:
    def __init__(self, word):
        self.word = word

    def __call__(self):
        return f"VERSION {self.word}"
"""


def versions(stack: Any, name: str) -> list[str]:
    with stack.http as http:
        found = http.get(f"/-/api/v1/deployments/{name}/versions").raise_for_status().json()
    return [v["version"] for v in found["versions"]]


def blobs(stack: Any) -> list[Path]:
    return list((stack.data_dir / "blobs").glob("*/*/*"))


def folders(stack: Any) -> list[Path]:
    return list((stack.data_dir / "code").glob("*"))


def images(stack: Any) -> set[str]:
    """What this stack's builders made and the engine still has."""
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as client:
        noted = set(client.zrange(keys.IMAGES, 0, -1))
    listed = subprocess.run(
        ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"], capture_output=True, text=True, check=True
    )
    return noted & set(listed.stdout.split())


def age(stack: Any) -> None:
    """Let two hours go by in which nobody asks for anything."""
    long_ago = time.time() - 7200
    for path in (*blobs(stack), *folders(stack)):
        with contextlib.suppress(FileNotFoundError):  # cleared away just now
            os.utime(path, (long_ago, long_ago))
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as client:
        client.set(keys.INSTALLED, repr(long_ago))
        for image in client.zrange(keys.IMAGES, 0, -1):
            client.zadd(keys.IMAGES, {image: long_ago})


def deploy(project: Any, number: int) -> None:
    project.write(f"# {project.name}'s own\n" + APP.replace("VERSION", f"v{number}"))
    project.deployed(f"word {number}", version=f"v{number}")


def answer(stack: Any, name: str) -> str:
    with stack.http as http:
        return str(http.get(f"/{name}").text)


@pytest.mark.timeout(400)  # more than twenty deploys
@pytest.mark.parametrize("engine", ENGINES)
def test_of_many_redeploys_the_newest_are_left(engine: str, own_stack: Any, project: Any, wait: Any) -> None:
    with own_stack(engine, FNGW_KEEP_VERSIONS=str(KEEP)) as stack:
        app = project(stack)
        for number in range(1, REDEPLOYS + 1):
            deploy(app, number)
        wait(lambda: versions(stack, app.name) == ["v20", "v19", "v18"], "the history to be cut")
        assert len(blobs(stack)) == 2 * REDEPLOYS, "what was asked for within the hour stays"

        age(stack)
        deploy(app, 21)
        wait(lambda: len(blobs(stack)) == 2 * KEEP, "old sources and arguments to go")
        assert versions(stack, app.name) == ["v21", "v20", "v19"]
        if engine == "docker":
            wait(lambda: len(images(stack)) == KEEP, "old images to go")
        else:
            wait(lambda: len(folders(stack)) == KEEP, "old code to go")

        stack.fngw("rollback", app.name, "v19")
        assert answer(stack, app.name) == "v19 word 19"
        assert "reused" in stack.fngw("logs", app.name, "--build").stdout
        pruned = stack.fngw("rollback", app.name, "v18", "--json", check=False)
        assert pruned.returncode == 3
        error = json.loads(pruned.stdout or pruned.stderr)["error"]
        assert error["code"] == "version_not_found"
        assert re.search(r"known: v19, v21, v20", error["hint"])
        assert answer(stack, app.name) == "v19 word 19", "it is left alone"

        deploy(app, 1)
        assert answer(stack, app.name) == "v1 word 1", "what went is made again"
        stack.fngw("delete", app.name)
        age(stack)
        deploy(app, 2)
        wait(lambda: len(blobs(stack)) == 2, "what was the deleted deployment's to go")
        assert versions(stack, app.name) == ["v2"], "a new life, a new history"


@pytest.mark.parametrize("engine", ENGINES)
def test_failed_deploys_leave_nothing_for_ever(engine: str, own_stack: Any, project: Any, wait: Any) -> None:
    with own_stack(engine, FNGW_KEEP_VERSIONS="1") as stack:
        app = project(stack)
        deploy(app, 1)
        app.write(APP.replace("self.word = word", "raise ValueError('no')"))
        error = app.deploy("word 2", version="v2")
        assert error and error["type"] == "DeploymentFailed"
        deploy(app, 3)
        age(stack)
        deploy(app, 4)
        wait(lambda: len(blobs(stack)) == 2, "the sources of the others to go")
        if engine == "docker":
            wait(lambda: len(images(stack)) == 1, "their images to go")
        else:
            wait(lambda: len(folders(stack)) == 1, "their code to go")
        assert answer(stack, app.name) == "v4 word 4"


def test_a_blob_that_is_asked_for_counts_as_new(process_stack: Any, project: Any) -> None:
    app = project(process_stack)
    before = set(blobs(process_stack))
    deploy(app, 1)
    made = sorted(set(blobs(process_stack)) - before)
    assert made
    long_ago = time.time() - 7200

    def touched(ask: Any) -> bool:
        """Whether asking makes all of them new."""
        for path in made:
            os.utime(path, (long_ago, long_ago))
        ask()
        return all(path.stat().st_mtime > long_ago + 7000 for path in made)

    with process_stack.http as http:
        urls = [f"/-/api/v1/blobs/sha256:{path.name}" for path in made]
        spec = http.get(f"/-/api/v1/deployments/{app.name}/spec").json()["spec"]
        assert touched(lambda: [http.head(url).raise_for_status() for url in urls])
        assert touched(lambda: [http.put(url, content=b"").raise_for_status() for url in urls]), (
            "it is there already"
        )
        assert touched(
            lambda: http.put(f"/-/api/v1/deployments/{app.name}", json={"spec": spec}).raise_for_status()
        )
        assert http.head(f"/-/api/v1/blobs/sha256:{'0' * 64}").status_code == 404


def test_going_back_to_what_is_gone_from_the_disk_is_refused_at_once(process_stack: Any, project: Any) -> None:
    app = project(process_stack)
    before = set(blobs(process_stack))
    deploy(app, 1)
    made = set(blobs(process_stack)) - before
    assert made
    deploy(app, 2)
    for path in made:
        path.unlink()
    refused = process_stack.fngw("rollback", app.name, "v1", check=False)
    assert refused.returncode == 1
    assert "its version was pruned" in refused.stderr and "deploy from the sources" in refused.stderr
    assert answer(process_stack, app.name) == "v2 word 2"
