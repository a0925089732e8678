"""Replicas that do not fit: stop first and lose nothing, wait and say for what; GPUs by UUID on both engines."""

from __future__ import annotations

import json
import os
import stat
import sys
import textwrap
from pathlib import Path

import httpx
import pytest
from tests.private_engine import PrivateEngine

#: As ``traffic.py`` asks for it.
SOURCE = """
import asyncio
import hashlib
import os
import fngw
from starlette.responses import Response

VERSION = "{version}"

@fngw.deployment(max_concurrent_queries=20)
class App:
    def __init__(self):
        if VERSION == "broken":
            raise ValueError("no")

    async def __call__(self, request):
        query = request.query_params
        if "stream" in query:
            return self.lines(int(query["stream"]))
        if "size" in query:
            return Response(b"x" * int(query["size"]), headers={{"app-version": VERSION}})
        body = await request.body()
        return {{"version": VERSION, "pid": os.getpid(), "sha256": hashlib.sha256(body).hexdigest()}}

    async def lines(self, count):
        for _ in range(count):
            yield VERSION + "\\n"
            await asyncio.sleep(0.02)

    def tell(self, argument):
        return {{"version": VERSION, "argument": argument}}
"""

ENVIRONMENT = """
import os
import fngw

@fngw.deployment
class App:
    def __call__(self):
        return {key: value for key, value in os.environ.items() if key.startswith(("CUDA", "NVIDIA", "OMP"))}
"""

GPU = "GPU-11111111-2222-3333-4444-555555555555"
ENGINES = [pytest.param("docker", marks=pytest.mark.docker), "process"]


@pytest.fixture
def inventory(tmp_path, monkeypatch) -> Path:
    """One GPU of 80 GiB, declared."""
    path = tmp_path / "gpus.json"
    path.write_text(json.dumps({"gpus": [{"uuid": GPU, "model": "H100", "memory": "80GiB"}]}))
    monkeypatch.setenv("FNGW_GPU_INVENTORY", str(path))
    return path


@pytest.fixture(params=ENGINES)
def small_stack(request, own_stack, monkeypatch):
    """A machine with memory for one replica of 300 MiB."""
    monkeypatch.setenv("FNGW_MEMORY", "500MiB")
    with own_stack(request.param) as stack:
        yield stack


def message(stack, name):
    return stack.status(name)["message"]


# -- a surge that does not fit ----------------------------------------------------------------------------


def test_an_update_without_room_for_a_surge_loses_no_request(small_stack, project, traffic, wait):
    app = project(small_stack)
    app.write(SOURCE.format(version="v1"))
    first = app.deployed(version="v1", memory="300MiB")
    with traffic(small_stack, app.name) as load:
        app.write(SOURCE.format(version="v2"))
        second = app.deployed(version="v2", memory="300MiB")
        assert len(second) == 1 and not first.keys() & second.keys()
    assert load.errors == []
    versions = {version for book in load.report.values() for version in book["versions"]}
    assert versions == {"v1", "v2"}
    small_stack.fngw("delete", app.name)


def test_a_new_version_that_fails_without_room_for_a_surge_brings_the_old_one_back(
    small_stack, project, traffic, wait
):
    app = project(small_stack)
    app.write(SOURCE.format(version="v1"))
    first = app.deployed(version="v1", memory="300MiB")
    with traffic(small_stack, app.name) as load:
        app.write(SOURCE.format(version="broken"))
        error = app.deploy(version="v2", memory="300MiB")
        assert error["code"] == "constructor_failed" and "ValueError: no" in error["text"]
        back = wait(lambda: small_stack.replicas(app.name), "the old version")
        assert not first.keys() & back.keys()
    assert load.errors == []
    assert {version for book in load.report.values() for version in book["versions"]} == {"v1"}
    assert small_stack.status(app.name)["version"] == "v1"
    small_stack.fngw("delete", app.name)


# -- waiting ----------------------------------------------------------------------------------------------


def test_a_deploy_waits_for_room_and_can_be_given_up(own_stack, project, files, unique, wait, monkeypatch):
    monkeypatch.setenv("FNGW_MEMORY", "1GiB")
    monkeypatch.setenv("FNGW_CPUS", "2")
    with own_stack("process") as stack:
        app = project(stack)
        app.write(ENVIRONMENT)
        app.deployed(version="1", memory="700MiB", num_cpus=1.5)
        (holder,) = stack.replicas(app.name)
        folder = files({"late.py": ENVIRONMENT.replace("App", "Late")})
        words = ("deploy", "late.py", "--set", "memory=400MiB", "--set", "num_cpus=1")
        for patience in ("3", "10", "30"):  # what comes before the wait takes longer on a busy machine
            given_up = stack.fngw(*words, "--timeout", patience, check=False, cwd=folder)
            assert given_up.returncode == 1
            if "waiting for" in given_up.stderr:
                break
        missing = f"waiting for 400 MiB of memory: 324 MiB of 1 GiB free; held by {app.name} (replica {holder})"
        cpus = f"1 CPUs: 0.5 of 2 free; held by {app.name} (replica {holder})"
        assert missing in given_up.stderr and cpus in given_up.stderr
        wait(lambda: stack.status("Late")["replicas"] == [], "nothing to be left of it")
        stack.fngw(*words, "--no-wait", cwd=folder)
        wait(lambda: missing in message(stack, "Late"), "the status to say what is missing")
        stack.fngw("delete", app.name)
        wait(lambda: stack.replicas("Late"), "it to start")
        assert httpx.get(f"{stack.url}/Late", timeout=60).status_code == 200
        assert "memory: 624 MiB of 1 GiB free" in stack.fngw("gpus").stdout
        stack.fngw("delete", "Late")


