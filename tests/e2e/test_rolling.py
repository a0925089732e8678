"""Rolling updates under constant load: nothing is lost, what is in flight ends on the code that it started with."""

from __future__ import annotations

import hashlib
import math
import threading

import httpx
import pytest

SOURCE = """
import asyncio
import hashlib
import os
import fngw
from starlette.responses import Response

VERSION = "{version}"

@fngw.deployment(max_concurrent_queries=20)
class App:
    async def __init__(self, slow_s=0.0):
        await asyncio.sleep(slow_s)

    async def __call__(self, request):
        query = request.query_params
        if "stream" in query:
            return self.lines(int(query["stream"]))
        if "size" in query:
            return Response(b"x" * int(query["size"]), headers={{"app-version": VERSION}})
        if "told" in query:
            print("begun", flush=True)
        body = await request.body()
        return {{"version": VERSION, "pid": os.getpid(), "sha256": hashlib.sha256(body).hexdigest()}}

    async def lines(self, count):
        for _ in range(count):
            yield VERSION + "\\n"
            await asyncio.sleep(0.02)

    def tell(self, argument):
        return {{"version": VERSION, "argument": argument}}
"""


class Sampler:
    """Looks at the status all the time; remembers how few replicas served, and how many there were."""

    def __init__(self, stack, name):
        self._stack, self._name = stack, name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.samples = []

    def _look(self):
        with httpx.Client(base_url=self._stack.url, timeout=60) as http:
            while not self._stop.is_set():
                states = [r["state"] for r in http.get(f"/-/api/v1/deployments/{self._name}").json()["replicas"]]
                self.samples.append(states)
                self._stop.wait(0.02)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join()

    @property
    def least_serving(self):
        return min(states.count("READY") for states in self.samples)

    @property
    def most(self):
        return max(sum(state != "DRAINING" for state in states) for states in self.samples)


def surge(replicas):
    return max(1, math.ceil(replicas / 5))


def update_under_load(app, traffic, before, after):
    """Deploy version 1 with ``before`` replicas, then version 2 with ``after``, under load; check all rules."""
    app.write(SOURCE.format(version="one"))
    first = app.deployed(version="1", num_replicas=before)
    with traffic(app.stack, app.name) as load, Sampler(app.stack, app.name) as seen:
        app.write(SOURCE.format(version="two"))
        second = app.deployed(version="2", num_replicas=after)
        told = [httpx.get(f"{app.stack.url}/{app.name}", timeout=60).json()["version"] for _ in range(20)]
    assert not load.errors, load.errors
    assert set(told) == {"two"}  # deploy returns when every gateway routes accordingly
    assert len(first) == before and len(second) == after and not first.keys() & second.keys()
    for kind, book in load.report.items():
        assert book["versions"].keys() <= {"one", "two"} and "one" in book["versions"], (kind, book)
    assert seen.least_serving >= min(before, after)
    size = max(before, after)  # an update that also shrinks does so when the new version serves
    assert seen.most <= size + surge(size)


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_an_update_of_containers_under_load_loses_nothing(docker_stack, project, traffic, replicas):
    update_under_load(project(docker_stack), traffic, replicas, replicas)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2, 5, 10])
def test_an_update_of_processes_under_load_loses_nothing(process_stack, project, traffic, replicas):
    update_under_load(project(process_stack), traffic, replicas, replicas)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)])
def test_scale_and_version_change_in_one_deploy(process_stack, project, traffic, before, after):
    update_under_load(project(process_stack), traffic, before, after)


def test_what_is_in_flight_ends_on_the_code_that_it_started_with(stack, project, wait):
    app = project(stack)
    app.write(SOURCE.format(version="one"))
    app.deployed(version="1", graceful_shutdown_timeout_s=90)
    updated = threading.Event()
    answers = []

    def body():
        yield b"begun "
        updated.wait(90)
        yield b"and ended"

    slow = threading.Thread(target=lambda: answers.append(httpx.post(told, content=body(), timeout=90).json()))
    url = f"{stack.url}/{app.name}"
    told = f"{url}?told=1"
    slow.start()
    wait(lambda: "begun" in stack.logs(app.name), "the request to be in the replica")
    app.write(SOURCE.format(version="two"))
    app.deployed(version="2")
    assert httpx.get(url, timeout=60).json()["version"] == "two"
    assert not answers
    updated.set()
    slow.join(timeout=90)
    assert answers[0]["version"] == "one"
    assert answers[0]["sha256"] == hashlib.sha256(b"begun and ended").hexdigest()


def test_of_two_deploys_that_race_the_later_one_wins(stack, project, wait):
    app = project(stack)
    app.write(SOURCE.format(version="one"))
    first = app.deployed(version="1")
    app.write(SOURCE.format(version="two"))
    earlier = app.begin(600.0, version="2")
    wait(lambda: len(stack.status(app.name)["replicas"]) == 2, "the first new replica, which takes for ever")
    assert earlier.poll() is None
    app.write(SOURCE.format(version="three"))
    assert app.deploy(version="3") is None
    error = app.end(earlier)
    assert error and (error["type"], error["code"]) == ("DeploymentFailed", "superseded")
    assert httpx.get(f"{stack.url}/{app.name}", timeout=60).json()["version"] == "three"
    left = stack.replicas(app.name)
    assert len(left) == 1 and not left.keys() & first.keys()
