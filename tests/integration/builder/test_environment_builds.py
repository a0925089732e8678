"""Whole builds of deployments with dependencies: real packages, a real engine, real interpreters."""

from __future__ import annotations

import dataclasses
import gc
import io
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest
from tests.channel.serve import FaultyServer
from tests.private_engine import PrivateEngine

from fngw.errors import BuildFailed, from_problem
from fngw_builder import jobs
from fngw_builder.container_compiler import ContainerCompiler
from fngw_builder.environment import bytecode
from fngw_builder.environment.bytecode_cache import CachingCompiler
from fngw_builder.settings import BuilderSettings
from fngw_state import builds, keys
from fngw_state.records import BuildRequest

pytestmark = pytest.mark.docker

VERSION = "%d.%d" % sys.version_info[:2]


@pytest.fixture(scope="module")
def ground(engine: docker.DockerClient) -> Iterator[str]:
    """As ``base``, for environments; it stands on fngw/base."""
    word = secrets.token_hex(4)
    recipe = f"FROM fngw/base:py{VERSION}\nLABEL org.fngw.test={word}\n"
    engine.images.build(fileobj=io.BytesIO(recipe.encode()), tag=f"fngw-test-{word}/base:py{VERSION}", rm=True)
    yield f"fngw-test-{word}/base:py{{python}}"
    for image in engine.images.list(filters={"label": f"org.fngw.test={word}"}):
        engine.images.remove(image.id, force=True)


@pytest.fixture
def settings(ground: str, layout: Any) -> BuilderSettings:
    return BuilderSettings(base_image=ground, data_dir=layout.data, run_dir=layout.run)


@pytest.fixture
def wants(client: Any, channel: FaultyServer) -> Any:
    """Requests for sources that no other test has, with packages of the tests' own channel and index."""
    unique = secrets.token_hex(8)

    def wants(*packages: str, text: str = "x = 1\n", engine: str = "docker", pip: tuple[str, ...] = ()) -> Any:
        """``packages`` of conda, ``pip`` of the index."""
        bundle = client.bundle({"main.py": text, "unique.txt": unique})
        conda = {"channels": [channel.conda_url], "dependencies": list(packages)} if packages else None
        lines = ("--index-url " + channel.index_url, *pip) if pip else None
        return BuildRequest(engine, VERSION, bundle, conda, lines)

    return wants


def said_by(image: str, code: str, engine: docker.DockerClient) -> str:
    """What a container of an image prints."""
    python = ["/opt/fngw/env/bin/python", "-c"]
    return engine.containers.run(
        image, entrypoint=python, command=[code], network_mode="none", remove=True
    ).decode()


def said_locally(python: str, code: str) -> str:
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout


ANSWER = "import legacylib, uvicorn, starlette, cloudpickle, redis; print(legacylib.answer())"


def test_conda_and_pip_together(settings: Any, wants: Any, report: Any, engine: docker.DockerClient) -> None:
    made = jobs.make(wants("legacylib=1.15", pip=("pip-greeter",)), settings, report)
    code = ANSWER + "; import pip_greeter, sys; print(sys.prefix)"
    assert said_by(made.artifact.image, code, engine).splitlines() == ["old", "/opt/fngw/env"]
    assert said_by(made.artifact.image, "import fngw_runtime, main; print(main.x)", engine) == "1\n"
    assert [layer.what for layer in made.layers] == ["base", "environment", "code"]
    assert made.artifact.environment.startswith("fngw/env:")
    lock = json.loads(settings.layout.lock(made.artifact.lock).read_text())
    assert {"legacylib", "python"} <= {package["name"] for package in lock["conda"]}
    assert all(len(package["sha256"]) == 64 for package in lock["conda"])
    assert "http" not in json.dumps([package for package in lock["conda"] if "channel" not in package])


