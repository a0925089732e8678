"""The command line as a person and a program use it, against a whole stack."""

from __future__ import annotations

import json
import re
import subprocess

import httpx
import pytest

APP = """
import fngw

@fngw.deployment(init_args=("Hello",), version="1")
class Greeter:
    def __init__(self, word, *, loud=False):
        self.word = word.upper() if loud else word
        self.mark = ""

    def reconfigure(self, config):
        self.mark = config["mark"]

    def __call__(self, request):
        print("asked by", request.query_params.get("name"), flush=True)
        return self.greet(request.query_params.get("name", "you"))

    def greet(self, name):
        return f"{self.word}, {name}{self.mark}"

    def many(self, names):
        return {"greetings": [self.greet(n) for n in names]}

    def raw(self):
        return b"\\x00\\x01"

    def nothing(self):
        return None

@fngw.deployment
def echo(value=None):
    return value if isinstance(value, (dict, list, int)) else "echo"

if __name__ == "__main__":
    raise SystemExit("deployed by the command line, this is no script")
"""
STATUS = {
    "name": str,
    "version": (str, type(None)),
    "status": str,
    "message": str,
    "url": (str, type(None)),
    "route_prefix": (str, type(None)),
    "num_replicas": int,
    "image": (str, type(None)),
    "lock": (str, type(None)),
    "replicas": list,
    "lost": list,
    "options": dict,
}
REPLICA = {
    "id": str,
    "state": str,
    "pid": int,
    "gpus": list,
    "since": (int, float),
    "message": str,
    "use": (dict, type(None)),
}


def check(value: dict, schema: dict) -> None:
    assert value.keys() == schema.keys()
    wrong = {key: value[key] for key, kind in schema.items() if not isinstance(value[key], kind)}
    assert not wrong


