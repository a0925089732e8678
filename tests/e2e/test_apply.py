"""``fngw apply`` on a whole stack: what a file says is what runs, and what is as it says is not touched."""

from __future__ import annotations

import json

import httpx

APP = """
import fngw

@fngw.deployment
class Greeter:
    def __init__(self, word):
        self.word, self.mark = word, ""

    def reconfigure(self, config):
        self.mark = config["mark"]

    def __call__(self, request):
        return self.word + self.mark

@fngw.deployment
def echo(request):
    return "echo"
"""
FIRST = """
[deployments.{name}]
target = "app.py:Greeter"
version = "1"
args = ["Hello"]
user_config = {{ mark = "!" }}

[deployments.{name}-echo]
target = "app.py:echo"
"""
SECOND = FIRST.replace('"!"', '"?"').replace("user_config", "num_replicas = 2\nuser_config")
THIRD = """
[deployments.{name}]
target = "app.py:Greeter"
version = "2"
args = ["Bye"]

[deployments.{name}-new]
target = "app.py:echo"
route_prefix = "/{name}-echo"
"""


def test_what_the_file_says_is_what_runs(process_stack, files, unique):
    stack, echo = process_stack, f"{unique}-echo"

    def apply(text: str, *words: str) -> list[tuple[str, str]]:
        folder = files({"app.py": APP, "fngw.toml": text.format(name=unique)})
        done = stack.fngw("apply", "-f", str(folder / "fngw.toml"), "--json", *words)
        return [(step["name"], step["action"]) for step in json.loads(done.stdout)["steps"]]

    def answer(route: str) -> str:
        return httpx.get(f"{stack.url}/{route}", timeout=60).text

    assert apply(FIRST, "--dry-run") == [(unique, "create"), (echo, "create")]
    assert stack.fngw("status", unique, check=False).returncode == 3
    assert apply(FIRST) == [(unique, "create"), (echo, "create")]
    assert (answer(unique), answer(echo)) == ("Hello!", "echo")
    (greeter,), (function,) = stack.replicas(unique), stack.replicas(echo)

    assert apply(FIRST) == [(unique, "unchanged"), (echo, "replace")]
    assert greeter in stack.replicas(unique)
    assert function not in stack.replicas(echo)  # it has no version

    told = stack.fngw("apply", "--dry-run", cwd=files({"fngw.toml": SECOND.format(name=unique)})).stdout
    assert told.splitlines()[:3] == [
        f"update     {unique}",
        "             num_replicas: 1 → 2",
        '             user_config: {"mark": "!"} → {"mark": "?"}',
    ]
    assert apply(SECOND) == [(unique, "update"), (echo, "replace")]
    assert answer(unique) == "Hello?" and len(stack.replicas(unique)) == 2
    assert greeter in stack.replicas(unique)

    # The route of what is removed is free for what is new.
    assert apply(THIRD, "--prune") == [(echo, "remove"), (unique, "replace"), (f"{unique}-new", "create")]
    assert (answer(unique), answer(echo)) == ("Bye", "echo")
    assert stack.fngw("status", echo, check=False).returncode == 3

    broken = THIRD.replace('["Bye"]', "[]").replace("/{name}-echo", "/{name}-other")
    folder = files({"fngw.toml": broken.format(name=unique)})
    refused = stack.fngw("apply", "--prune", cwd=folder, check=False)
    assert refused.returncode == 2 and "missing a required argument: 'word'" in refused.stderr
    assert (answer(unique), answer(echo)) == ("Bye", "echo")
