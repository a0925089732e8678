"""The redeploy table of the contract, row by row, seen by replica ids and process ids, on both engines."""

from __future__ import annotations

import httpx

SOURCE = """
import os
import fngw

@fngw.deployment
class App:
    def __init__(self, word="hello", *, loud=False):
        self.word = word.upper() if loud else word

    def __call__(self):
        return {{"word": self.word, "code": "{code}", "pid": os.getpid()}}
"""


def told(stack, path):
    answer = httpx.get(f"{stack.url}{path}", timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_without_a_version_every_deploy_replaces_the_replicas(stack, project):
    app = project(stack)
    app.write(SOURCE.format(code="a"))
    first, second = app.deployed(), app.deployed()
    assert len(first) == len(second) == 1
    assert not first.keys() & second.keys() and not set(first.values()) & set(second.values())


def test_the_same_version_keeps_the_replicas_even_with_new_code(stack, project):
    app = project(stack)
    app.write(SOURCE.format(code="a"))
    first = app.deployed("hello", version="1")
    app.write(SOURCE.format(code="b"))
    assert app.deployed("other", version="1") == first
    answer = told(stack, f"/{app.name}")
    assert (answer["word"], answer["code"]) == ("hello", "a")


def test_a_new_version_replaces_code_and_arguments(stack, project):
    app = project(stack)
    app.write(SOURCE.format(code="a"))
    first = app.deployed("hello", version="1")
    app.write(SOURCE.format(code="b"))
    second = app.deployed("other", version="2", kwargs={"loud": True})
    assert not first.keys() & second.keys()
    answer = told(stack, f"/{app.name}")
    assert (answer["word"], answer["code"]) == ("OTHER", "b")
    assert stack.status(app.name)["version"] == "2"


def test_scaling_keeps_the_others(stack, project):
    app = project(stack)
    app.write(SOURCE.format(code="a"))
    one = app.deployed(version="1")
    three = app.deployed(version="1", num_replicas=3)
    assert len(three) == 3 and one.items() <= three.items()
    two = app.deployed(version="1", num_replicas=2)
    assert len(two) == 2 and two.items() <= three.items()


def test_a_route_changes_without_a_restart(stack, project):
    app = project(stack)
    app.write(SOURCE.format(code="a"))
    first = app.deployed(version="1")
    moved = f"/moved/{app.name}"
    assert app.deployed(version="1", route_prefix=moved) == first
    assert told(stack, moved)["word"] == "hello"
    assert httpx.get(f"{stack.url}/{app.name}", timeout=60).status_code == 404
    assert httpx.get(f"{stack.url}/-/routes", timeout=60).json().get(moved) == app.name


def test_a_wrong_prev_version_changes_nothing(stack, project):
    app = project(stack)
    app.write(SOURCE.format(code="a"))
    error = app.deploy(version="1", prev_version="0")
    assert error and error["type"] == "VersionConflict"
    first = app.deployed(version="1")
    error = app.deploy(version="3", prev_version="2")
    assert error and error["type"] == "VersionConflict" and "'1'" in error["text"]
    status = stack.status(app.name)
    assert (status["version"], status["status"]) == ("1", "HEALTHY")
    assert stack.replicas(app.name) == first
    assert not app.deployed(version="2", prev_version="1").keys() & first.keys()


def test_a_fetched_deployment_redeploys_with_its_stored_arguments(stack, project):
    app = project(stack)
    app.write(SOURCE.format(code="a"))
    first = app.deployed("kept", version="1", kwargs={"loud": True})
    script = f"""
import fngw
found = fngw.get_deployment({app.name!r})
found.options(version="2").deploy()
"""
    done = stack.python(script)
    assert done.returncode == 0, done.stderr
    assert not stack.replicas(app.name).keys() & first.keys()
    assert told(stack, f"/{app.name}")["word"] == "KEPT"