def test_what_can_never_fit_is_refused_at_once(own_stack, project, inventory, monkeypatch):
    monkeypatch.setenv("FNGW_MEMORY", "1GiB")
    inventory.write_text('{"gpus": []}')
    with own_stack("process") as stack:
        app = project(stack)
        app.write(ENVIRONMENT)
        assert stack.fngw("gpus").stdout.startswith(f"no GPU: {inventory} lists none\n")
        too_much = app.deploy(memory="2GiB")
        assert (too_much["type"], too_much["code"]) == ("ValidationError", "does_not_fit")
        assert "2 GiB" in too_much["text"] and "1 GiB" in too_much["text"]
        no_gpu = app.deploy(num_gpus=1)
        assert (no_gpu["type"], no_gpu["code"]) == ("ValidationError", "no_gpu")
        assert "FNGW_GPU_INVENTORY" in no_gpu["hint"]
        assert httpx.get(f"{stack.url}/-/api/v1/deployments/{app.name}", timeout=60).status_code == 404


# -- GPUs -------------------------------------------------------------------------------------------------


def test_two_halves_share_a_gpu_and_a_third_waits(own_stack, project, files, inventory, wait):
    with own_stack("process") as stack:
        app = project(stack)
        app.write(ENVIRONMENT)
        app.deployed(version="1", num_gpus=0.5, num_replicas=2, num_cpus=3)
        assert [r["gpus"] for r in stack.status(app.name)["replicas"]] == [[GPU], [GPU]]
        env = httpx.get(f"{stack.url}/{app.name}", timeout=60).json()
        assert env == {"CUDA_VISIBLE_DEVICES": GPU, "OMP_NUM_THREADS": "3"}
        (device,) = json.loads(stack.fngw("gpus", "--json").stdout)["gpus"]
        assert [(x["deployment"], x["share"], x["memory_mib"]) for x in device["leases"]] == [
            (app.name, 0.5, 40960)
        ] * 2
        assert device["free"] == {"share": 0.0, "memory_mib": 0}
        folder = files({"late.py": ENVIRONMENT.replace("App", "Late")})
        stack.fngw("deploy", "late.py", "--set", "gpu_memory=40GiB", "--no-wait", cwd=folder)
        text = wait(lambda: "waiting" in message(stack, "Late") and message(stack, "Late"), "it to wait")
        assert f"waiting for 40 GiB of GPU memory: {GPU} is held by {app.name} (replica " in text
        assert stack.replicas("Late") == {}
        stack.fngw("scale", app.name, "1")
        wait(lambda: stack.replicas("Late"), "it to start")
        assert [r["gpus"] for r in stack.status("Late")["replicas"]] == [[GPU]]
        stack.fngw("delete", app.name, "Late")


