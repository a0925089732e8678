"""What only the process engine promises: adoption, sessions, clean environments; and how engines are chosen."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fngw_controller.engines import _local, choose, process
from fngw_controller.engines._local_oom import OomKills
from fngw_controller.engines.base import EngineUnavailable, StartFailed
from fngw_controller.engines.process import ProcessEngine
from fngw_state.records import Artifact

from .engine_rigs import ProcessRig, eventually, next_event, read_until, seen


async def test_an_orphan_of_a_dead_controller_is_adopted(process_rig: ProcessRig) -> None:
    """Started by another process, which has ended: no child of this one, so its end is seen without its status."""
    spec = process_rig.spec()
    script = textwrap.dedent(
        """
        import asyncio, json, pathlib, sys
        from fngw_controller.engines.base import ReplicaSpec
        from fngw_controller.engines.process import ProcessEngine
        from fngw_state.records import Artifact

        data = json.loads(sys.argv[1])
        paths = {k: pathlib.Path(data[k]) for k in ("directory", "shared", "log_file")}
        spec = ReplicaSpec(**{**data, **paths, "artifact": Artifact(**data["artifact"]), "gpus": ()})
        asyncio.run(ProcessEngine(sys.argv[2], pathlib.Path(sys.argv[3])).start(spec))
        """
    )
    data = json.dumps(dataclasses.asdict(spec), default=str)
    folder = str(process_rig.folder / "processes")
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script, data, process_rig.installation, folder], check=True
    )
    await seen(spec)

    engine = process_rig.engine()
    (adopted,) = await engine.list()
    assert adopted.running and adopted.id == spec.id
    async with contextlib.aclosing(engine.events()) as events:
        assert await next_event(events) is None
        process_rig.kill(adopted)
        exited = await next_event(events)
    assert exited is not None and exited.id == spec.id
    await engine.stop(spec.id, 1)
    assert process_rig.traces(spec.id) == []


async def test_a_number_used_again_is_not_taken_for_the_replica(process_rig: ProcessRig) -> None:
    engine = process_rig.engine()
    spec = process_rig.spec()
    process_rig.kill(await engine.start(spec))
    path = process_rig.folder / "processes" / process_rig.installation / f"{spec.id}.json"
    await eventually(lambda: json.loads(path.read_text())["ended_at"], "the record of its end")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "ended_at": None, "process": {**record["process"], "pid": os.getpid()}}))
    second = process_rig.engine()
    assert [i.running for i in await second.list()] == [False]
    await second.stop(spec.id, 1)  # had it been taken for the replica, this test would not see its own end


async def test_a_replica_has_a_session_of_its_own(process_rig: ProcessRig) -> None:
    instance = await process_rig.engine().start(process_rig.spec())
    assert instance.pid
    assert os.getsid(instance.pid) == os.getpgid(instance.pid) == instance.pid


async def test_children_do_not_outlive_their_replica(process_rig: ProcessRig) -> None:
    engine = process_rig.engine()
    spec = process_rig.spec()
    instance = await engine.start(spec)
    process_rig.order(spec, "child")
    text = await read_until(engine.logs(spec.id, tail=None, since=None, follow=True), b"child ")
    child = _local.identify(int(text.rpartition(b"child ")[2].split()[0]))
    assert child is not None and _local.alive(child)
    process_rig.kill(instance)
    await eventually(lambda: not _local.alive(child), "the child's end")


async def test_a_deaf_replica_is_killed_when_its_time_is_up(process_rig: ProcessRig) -> None:
    engine = process_rig.engine()
    spec = process_rig.spec()
    await engine.start(spec)
    process_rig.order(spec, "deaf")
    await read_until(engine.logs(spec.id, tail=None, since=None, follow=True), b"deaf")
    await engine.stop(spec.id, 0.2)
    assert process_rig.traces(spec.id) == []


async def test_ends_are_seen_without_pidfd_too(process_rig: ProcessRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    engine = process_rig.engine()
    spec = process_rig.spec()
    instance = await engine.start(spec)
    async with contextlib.aclosing(engine.events()) as events:
        assert await next_event(events) is None
        process_rig.kill(instance)
        exited = await next_event(events)
    assert exited is not None and exited.exit_code == 137


@pytest.mark.parametrize(("kills", "oom"), [([3, 4], True), ([3, 3], False)])
async def test_out_of_memory_is_told_where_the_kernel_has_just_killed_for_it(
    process_rig: ProcessRig, monkeypatch: pytest.MonkeyPatch, kills: list[int], oom: bool
) -> None:
    before, after = kills
    counted = [before]
    monkeypatch.setattr(process, "OomKills", lambda: OomKills(lambda: counted[0]))
    engine = process_rig.engine()
    spec = process_rig.spec()
    instance = await engine.start(spec)
    async with contextlib.aclosing(engine.events()) as events:
        assert await next_event(events) is None
        counted[0] = after
        process_rig.kill(instance)
        exited = await next_event(events)
    assert exited is not None and (exited.exit_code, exited.oom) == (137, oom)
    monkeypatch.undo()
    assert [i.oom for i in await process_rig.engine().list()] == [oom]


async def test_the_environment_is_clean(process_rig: ProcessRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CONTROLLER", "x")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    spec = process_rig.spec(env={"MODEL": "large", "NVIDIA_VISIBLE_DEVICES": "all", "CUDA_VISIBLE_DEVICES": "0,1"})
    await process_rig.engine().start(spec)
    env = (await seen(spec))["env"]
    assert "SECRET_OF_THE_CONTROLLER" not in env and "NVIDIA_VISIBLE_DEVICES" not in env
    assert env["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert env["MODEL"] == "large"
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert env["FNGW_REPLICA_DIR"] == str(spec.directory)


async def test_gpus_are_given_by_uuid(process_rig: ProcessRig) -> None:
    spec = process_rig.spec(gpus=("GPU-1", "MIG-2"))
    instance = await process_rig.engine().start(spec)
    assert (await seen(spec))["env"]["CUDA_VISIBLE_DEVICES"] == "GPU-1,MIG-2"
    assert instance.gpus == ("GPU-1", "MIG-2")


async def test_the_runtime_is_importable_from_another_interpreter(process_rig: ProcessRig) -> None:
    """A bare virtual environment has nothing installed, and still finds fngw; but none of this one's packages."""
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "venv", "--without-pip", process_rig.folder / "env"], check=True
    )
    python = process_rig.folder / "env" / "bin" / "python"
    artifact = Artifact(image="", python=str(python), app_dir=str(process_rig.folder))
    spec = process_rig.spec(artifact=artifact)
    await process_rig.engine().start(spec)
    found = await seen(spec)
    check = "import fngw.protocol, fngw_runtime, importlib.util as u; assert not u.find_spec('aiohttp')"
    await asyncio.to_thread(subprocess.run, [python, "-c", check], env=found["env"], check=True)
    assert found["env"]["PATH"].startswith(str(python.parent))