def failed(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The text of an error as a person sees it: on stderr, with its exit code, and no traceback of ours."""
    assert (done.returncode, done.stdout) == (code, ""), done
    assert "Error: " in done.stderr and "fngw/cli" not in done.stderr, done.stderr
    return done.stderr


def error(done: subprocess.CompletedProcess[str], code: int) -> dict:
    """The error as a program sees it."""
    assert done.returncode == code, done
    told = json.loads(done.stdout)
    assert told.keys() == {"error"} and {"code", "message", "hint"} <= told["error"].keys(), told
    return told["error"]


@pytest.fixture
def fngw(stack, files):
    """Run a command in the folder of ``app.py``."""
    folder = files({"app.py": APP, "input.json": '["x", "y"]'})
    return lambda *words, **more: stack.fngw(*words, check=False, cwd=folder, **more)


def test_from_deploy_to_delete(stack, fngw, wait):
    done = fngw("deploy", "app.py")
    assert done.returncode == 0 and done.stdout == ""
    lines = done.stderr.splitlines()
    for name in ("Greeter", "echo"):
        assert lines[lines.index(f"{name} runs at {stack.url}/{name}") + 1] == f"  curl {stack.url}/{name}"
    assert "\x1b" not in done.stderr
    assert httpx.get(f"{stack.url}/Greeter", params={"name": "Ada"}, timeout=60).text == "Hello, Ada"

    # An engine's log has a line a moment after it was written.
    wait(lambda: "asked by Ada" in fngw("logs", "Greeter").stdout, "the line of that request")
    looks(stack, fngw)
    calls(fngw)
    changes(stack, fngw)

    assert fngw("delete", "Greeter", "echo").stdout == "deleted Greeter\ndeleted echo\n"
    assert httpx.get(f"{stack.url}/Greeter", timeout=60).status_code == 404
    assert fngw("list").stdout == "nothing is deployed; fngw deploy FILE changes that\n"
    assert json.loads(fngw("list", "--json").stdout) == {"deployments": []}


def looks(stack, fngw) -> None:
    """list, status and logs."""
    listed = fngw("list").stdout.splitlines()
    assert listed[0].split() == ["NAME", "VERSION", "STATUS", "REPLICAS", "URL"]
    assert listed[1].split() == ["Greeter", "1", "HEALTHY", "1/1", f"{stack.url}/Greeter"]
    assert listed[2].split() == ["echo", "-", "HEALTHY", "1/1", f"{stack.url}/echo"]

    page = fngw("status", "Greeter").stdout
    assert re.search(r"^status +HEALTHY$", page, re.M) and re.search(r"^replicas +1 of 1 ready$", page, re.M)
    status = json.loads(fngw("status", "Greeter", "--json").stdout)
    check(status, STATUS)
    check(status["replicas"][0], REPLICA)
    assert json.loads(fngw("list", "--json").stdout)["deployments"][0] == status
    assert (status["name"], status["route_prefix"], status["status"]) == ("Greeter", "/Greeter", "HEALTHY")

    (replica,) = stack.replicas("Greeter")
    assert f"{replica} | asked by Ada" in fngw("logs", "Greeter").stdout.splitlines()
    assert fngw("logs", "Greeter", "--tail", "1").stdout == f"{replica} | asked by Ada\n"
    assert "asked by Ada" in fngw("logs", "Greeter", "--since", "10m").stdout
    assert {"line": f"{replica} | asked by Ada"} in map(
        json.loads, fngw("logs", "Greeter", "--json").stdout.splitlines()
    )
    built = fngw("logs", "Greeter", "--build").stdout
    assert re.search(r"^(built|reused) \S+:\w+", built, re.M) and status["image"]


def calls(fngw) -> None:
    assert fngw("call", "Greeter", "--method", "greet", "--data", '"Bo"').stdout == "Hello, Bo\n"
    assert fngw("call", "echo", "--data", '{"ü": [1]}').stdout == '{"ü": [1]}\n'
    from_file = fngw("call", "Greeter", "--method", "many", "--data", "@input.json", "--json")
    assert json.loads(from_file.stdout) == {"result": {"greetings": ["Hello, x", "Hello, y"]}}
    assert fngw("call", "echo", "--data", "-", input="[1, 2]").stdout == "[1, 2]\n"
    assert fngw("call", "echo").stdout == "echo\n"
    assert fngw("call", "Greeter", "--method", "raw").stdout == "\x00\x01"
    assert fngw("call", "Greeter", "--method", "nothing").stdout == ""
    assert json.loads(fngw("call", "Greeter", "--method", "nothing", "--json").stdout) == {"result": None}


def changes(stack, fngw) -> None:
    """One of a file, with options; the number of replicas; the config."""
    words = (
        "--arg",
        "Bye",
        "--kwarg",
        "loud=true",
        "--version",
        "2",
        "--num-replicas",
        "2",
        "--set",
        "num_cpus=0.5",
    )
    done = fngw("deploy", "app.py:Greeter", *words, "--user-config", '{"mark": "!"}', "--json")
    (told,) = json.loads(done.stdout)["deployments"]
    assert told.pop("revision") > 0
    assert told == {"name": "Greeter", "version": "2", "outcome": "replace", "url": f"{stack.url}/Greeter"}
    assert fngw("call", "Greeter", "--method", "greet", "--data", '"A"').stdout == "BYE, A!\n"
    two = stack.replicas("Greeter")
    assert len(two) == 2

    assert fngw("scale", "Greeter", "1").returncode == 0
    one = stack.replicas("Greeter")
    assert len(one) == 1 and one.items() <= two.items()
    assert fngw("config", "Greeter", '{"mark": "?"}').returncode == 0
    assert stack.replicas("Greeter") == one
    assert fngw("call", "Greeter", "--method", "greet", "--data", '"A"').stdout == "BYE, A?\n"


def test_exit_codes_and_hints(process_stack, files):
    folder = files({"app.py": APP})

    def fngw(*words: str) -> subprocess.CompletedProcess[str]:
        return process_stack.fngw(*words, check=False, cwd=folder)

    unknown = {
        ("status", "Nope"): "fngw list",
        ("logs", "Nope"): "fngw list",
        ("call", "Nope"): "fngw list",
        ("delete", "Nope"): "fngw list",
        ("scale", "Nope", "2"): "fngw list",
        ("config", "Nope", "{}"): "fngw list",
    }
    for words, hint in unknown.items():
        told = failed(fngw(*words), 3)
        assert "Nope" in told and hint in told, (words, told)
    assert error(fngw("status", "Nope", "--json"), 3)["code"] == "deployment_not_found"

    usage = {
        ("deploy",): "FILE",
        ("deploy", "gone.py"): "gone.py: does not exist",
        ("deploy", "."): "directory",
        ("deploy", "app.py", "--arg", "x"): "FILE:ATTR",
        ("deploy", "app.py", "--set", "num_gpu=1"): "num_gpus",
        ("deploy", "app.py", "--num-replicas", "0"): "num_replicas",
        ("deploy", "app.py:Greeter", "--route-prefix", "x"): "route_prefix",
        ("deploy", "app.py:Greeter", "--arg", "1", "--arg", "2"): "Greeter(word, *, loud=False): too many",
        ("deploy", "app.py:Greeter", "--user-config", "{"): "JSON",
        ("call", "echo", "--data", "{"): "JSON",
        ("call", "echo", "--data", "@gone.json"): "gone.json",
        ("scale", "Greeter", "many"): "integer",
        ("list", "--url", "nonsense"): "http://localhost:8000",
        ("dply",): "did you mean 'deploy'?",
        ("list", "--jsn"): "--json",
    }
    for words, hint in usage.items():
        told = failed(fngw(*words), 2)
        assert hint in told, (words, told)
    assert error(fngw("deploy", "gone.py", "--json"), 2)["code"] == "usage"
    near = error(fngw("deploy", "app.py:Greter", "--json"), 1)
    assert near["code"] == "attribute_not_found" and "'Greeter'" in near["hint"]

    away = ("list", "--url", "http://localhost:9")
    told = failed(fngw(*away), 4)
    assert "http://localhost:9" in told and "fngw up" in told
    assert error(fngw(*away, "--json"), 4)["code"] == "unreachable"
    assert error(fngw("deploy", "app.py", *away[1:], "--json"), 4)["code"] == "unreachable"

    assert httpx.get(f"{process_stack.url}/-/routes", timeout=60).json() == {}  # none of these deployed anything