def test_without_a_gpu_none_is_seen_and_own_variables_are_refused(process_stack, project):
    app = project(process_stack)
    app.write(ENVIRONMENT)
    app.deployed()
    env = httpx.get(f"{process_stack.url}/{app.name}", timeout=60).json()
    assert env == {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    app.deployed(env={"OMP_NUM_THREADS": "7"})
    assert httpx.get(f"{process_stack.url}/{app.name}", timeout=60).json()["OMP_NUM_THREADS"] == "7"
    with process_stack.http as http:
        spec = http.get(f"/-/api/v1/deployments/{app.name}/spec").json()["spec"]
        for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY"):
            refused = http.put(f"/-/api/v1/deployments/{app.name}", json={"spec": {**spec, "env": {name: "0"}}})
            assert refused.status_code == 422 and name in refused.json()["title"]


@pytest.fixture
def hooked_engine(wait, tmp_path):
    """A Docker engine with something in the place of NVIDIA's hook."""
    hook = tmp_path / "hook" / "nvidia-container-runtime-hook"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 0\n")
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    engine = PrivateEngine(wait, {**os.environ, "PATH": f"{hook.parent}:{os.environ['PATH']}"})
    try:
        engine.start()
        version = "py%d.%d" % sys.version_info[:2]
        engine.load(f"fngw/base:{version}", f"fngw/runtime:{version}")
        yield engine
    finally:
        engine.remove()


@pytest.mark.slow
@pytest.mark.docker
def test_a_container_gets_its_gpu_by_uuid(hooked_engine, own_stack, project, inventory, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", hooked_engine.url)
    with own_stack("docker") as stack:
        app = project(stack)
        app.write(ENVIRONMENT)
        replicas = app.deployed(version="1", num_gpus=0.25, num_replicas=2, num_cpus=2, memory="256MiB")
        assert [r["gpus"] for r in stack.status(app.name)["replicas"]] == [[GPU], [GPU]]
        for replica, pid in replicas.items():
            host = inspected(hooked_engine, f"fngw-{app.name}-{replica}")["HostConfig"]
            (request,) = host["DeviceRequests"]
            assert (request["Driver"], request["DeviceIDs"], request["Count"]) == ("nvidia", [GPU], 0)
            assert request["Capabilities"] == [["gpu", "compute", "utility"]]
            assert (host["Memory"], host["CpuShares"]) == (256 << 20, 2048)
            assert visible(pid) == GPU
        app.deployed(version="2")
        ((replica, pid),) = app.stack.replicas(app.name).items()
        assert not inspected(hooked_engine, f"fngw-{app.name}-{replica}")["HostConfig"]["DeviceRequests"]
        assert visible(pid) == "void"
        stack.fngw("delete", app.name)


@pytest.mark.docker
def test_an_engine_without_nvidias_hook_says_which_package_it_lacks(own_stack, project, inventory):
    with own_stack("docker") as stack:
        app = project(stack)
        app.write(ENVIRONMENT)
        error = app.deploy(num_gpus=1)
        assert error["code"] == "gpu_runtime_missing"
        assert "nvidia-container-toolkit" in error["hint"]
        assert "no GPU" not in stack.fngw("gpus").stdout
        (device,) = json.loads(stack.fngw("gpus", "--json").stdout)["gpus"]
        assert device["leases"] == [] and device["free"]["share"] == 1
        stack.fngw("delete", app.name)


def inspected(engine, name):
    return json.loads(engine.docker("inspect", name, check=True).stdout)[0]


def visible(pid):
    """What NVIDIA's hook would have read: only PID 1 of a container has it, not what is executed in it."""
    environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in environment if entry)["NVIDIA_VISIBLE_DEVICES"]


# -- too little memory on the host --------------------------------------------------------------------------

HOG = """
import fngw

@fngw.deployment
class App:
    async def __call__(self, request):
        body = await request.body()
        if body:
            kept = b"x" * (int(body) << 20)
        return "ok"
"""


@pytest.mark.docker
def test_a_replica_that_is_killed_for_memory_is_told_as_such(docker_stack, project, wait):
    app = project(docker_stack)
    app.write(HOG)
    app.deployed(memory="200MiB")
    replica, why = wait(lambda: killed(app), "an answer that says why")
    lost = docker_stack.status(app.name)["lost"][-1]
    assert (lost["id"], lost["code"], lost["message"]) == (replica, "out_of_memory", why)
    assert why in docker_stack.fngw("status", app.name).stdout
    wait(lambda: f"fngw: {why}" in docker_stack.logs(app.name), "the log to be kept")
    wait(lambda: docker_stack.status(app.name)["status"] == "HEALTHY", "another replica")


def killed(app):
    """Have a replica use too much; return its id and why it died, if the answer has that.

    The gateway waits a second for the reason; what a busy engine tells later is only in the status.
    """
    before = app.stack.replicas(app.name)
    answer = httpx.post(f"{app.stack.url}/{app.name}", content=b"400", timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (502, "replica_lost")
    told = {r: f"replica {r} was killed: out of memory (it may have 200 MiB)" for r in before}
    return next(((r, why) for r, why in told.items() if why in answer.json()["title"]), None)


# -- an inventory that makes no sense ----------------------------------------------------------------------


def test_an_inventory_that_makes_no_sense_is_named_where_fngw_was_started(installation, tmp_path, wait):
    path = tmp_path / "gpus.json"
    path.write_text(textwrap.dedent('{"gpus": [{"uuid": "GPU-0", "memory": "lots"}]}'))
    installation.up("process", env={"FNGW_GPU_INVENTORY": str(path)})
    told = f"FNGW_GPU_INVENTORY: {path}: gpus[0].memory: 'lots' is not a size"
    wait(lambda: told in (installation.data / "logs" / "up.log").read_text(), "the reason to be told")
    path.write_text('{"gpus": [{"uuid": "GPU-0", "memory": "1GiB"}]}')
    url = installation.held["url"]
    wait(lambda: httpx.get(f"{url}/-/api/v1/gpus", timeout=60).json()["gpus"], "it to be read once it is mended")