@pytest.mark.parametrize("gone", ["python", "app_dir"])
async def test_what_is_gone_is_named(process_rig: ProcessRig, gone: str) -> None:
    artifact = dataclasses.replace(process_rig.artifact, **{gone: "/no/such/thing"})
    with pytest.raises(StartFailed, match="/no/such/thing") as caught:
        await process_rig.engine().start(process_rig.spec(artifact=artifact))
    assert caught.value.code == {"python": "interpreter_missing", "app_dir": "code_missing"}[gone]


async def test_a_state_file_cut_short_counts_as_gone(process_rig: ProcessRig) -> None:
    engine = process_rig.engine()
    spec = process_rig.spec()
    await engine.start(spec)
    await engine.stop(spec.id, 0)
    (process_rig.folder / "processes" / process_rig.installation / "cut.json").write_text('{"id":')
    assert await engine.list() == []


# -- choosing ---------------------------------------------------------------------------------------------


async def test_auto_falls_back_to_processes_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    engine = await choose("auto", installation="x", run_dir=tmp_path)
    assert isinstance(engine, ProcessEngine)
    detail = (await engine.check()).detail
    assert "without isolation" in detail and "none.sock" in detail
    await engine.close()


async def test_docker_asked_for_and_away_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineUnavailable, match="--engine process"):
        await choose("docker", installation="x", run_dir=tmp_path)


async def test_processes_asked_for_do_not_look_for_docker(tmp_path: Path) -> None:
    engine = await choose("process", installation="x", run_dir=tmp_path)
    assert (engine.name, (await engine.check()).detail.count("(")) == ("process", 0)
    await engine.close()
