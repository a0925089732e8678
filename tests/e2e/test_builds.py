"""Builds without a deploy, locks, logs of builds, the doctor and pruning, on whole stacks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

BIN = Path(sys.executable).parent

APP = """
import fngw


@fngw.deployment(name="NAME", conda={"channels": ["CHANNEL_URL"], "dependencies": ["SPEC", "bulky"]})
class App:
    def __init__(self, word): ...

    def __call__(self):
        import legacylib

        return legacylib.answer()
"""


@pytest.fixture
def app(files: Any, channel: Any, unique: str) -> Any:
    """Writes a file with a deployment that depends on a package; returns its path."""

    def app(spec: str = "legacylib=1.15") -> str:
        source = APP
        for word, value in {"CHANNEL_URL": channel.conda_url, "NAME": unique, "SPEC": spec}.items():
            source = source.replace(word, value)
        return str(files({"build_app.py": source}) / "build_app.py")

    return app


def test_a_deploy_finds_what_was_built_before(stack: Any, unique: str, app: Any, channel: Any) -> None:
    built = json.loads(stack.fngw("build", app(), "--json").stdout)
    assert (built["reused"], len(built["lock"])) == (False, 71)
    parts = ["base", "environment", "code"] if stack.engine == "docker" else ["environment", "code"]
    assert [layer["what"] for layer in built["layers"]] == parts
    assert all(layer["size"] > 0 and len(layer["digest"]) == 71 for layer in built["layers"])
    assert unique not in stack.fngw("list").stdout
    channel.forget()
    deployed = stack.fngw("deploy", app(), "--arg", "x")
    assert "reused environment " in deployed.stderr
    assert channel.count() == 0
    status = stack.status(unique)
    assert (status["lock"], status["image"]) == (built["lock"], built["image"])
    again = stack.fngw("build", app()).stdout
    assert f"lock         {built['lock']}\n" in again
    assert "reused in " in again and "MiB  reused" in again


def test_a_lock_is_shown_and_solved_anew(process_stack: Any, unique: str, app: Any, channel: Any) -> None:
    process_stack.fngw("deploy", app(), "--arg", "x", "--version", "1")
    lock = json.loads(process_stack.fngw("status", unique, "--lock").stdout)
    assert {"legacylib", "python"} <= {package["name"] for package in lock["conda"]}
    versions = json.loads(process_stack.fngw("versions", unique, "--json").stdout)["versions"]
    assert versions[0]["lock"] == process_stack.status(unique)["lock"]
    channel.forget()
    kept = process_stack.fngw("deploy", app(), "--arg", "x", "--version", "1", "--upgrade").stderr
    assert "this version runs already, so nothing is solved anew" in kept
    process_stack.fngw("deploy", app(), "--arg", "x", "--version", "2")
    assert channel.count() == 0, "the lock is used again"
    process_stack.fngw("deploy", app(), "--arg", "x", "--version", "3", "--upgrade")
    assert channel.count("conda/*/repodata*") > 0


def test_ctrl_c_stops_a_build(process_stack: Any, unique: str, app: Any, channel: Any, wait: Any) -> None:
    process_stack.fngw("prune", "--yes")
    channel.throttle("conda/noarch/bulky*", bytes_per_s=20_000)
    command = [str(BIN / "fngw"), "build", app("legacylib=2.3")]
    building = subprocess.Popen(command, env=process_stack.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    channel.wait_sent("conda/noarch/bulky*")
    building.send_signal(signal.SIGINT)
    _, said = building.communicate(timeout=60)
    assert building.returncode == 130
    assert b"stopped, and the build of " in said
    stage = process_stack.data_dir / "cache" / "stage"
    wait(lambda: not list(stage.glob("*")), "the end of the build")
    channel.heal()
    assert process_stack.fngw("build", app("legacylib=2.3")).returncode == 0


def test_the_log_of_a_build_is_followed_to_its_end(process_stack: Any, unique: str, app: Any) -> None:
    process_stack.fngw("deploy", app("legacylib"), "--arg", "x", "--no-wait")
    lines = process_stack.fngw("logs", unique, "--build", "-f").stdout.splitlines()
    assert any(line.startswith("lock sha256:") for line in lines)
    assert lines[-1].startswith(("built local:", "reused local:"))
    process_stack.fngw("deploy", app("legacylib"), "--arg", "x")
    assert process_stack.fngw("logs", unique, "--build").stdout.count("\n") >= 2


def test_the_log_of_a_failed_build(process_stack: Any, unique: str, app: Any) -> None:
    failed = process_stack.fngw("deploy", app("legacylyb"), "--arg", "x", check=False)
    assert failed.returncode == 1
    assert "failed: " in process_stack.fngw("logs", unique, "--build", "-f").stdout


def checks(stack: Any) -> dict[str, Any]:
    """What the doctor finds, by name."""
    done = stack.fngw("doctor", "--json", check=False)
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_the_doctor_and_what_it_advises(stack: Any, app: Any, wait: Any) -> None:
    stack.fngw("build", app())
    well = (
        "gateway",
        "version",
        "redis",
        "redis_data",
        "redis_memory",
        "controller",
        "gateways",
        "builder",
        "dispatchers",
        "base",
    )

    def all_well() -> dict[str, Any] | None:
        found = checks(stack)
        return found if all(found[name]["state"] == "ok" for name in well) else None

    # Parts are behind, or not known, for a moment now and then.
    found = wait(all_well, "all to be well")
    assert found["engine"]["state"] == ("ok" if stack.engine == "docker" else "warning")
    assert "0 locks" not in found["stored"]["message"]
    stack.fngw("prune", "--yes")
    caches = checks(stack)["caches"]["message"]
    assert "0 KiB of 20.0 GiB" in caches, caches


def test_images_go_to_the_registry_that_up_names(own_stack: Any, files: Any, registry: str) -> None:
    folder = files({"kept.py": "import fngw\n\n\n@fngw.deployment\ndef kept():\n    return 'kept'\n"})
    with own_stack("docker", "--registry", registry) as stack:
        ref = json.loads(stack.fngw("build", "kept.py:kept", "--json", cwd=folder).stdout)["ref"]
    host, _, repository = registry.partition("/")
    tags = httpx.get(f"http://{host}/v2/{repository}/tags/list", timeout=60).json()["tags"]
    assert tags == [ref.partition(":")[2]]