def test_pip_alone_lies_on_the_base(settings: Any, wants: Any, report: Any, engine: docker.DockerClient) -> None:
    made = jobs.make(wants(pip=("pip-greeter",)), settings, report)
    code = "import sys, pip_greeter, uvicorn; print(sys.prefix, sys.base_prefix); print(pip_greeter.__cached__)"
    prefixes, cached = said_by(made.artifact.image, code, engine).splitlines()
    assert prefixes.startswith("/opt/fngw/env ") and not prefixes.endswith("/opt/fngw/env")
    assert cached.endswith(".pyc")
    check = "import os, sys; os._exit(0 if os.path.exists(sys.argv[1]) else 1)"
    python = ["/opt/fngw/env/bin/python", "-c", check, cached]
    engine.containers.run(made.artifact.image, entrypoint=python, network_mode="none", remove=True)


def test_a_change_of_the_code_reuses_the_environment(settings: Any, wants: Any, report: Any, channel: Any) -> None:
    first = jobs.make(wants("legacylib=1.15"), settings, report)
    channel.forget()
    second = jobs.make(wants("legacylib=1.15", text="x = 2\n"), settings, report)
    assert not second.reused and second.artifact.image != first.artifact.image
    assert second.artifact.environment == first.artifact.environment
    assert {layer.what: layer.reused for layer in second.layers}["environment"]
    assert any(line.startswith("reused environment ") for line in report.lines)
    assert channel.count() == 0, "something was asked of the channel again"


