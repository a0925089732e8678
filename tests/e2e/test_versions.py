"""The history of a deployment, and the way back in it."""

from __future__ import annotations

import json
from typing import Any

APP = """
import fngw


@fngw.deployment(name="NAME", version="VERSION", num_replicas=2, user_config={"n": "VERSION"})
class Versioned:
    def reconfigure(self, config):
        self.n = config["n"]

    def __call__(self):
        return "VERSION " + self.n
"""


def versions(stack: Any, name: str) -> list[dict[str, Any]]:
    return list(json.loads(stack.fngw("versions", name, "--json").stdout)["versions"])


def test_every_version_is_listed_and_one_command_goes_back(stack: Any, unique: str, files: Any):
    def deploy(version: str) -> None:
        folder = files({"versioned_app.py": APP.replace("NAME", unique).replace("VERSION", version)})
        stack.fngw("deploy", str(folder / "versioned_app.py"))

    def answer() -> str:
        with stack.http as http:
            return http.get(f"/{unique}").text

    deploy("1")
    deploy("2")
    first, second = reversed(versions(stack, unique))
    assert [(v["version"], v["serving"]) for v in (first, second)] == [("1", False), ("2", True)]
    assert first["image"] and first["image"] != second["image"]

    stack.fngw("scale", unique, "3")
    stack.fngw("rollback", unique)
    assert answer() == "1 1"
    status = stack.status(unique)
    assert (status["version"], status["image"], status["num_replicas"]) == ("1", first["image"], 3)
    assert "reused" in stack.fngw("logs", unique, "--build").stdout, "a rollback builds nothing"

    kept = stack.replicas(unique)
    stack.fngw("config", unique, '{"n": "changed"}')
    assert answer() == "1 changed"
    assert stack.replicas(unique) == kept
    assert [v["version"] for v in versions(stack, unique)] == ["1", "2", "1"], "in place: no entry of its own"

    stack.fngw("rollback", unique, "2")
    assert answer() == "2 2"
    number = str(versions(stack, unique)[1]["number"])
    stack.fngw("rollback", unique, number)
    assert answer() == "1 changed"

    unknown = stack.fngw("rollback", unique, "nine", check=False)
    assert unknown.returncode == 3
    assert "no version 'nine' is known" in unknown.stderr and "known: 1, 2" in unknown.stderr


def test_there_is_no_way_back_from_the_first(process_stack: Any, unique: str, files: Any):
    folder = files({"versioned_app.py": APP.replace("NAME", unique).replace("VERSION", "1")})
    process_stack.fngw("deploy", str(folder / "versioned_app.py"))
    refused = process_stack.fngw("rollback", unique, check=False)
    assert refused.returncode == 3
    assert "no earlier version" in refused.stderr
