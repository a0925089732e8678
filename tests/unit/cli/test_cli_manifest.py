"""``fngw.toml``: what it may say, and what is said of what it may not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fngw.cli.manifest import Entry, read_manifest
from fngw.errors import FngwError

Read = Callable[[str], list[Entry]]
APP = """
import fngw

@fngw.deployment(num_replicas=2, request_timeout_s=5)
class Greeter:
    def __init__(self, msg, *, loud=False): ...
    def reconfigure(self, config): ...
    def __call__(self, request): ...

@fngw.deployment
def echo(request): ...
"""
ONE = "import fngw\n\n@fngw.deployment\ndef only(request): ...\n"


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    """Write the file beside ``manifestapp.py`` and ``manifestone.py``, and read it, from another folder."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "manifestapp.py").write_text(APP)
    (folder / "manifestone.py").write_text(ONE)

    def read(text: str) -> list[Entry]:
        (folder / "fngw.toml").write_text(text)
        return read_manifest(folder / "fngw.toml")

    yield read
    for name in [n for n in set(sys.modules) - before if n.startswith("manifest")]:
        del sys.modules[name]


def test_names_options_and_arguments(read: Read) -> None:
    first, second, third = read("""
        [deployments.Hello]
        target = "manifestapp.py:Greeter"
        version = "7"
        args = ["Hi"]
        kwargs = { loud = true }
        user_config = { words = ["a"], strict = false }
        env = { MODE = "test" }
        pip = ["six"]
        memory = "1GiB"
        request_timeout_s = false

        [deployments.Bye]
        target = "manifestapp.py:Greeter"
        kwargs.msg = "Bye"
        route_prefix = false

        [deployments.only]
        target = "manifestone.py"
    """)
    deployment = first.deployment
    assert (first.name, deployment.version, deployment.route_prefix) == ("Hello", "7", "/Hello")
    assert (first.args, first.kwargs) == (("Hi",), {"loud": True})
    assert deployment.user_config == {"words": ["a"], "strict": False}
    assert (deployment.env, deployment.pip, deployment.memory) == ({"MODE": "test"}, ("six",), "1GiB")
    assert (deployment.num_replicas, deployment.request_timeout_s) == (2, None)  # the code's, and the file's
    assert (second.name, second.kwargs, second.deployment.route_prefix) == ("Bye", {"msg": "Bye"}, None)
    assert second.deployment.func_or_class is deployment.func_or_class  # its file is imported once
    assert third.name == "only"


def test_paths_count_from_the_file(read: Read, tmp_path: Path) -> None:
    (entry,) = read("""
        [deployments.echo]
        target = "manifestapp.py:echo"
        working_dir = "src"
        pip = "requirements.txt"
        conda = "env/environment.yml"
    """)
    folder, deployment = tmp_path / "project", entry.deployment
    found = (deployment.working_dir, deployment.pip, deployment.conda)
    assert found == (str(folder / "src"), str(folder / "requirements.txt"), str(folder / "env/environment.yml"))


@pytest.mark.parametrize("text", ["", "[deployments]", "# nothing"])
def test_an_empty_file_asks_for_nothing(read: Read, text: str) -> None:
    assert read(text) == []


GREETER = '[deployments.Greeter]\ntarget = "manifestapp.py:Greeter"\n'


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        (
            "[deployments.x]\ntarget =\n",
            "is not TOML: Invalid value (at line 2, column 9)",
            "[deployments.Greeter]",
        ),
        ("[deployment.x]", "unknown key 'deployment'", "did you mean 'deployments'?"),
        ("deployments = 3", "deployments must be tables", "[deployments.Greeter]"),
        ("[deployments]\nx = 3", "deployments.x must be a table", "[deployments.Greeter]"),
        ("[deployments.x]", "deployments.x: target is missing", "app.py:Greeter"),
        (GREETER + "num_replica = 2", "deployments.Greeter: unknown key 'num_replica'", "'num_replicas'"),
        (GREETER + "init_args = []", "unknown key 'init_args'", "'args'"),
        (GREETER + "name = 'x'", "unknown key 'name'", "known: target, version"),
        (GREETER + "args = ['a']\nnum_replicas = 0", "deployments.Greeter: num_replicas: must be ≥ 1", ""),
        (GREETER + "args = ['a']\nnum_replicas = 'two'", "num_replicas must be an integer", ""),
        (GREETER + "args = ['a']\nuser_config = 1979-05-27", "user_config: cannot be written as JSON", ""),
        (GREETER, "Greeter(msg, *, loud=False): missing a required argument: 'msg'", "args and kwargs"),
        (GREETER + "kwargs = {msg = 1, mesg = 1}", "got an unexpected keyword argument", "args and kwargs"),
        ("[deployments.a_]\ntarget = 'manifestone.py'", "deployments.a_: name: 'a_' is not a deployment name", ""),
        ("[deployments.x]\ntarget = 'manifestapp.py'", "has 2 deployments: Greeter, echo", "FILE:ATTR"),
        ("[deployments.x]\ntarget = 'gone.py'", "gone.py: does not exist", ""),
        (
            "[deployments.a]\ntarget = 'manifestone.py'\nroute_prefix = '/x'\n"
            "[deployments.b]\ntarget = 'manifestone.py'\nroute_prefix = '/x'\n",
            "a and b have the same route_prefix, '/x'",
            "route_prefix = false",
        ),
    ],
)
def test_what_makes_no_sense_is_told(read: Read, text: str, said: str, hint: str) -> None:
    with pytest.raises(FngwError) as refused:
        read(text)
    assert refused.value.code == "usage"
    assert said in refused.value.message and hint in refused.value.hint


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FngwError, match=r"fngw\.toml: no such file or directory") as refused:
        read_manifest(tmp_path / "fngw.toml")
    assert "-f FILE" in refused.value.hint