def test_the_same_lock_is_the_same_image_on_another_machine(
    settings: Any, wants: Any, report: Any, ground: str, wait_for: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Two engines, two data directories with empty caches."""
    request = wants("legacylib=1.15", pip=("pip-greeter",))
    here = jobs.make(request, settings, report)
    elsewhere = PrivateEngine(lambda condition, what: wait_for(what, condition))
    try:
        elsewhere.start()
        elsewhere.load(ground.format(python=VERSION))
        monkeypatch.setenv("DOCKER_HOST", elsewhere.url)
        other = settings.model_copy(update={"data_dir": tmp_path / "other"})
        other.layout.create()
        for path in (settings.layout.blob(request.bundle), settings.layout.lock(here.artifact.lock)):
            copy = other.layout.data / path.relative_to(settings.layout.data)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
        there = jobs.make(dataclasses.replace(request, lock=here.artifact.lock), other, report)
    finally:
        elsewhere.remove()
    assert not there.reused
    assert there.artifact == here.artifact
    assert [layer.digest for layer in there.layers] == [layer.digest for layer in here.layers]


def test_both_engines_build_from_one_lock(settings: Any, wants: Any, report: Any) -> None:
    image = jobs.make(wants("legacylib=1.15"), settings, report).artifact
    folder = jobs.make(wants("legacylib=1.15", engine="process"), settings, report).artifact
    assert folder.lock == image.lock
    assert said_locally(folder.python, ANSWER) == "old\n"
    assert folder.python == f"{folder.environment}/bin/python"
    again = jobs.make(wants("legacylib=1.15", engine="process"), settings, report)
    assert again.reused and again.artifact == folder


def test_pip_alone_on_this_machine(settings: Any, wants: Any, report: Any) -> None:
    artifact = jobs.make(wants(pip=("pip-greeter",), engine="process"), settings, report).artifact
    code = "import pip_greeter, uvicorn, sys; print(sys.prefix)"
    assert said_locally(artifact.python, code).strip() == artifact.environment
    assert said_locally(f"{artifact.environment}/bin/pip-greeter".replace("bin/pip-greeter", "bin/python"), code)


def test_wheels_from_a_folder_of_the_bundle(settings: Any, client: Any, channel_tree: Any, report: Any) -> None:
    wheels = {f"wheels/{path.name}": path.read_bytes() for path in (channel_tree.root / "files").glob("*.whl")}
    lines = ("--no-index", "--find-links ./wheels", "pip-greeter")
    request = BuildRequest("process", VERSION, client.bundle({"main.py": "x = 1\n", **wheels}), None, lines)
    made = jobs.make(request, settings, report)
    assert (
        said_locally(made.artifact.python, "import pip_greeter; pip_greeter.main()") == "hello from pip-greeter\n"
    )


def test_settings_of_a_project_around_the_data_are_not_ours(settings: Any, wants: Any, report: Any) -> None:
    (settings.data_dir / "uv.toml").write_text('index-url = "http://127.0.0.1:9/"\nno-index = true\n')
    assert jobs.make(wants(pip=("pip-greeter",), engine="process"), settings, report).artifact.python
    assert not list(settings.layout.cache.glob("stage/*"))


def test_conflicting_versions_side_by_side(settings: Any, wants: Any, report: Any) -> None:
    said = [
        said_locally(jobs.make(wants(spec, engine="process"), settings, report).artifact.python, ANSWER)
        for spec in ("legacylib=1.15", "legacylib=2.3")
    ]
    assert said[0] == "old\n" and said[1] != "old\n"


def test_upgrading_solves_anew_and_once(settings: Any, wants: Any, report: Any, channel: Any) -> None:
    request = wants("legacylib", engine="process")
    first = jobs.make(request, settings, report).artifact
    channel.forget()
    upgraded = dataclasses.replace(request, upgrade="today")
    assert jobs.make(upgraded, settings, report).artifact.lock == first.lock
    assert channel.count() > 0, "nothing was asked"
    channel.forget()
    jobs.make(upgraded, settings, report)
    jobs.make(request, settings, report)
    assert channel.count() == 0, "the same word asked twice"


def test_a_lock_that_is_lost_says_how_to_get_another(settings: Any, wants: Any, report: Any) -> None:
    with pytest.raises(BuildFailed) as caught:
        jobs.make(dataclasses.replace(wants("legacylib"), lock="sha256:" + "0" * 64), settings, report)
    assert caught.value.code == "lock_missing"
    assert "--upgrade" in caught.value.hint


def test_ten_deploys_of_one_environment_build_it_once(
    client: Any, start_builder: Any, wants: Any, channel: Any
) -> None:
    start_builder(FNGW_BUILDS="10")
    asked = [client.ask(wants("legacylib=1.15", text=f"x = {n}\n", engine="process")) for n in range(10)]
    made = [client.result(key, deadline_s=60).artifact for key in asked]
    assert len({artifact.environment for artifact in made}) == 1
    assert len({artifact.app_dir for artifact in made}) == 10
    assert channel.count("conda/*/legacylib-1.15*") == 1


def test_a_cancelled_build_stops_and_leaves_nothing(
    client: Any, start_builder: Any, wants: Any, channel: Any, wait_for: Any, layout: Any
) -> None:
    builder = start_builder()
    channel.delay("conda/*.conda", seconds=30)
    key = client.ask(request := wants("legacylib=1.15", engine="process"))
    wait_for("a download", lambda: channel.count("conda/*.conda"))
    builds.cancel(client.connection, key)
    assert from_problem(client.result(key).error).code == "build_cancelled"
    wait_for("its processes to be gone", lambda: not builder.horses())
    assert not list(layout.cache.glob("stage/*"))
    assert not layout.envs.exists() or not list(layout.envs.iterdir())
    channel.heal()
    assert client.build(request, deadline_s=60).artifact


def test_a_build_that_is_killed_in_the_middle_can_be_had_again(
    client: Any, start_builder: Any, wants: Any, channel: Any, wait_for: Any, layout: Any
) -> None:
    builder = start_builder()
    channel.throttle("conda/*python-3*", bytes_per_s=2**20)
    request = wants("legacylib=1.15", engine="process")
    key = client.ask(request)
    wait_for("a download", lambda: channel.count("conda/*python-3*"))
    (horse,) = builder.horses()
    os.killpg(horse, signal.SIGKILL)
    assert from_problem(client.result(key).error).code == "build_killed"
    channel.heal()
    assert client.build(request, deadline_s=60).artifact
    assert not list(layout.cache.glob("stage/*"))


def test_progress_is_told(client: Any, start_builder: Any, wants: Any, connection: Any) -> None:
    start_builder()
    key = client.build(wants("legacylib=1.15", engine="process"), deadline_s=60).key
    told = {step["step"]: step for step in json.loads(connection.get(keys.BUILD_PROGRESS + key))}
    assert list(told)[:2] == ["solve", "download"]
    assert list(told)[-1] == "compile"
    assert told["download"]["done"] == told["download"]["total"] > 1_000_000, "no step's end is missed"
    assert told["compile"]["done"] == told["compile"]["total"] > 100


def test_an_engine_that_dies_during_a_load(
    settings: Any, wants: Any, report: Any, ground: str, wait_for: Any, monkeypatch: Any
) -> None:
    elsewhere = PrivateEngine(lambda condition, what: wait_for(what, condition))
    try:
        elsewhere.start()
        elsewhere.load(ground.format(python=VERSION))
        monkeypatch.setenv("DOCKER_HOST", elsewhere.url)

        class Deadly(type(report)):  # type: ignore[misc]
            def progress(self, step: str, done: Any = None, total: Any = None, unit: str = "") -> None:
                super().progress(step, done, total, unit)
                if step == "load" and not elsewhere.killed:
                    elsewhere.kill()

        with pytest.raises(BuildFailed) as caught:
            jobs.make(wants("legacylib=1.15"), settings, Deadly())
        assert caught.value.code == "engine_unreachable"
        elsewhere.start()
        assert jobs.make(wants("legacylib=1.15"), settings, report).artifact.image
    finally:
        elsewhere.remove()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # docker-py leaves its sockets open
def test_an_engine_that_dies_during_a_compilation(
    settings: Any, report: Any, ground: str, wait_for: Any, tmp_path: Path
) -> None:
    elsewhere = PrivateEngine(lambda condition, what: wait_for(what, condition))
    try:
        elsewhere.start()
        elsewhere.load(ground.format(python=VERSION))

        class Deadly(type(report)):  # type: ignore[misc]
            def progress(self, step: str, done: Any = None, total: Any = None, unit: str = "") -> None:
                if done and not elsewhere.killed:
                    elsewhere.kill()

        with closing(docker.DockerClient(elsewhere.url)) as engine:
            image = engine.images.get(ground.format(python=VERSION))
            compiler = ContainerCompiler(engine.api, image.id, image.labels["org.fngw.interpreter"], Deadly())
            with pytest.raises(BuildFailed, match="the Docker engine does not answer"):
                compiler.compile(library(tmp_path), "/opt/fngw/env")
        gc.collect()
    finally:
        elsewhere.remove()


def library(stage: Path) -> Path:
    """Return a stage with modules enough for several parts."""
    folder = stage / "lib" / f"python{VERSION}"
    folder.mkdir(parents=True)
    for name in "abcdefgh":
        (folder / f"{name}.py").write_text("x = 1\n" * 50_000)
    return stage


def test_a_base_that_was_removed_is_made_again(
    settings: Any, wants: Any, report: Any, engine: docker.DockerClient
) -> None:
    first = jobs.make(wants("legacylib=1.15"), settings, report).artifact
    for image in (first.ref, first.environment):
        engine.images.remove(image, force=True)
    again = jobs.make(wants("legacylib=1.15"), settings, report)
    assert not again.reused
    assert again.artifact == first


def test_byte_code_that_is_kept_makes_the_same_image(
    settings: Any, wants: Any, report: Any, engine: docker.DockerClient, monkeypatch: Any
) -> None:
    request, made = wants(pip=("pip-greeter", "pip-legacylib==1.15.0")), []  # what no other test has
    for compiles in (True, False):
        if not compiles:
            monkeypatch.setattr(ContainerCompiler, "compile", None)
        made.append(jobs.make(request, settings, report))
        for image in (made[-1].artifact.ref, made[-1].artifact.environment):
            engine.images.remove(image, force=True)
    assert not made[1].reused
    assert made[0].artifact == made[1].artifact


def test_nothing_is_left_of_the_draft(
    settings: Any, wants: Any, report: Any, engine: docker.DockerClient, monkeypatch: Any
) -> None:
    """The packages without their byte-code, an image of their own for a while."""

    def fails(*_: object) -> None:
        raise bytecode.failure("on purpose")

    request, noted = wants(pip=("pip-greeter", "pip-legacylib==2.3.0")), []  # what no other test has
    with monkeypatch.context() as patch, pytest.raises(BuildFailed) as failed:
        patch.setattr(CachingCompiler, "compile", fails)
        jobs.make(request, settings, report, noted.append)
    assert failed.value.code == "compile_failed"
    jobs.make(request, settings, report, noted.append)
    drafts = [tag for tag in noted if tag.startswith("fngw/draft-")]
    assert len(set(drafts)) == 2
    assert not [tag for tag in drafts if engine.images.list(tag)]


def test_an_interpreter_that_fails_leaves_no_container(
    ground: str, report: Any, engine: docker.DockerClient, tmp_path: Path, wait_for: Any, monkeypatch: Any
) -> None:
    image = engine.images.get(ground.format(python=VERSION))
    monkeypatch.setattr("fngw_builder.container_compiler.JOBS", 0)  # it waits for children that it does not have
    compiler = ContainerCompiler(engine.api, image.id, image.labels["org.fngw.interpreter"], report)
    with pytest.raises(BuildFailed) as failed:
        compiler.compile(library(tmp_path), "/opt/fngw/env")
    assert failed.value.code == "compile_failed"
    assert "ChildProcessError" in failed.value.detail
    left = {"ancestor": image.id, "label": "org.fngw.role=compile"}
    wait_for("the container's end", lambda: not engine.api.containers(all=True, filters=left))


def test_cuda_without_a_driver_warns(settings: Any, wants: Any, report: Any) -> None:
    settings = settings.model_copy(update={"cuda": "12.4"})
    jobs.make(wants("tensorlib", engine="process"), settings, report)
    assert [line for line in report.lines if line.startswith("warning: tensorlib is made for CUDA 12.4")]


def test_a_registry_keeps_what_was_built(
    settings: Any, wants: Any, report: Any, registry: str, engine: docker.DockerClient, channel: Any, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"registry": registry})
    first = jobs.make(wants("legacylib=1.15"), settings, report).artifact
    assert len([line for line in report.lines if line.startswith("pushed ")]) == 2
    whole = report.steps["push"][1]

    report.steps.clear()
    second = jobs.make(wants("legacylib=1.15", text="x = 2\n"), settings, report).artifact
    assert report.steps["push"][1] < whole / 100, "what the registry had travelled again"

    for image in (first.ref, second.ref, first.environment):
        engine.images.remove(image, force=True)
    channel.forget()
    again = jobs.make(wants("legacylib=1.15"), settings, report)
    assert again.reused and again.artifact == first
    assert len([line for line in report.lines if line.startswith("pulled ")]) == 2
    assert channel.count() == 0
    assert not [tag for tag in engine.images.get(first.image).tags if tag.startswith("127.")]


def test_a_registry_that_does_not_answer(settings: Any, wants: Any, report: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:%d" % taken.getsockname()[1]
    with pytest.raises(BuildFailed) as caught:
        jobs.make(wants("legacylib=1.15"), settings.model_copy(update={"registry": f"{address}/fngw"}), report)
    assert caught.value.code == "registry_failed"
    assert "docker login" in caught.value.hint
