"""Deployments that fail: at first, at an update, now and then, again and again; and how replicas leave."""

from __future__ import annotations

import os
import signal
import threading
import time

import httpx
import pytest

SOURCE = """
import asyncio
import os
import pathlib
import time
import fngw

VERSION = "{version}"

@fngw.deployment(graceful_shutdown_wait_loop_s=0.1, graceful_shutdown_timeout_s={grace})
class App:
    def __init__(self, fails="", counter="", times=0):
        if counter:
            path = pathlib.Path(counter)
            path.write_text(path.read_text() + "x" if path.exists() else "x")
            if len(path.read_text()) <= times:
                raise OSError("not yet")
        if fails:
            raise ValueError(fails)

    async def __call__(self, request):
        if request.method == "POST":
            print("begun", flush=True)
        if await request.body():
            print("the whole body is there", flush=True)
        if "stuck" in request.query_params:
            print("stuck for ever", flush=True)
            await asyncio.sleep(3600)
        if "die" in request.query_params:
            os._exit(3)
        return {{"version": VERSION, "pid": os.getpid()}}

    def __del__(self):
        print("goodbye from", VERSION, flush=True)
        raise RuntimeError("and a last problem")
"""


@pytest.fixture
def app(stack, project):
    found = project(stack)
    found.write(SOURCE.format(version="one", grace=5))
    return found


def told(app):
    answer = httpx.get(f"{app.stack.url}/{app.name}", timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_failing_first_deploy_leaves_nothing_running(app, wait):
    error = app.deploy("no such model", version="1")
    assert error and error["type"] == "DeploymentFailed"
    assert "ValueError: no such model" in error["text"]
    status = wait(lambda: stopped(app), "no replicas")
    assert "no such model" in status["message"]


def stopped(app):
    """The status once it tells of the failure, and of no replica."""
    status = app.stack.status(app.name)
    return status if not status["replicas"] and status["status"] == "UNHEALTHY" else None


def test_a_failing_update_leaves_the_old_version_untouched(app, wait):
    first = app.deployed(version="1", num_replicas=2)
    app.write(SOURCE.format(version="two", grace=5))
    error = app.deploy("no such model", version="2")
    assert error and (error["type"], error["code"]) == ("DeploymentFailed", "constructor_failed")
    status = wait(lambda: settled(app), "the old version alone")
    assert app.stack.replicas(app.name) == first
    assert (status["version"], status["status"]) == ("1", "UNHEALTHY")
    assert "no such model" in status["message"] and told(app)["version"] == "one"
    # Going back to what runs clears the failure without a restart; going on with a good version replaces it.
    assert app.deployed(version="1", num_replicas=2) == first
    assert app.stack.status(app.name)["status"] == "HEALTHY"
    assert not app.deployed(version="2").keys() & first.keys()
    assert told(app)["version"] == "two"


def settled(app):
    """The status once it tells of the failure, and of nothing that is left of it."""
    status = app.stack.status(app.name)
    alone = len(status["replicas"]) == status["num_replicas"]
    return status if alone and status["status"] == "UNHEALTHY" else None


def test_a_constructor_that_fails_twice_recovers(process_stack, project, tmp_path):
    app = project(process_stack)
    app.write(SOURCE.format(version="one", grace=5))
    counter = tmp_path / "counter"
    assert len(app.deployed("", str(counter), 2, version="1")) == 1
    assert len(counter.read_text()) == 3


@pytest.mark.slow
def test_a_crash_loop_backs_off_and_says_so(process_stack, project, wait):
    app = project(process_stack)
    app.write(SOURCE.format(version="one", grace=5))
    [(last, pid)] = app.deployed(version="1").items()
    gaps = []
    for _ in range(4):
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        found = wait(lambda old=last: successor(app, old), "a successor")
        gaps.append(time.monotonic() - killed)
        [(last, pid)] = found.items()
    # 0.5, 1, 2, 4 s, on top of a start, which may take any time; a step later when the first had lived for long.
    assert all(gap > pause for gap, pause in zip(gaps, (0, 0.5, 1, 2), strict=True)), gaps
    os.kill(pid, signal.SIGKILL)
    status = wait(lambda: complains(app), "a status that says so")
    assert status["status"] == "UNHEALTHY" and "died" in status["message"]


def successor(app, old):
    found = app.stack.replicas(app.name)
    return found if len(found) == 1 and old not in found else None


def complains(app):
    status = app.stack.status(app.name)
    return status if "crash loop" in status["message"] else None


# -- leaving ----------------------------------------------------------------------------------------------


def test_requests_in_flight_finish_at_delete(app, wait):
    app.write(SOURCE.format(version="one", grace=90))
    app.deployed(version="1")
    deleting = threading.Event()
    answers = []

    def body():
        yield b"begun "
        deleting.wait(90)
        yield b"and ended"

    url = f"{app.stack.url}/{app.name}"
    slow = threading.Thread(target=lambda: answers.append(httpx.post(url, content=body(), timeout=90)))
    slow.start()
    wait(lambda: "begun" in app.stack.logs(app.name), "the request to be in the replica")
    httpx.delete(f"{app.stack.url}/-/api/v1/deployments/{app.name}", timeout=60)
    wait(lambda: httpx.get(url, timeout=60).status_code == 404, "the route to be gone")
    assert not answers
    deleting.set()
    slow.join(timeout=90)
    assert answers[0].status_code == 200 and answers[0].json()["version"] == "one"
    wait(lambda: gone(app), "the deployment to be gone")


def gone(app):
    return httpx.get(f"{app.stack.url}/-/api/v1/deployments/{app.name}", timeout=60).status_code == 404


def test_a_stuck_request_is_cut_after_its_grace_time(stack, project, wait):
    app = project(stack)
    app.write(SOURCE.format(version="one", grace=1))
    app.deployed(version="1")
    answers = []
    url = f"{stack.url}/{app.name}?stuck=1"
    stuck = threading.Thread(target=lambda: answers.append(httpx.post(url, content=b"x", timeout=60)))
    stuck.start()
    wait(lambda: "stuck for ever" in stack.logs(app.name), "the request to be in the replica")
    began = time.monotonic()
    stack.fngw("delete", app.name)
    assert time.monotonic() - began < 100  # and not 3600
    stuck.join(timeout=60)
    assert answers[0].status_code >= 500, answers[0].text


def test_goodbyes_and_their_errors_are_in_the_logs(app, wait):
    app.deployed(version="1")
    app.write(SOURCE.format(version="two", grace=5))
    app.deployed(version="2")
    text = wait(lambda: last_words(app), "a last problem")
    assert "goodbye from one" in text and "__del__ raised RuntimeError" in text


def last_words(app):
    text = app.stack.logs(app.name)
    return text if "and a last problem" in text else None
