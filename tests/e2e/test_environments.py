"""Deployments with dependencies on a whole stack: what a user of ``conda=`` and ``pip=`` sees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

CONFLICT = """
import fngw

CHANNEL = "CHANNEL_URL"


def needs(spec):
    return {"channels": [CHANNEL], "dependencies": [spec]}


@fngw.deployment(name="NAME-old", conda=needs("legacylib=1.15"))
def old():
    import legacylib

    return f"{legacylib.__name__} {legacylib.answer()}"


@fngw.deployment(name="NAME-new", conda=needs("legacylib=2.3"))
def new():
    import legacylib

    return f"{legacylib.__name__} {legacylib.answer()}"
"""

ONE = """
import fngw


@fngw.deployment(name="NAME", version="VERSION", conda={"channels": ["CHANNEL_URL"], "dependencies": ["SPEC"]})
def one():
    import legacylib

    return "VERSION " + legacylib.answer()
"""

ASK = """
import fngw, json, urllib.request

digits = fngw.get_deployment("NAME")
handle = digits.get_handle()
print(handle.accuracy.remote().result())
rows, label = handle.example.remote(5).result()
request = urllib.request.Request(digits.url, json.dumps(rows).encode())
print(json.load(urllib.request.urlopen(request))["digit"] == label)
"""


@pytest.fixture
def app(files: Any, channel: Any, unique: str) -> Any:
    """Writes a source with its words filled in; returns its path."""

    def app(source: str, **words: str) -> str:
        for word, value in {"CHANNEL_URL": channel.conda_url, "NAME": unique, **words}.items():
            source = source.replace(word, value)
        return str(files({"env_app.py": source}) / "env_app.py")

    return app


def test_conflicting_dependencies_serve_side_by_side(stack: Any, unique: str, app: Any) -> None:
    stack.fngw("deploy", app(CONFLICT))
    with stack.http as http:
        assert http.get(f"/{unique}-old").text == "legacylib old"
        assert http.get(f"/{unique}-new").text == "legacylib new"
    assert stack.status(f"{unique}-old")["lock"] != stack.status(f"{unique}-new")["lock"]


def test_new_code_says_that_its_environment_is_reused(stack: Any, unique: str, app: Any, channel: Any) -> None:
    stack.fngw("deploy", app(ONE, VERSION="1", SPEC="legacylib=1.15"))
    channel.forget()
    done = stack.fngw("deploy", app(ONE, VERSION="2", SPEC="legacylib=1.15"))
    assert "reused environment " in done.stderr
    assert channel.count() == 0
    with stack.http as http:
        assert http.get(f"/{unique}").text == "2 old"


def test_a_rollback_brings_back_what_was_locked(stack: Any, unique: str, app: Any) -> None:
    stack.fngw("deploy", app(ONE, VERSION="1", SPEC="legacylib=1.15"))
    first = stack.status(unique)["lock"]
    stack.fngw("deploy", app(ONE, VERSION="2", SPEC="legacylib=2.3"))
    second = stack.status(unique)["lock"]
    assert first != second
    stack.fngw("rollback", unique, "1")
    assert stack.status(unique)["lock"] == first
    with stack.http as http:
        assert http.get(f"/{unique}").text == "1 old"


def test_what_cannot_be_solved_says_why_and_leaves_what_serves(stack: Any, unique: str, app: Any) -> None:
    stack.fngw("deploy", app(ONE, VERSION="1", SPEC="legacylib=1.15"))
    failed = stack.fngw("deploy", app(ONE, VERSION="2", SPEC="legacylyb"), check=False)
    assert failed.returncode == 1
    assert "legacylib" in failed.stderr, "the nearest name"
    with stack.http as http:
        assert http.get(f"/{unique}").text == "1 old"


def test_a_deploy_that_is_overtaken_stops_its_build(
    stack: Any, unique: str, app: Any, channel: Any, wait: Any
) -> None:
    channel.delay("conda/*legacylib-1.15*", seconds=600)
    begun = stack.fngw("deploy", app(ONE, VERSION="1", SPEC="legacylib=1.15"), "--no-wait", "--json")
    assert json.loads(begun.stdout)
    wait(lambda: channel.count("conda/*legacylib-1.15*"), "a download")
    stack.fngw("deploy", app(ONE, VERSION="2", SPEC="legacylib=2.3"))
    wait(lambda: not list(stack.data_dir.glob("cache/stage/*")), "the end of the first build")
    with stack.http as http:
        assert http.get(f"/{unique}").text == "2 new"


@pytest.mark.slow
@pytest.mark.timeout(600)  # it downloads scikit-learn
def test_the_example_that_reads_digits(docker_stack: Any, unique: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXAMPLES / "digits", tmp_path / "digits"))
    docker_stack.fngw("deploy", str(folder / "app.py"), "--name", unique, timeout=300)
    asked = docker_stack.python(ASK.replace("NAME", unique))
    accuracy, right = asked.stdout.split()
    assert float(accuracy) > 0.9
    assert right == "True"
