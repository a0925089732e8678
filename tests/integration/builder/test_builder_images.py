"""Images made by a real engine."""

from __future__ import annotations

import dataclasses
import io
import secrets
from typing import Any

import docker
import pytest
from docker.errors import ImageNotFound

from fngw.errors import BuildFailed, from_problem
from fngw_builder import code_layer, images, jobs, plan
from fngw_builder.settings import BuilderSettings
from fngw_state.records import BuildRequest

pytestmark = pytest.mark.docker


@pytest.fixture
def settings(base: str, layout: Any) -> BuilderSettings:
    return BuilderSettings(runtime_image=base, data_dir=layout.data, run_dir=layout.run)


@pytest.fixture
def request_of(client: Any) -> Any:
    """A request for sources that no other test has."""
    unique = secrets.token_hex(8)

    def request_of(text: str = "x = 1\n", python: str = "3.11") -> BuildRequest:
        return BuildRequest("docker", python, client.bundle({"main.py": text, "unique.txt": unique}))

    return request_of


def test_the_same_input_is_the_same_image(
    client: Any, start_builder: Any, request_of: Any, base: str, engine: docker.DockerClient
) -> None:
    start_builder(FNGW_RUNTIME_IMAGE=base)
    first = client.build(request_of())
    assert not first.reused
    again = client.build(request_of())
    assert again.reused
    engine.images.remove(first.artifact.image, force=True)
    anew = client.build(request_of())
    assert not anew.reused
    assert first.artifact == again.artifact == anew.artifact
    assert first.artifact.ref.startswith("fngw/app:")


def test_a_change_of_the_code_is_one_new_layer(
    settings: BuilderSettings, request_of: Any, base: str, engine: docker.DockerClient, report: Any
) -> None:
    below = engine.images.get(base.format(python="3.11")).attrs["RootFS"]["Layers"]
    made = [jobs.make(request_of(text), settings, report).artifact for text in ("x = 1\n", "x = 2\n")]
    layers = [engine.images.get(artifact.image).attrs["RootFS"]["Layers"] for artifact in made]
    assert layers[0][:-1] == layers[1][:-1] == below
    assert layers[0][-1] != layers[1][-1]


def test_a_container_runs_as_the_base_says_and_sees_the_code(
    settings: BuilderSettings, request_of: Any, engine: docker.DockerClient, report: Any
) -> None:
    artifact = jobs.make(request_of("print('from main')\n"), settings, report).artifact
    said = engine.containers.run(
        artifact.image,
        entrypoint=["/opt/fngw/env/bin/python", "-c"],
        command=["import main, os; print(os.getcwd(), os.getuid(), os.access(main.__file__, os.W_OK))"],
        network_mode="none",
        remove=True,
    )
    assert said.decode().splitlines() == ["from main", "/srv/fngw/app 65532 False"]
    config = engine.images.get(artifact.image).attrs["Config"]
    assert config["Entrypoint"] == ["/opt/fngw/env/bin/python", "-m", "fngw_runtime"]
    assert config["Labels"]["org.fngw.role"] == "app"
    assert config["Labels"]["org.fngw.python"] == "3.11"


def test_a_missing_base_image_names_another(settings: BuilderSettings, request_of: Any, report: Any) -> None:
    with pytest.raises(BuildFailed) as caught:
        jobs.make(request_of(python="3.12"), settings, report)
    assert caught.value.code == "base_image_missing"
    assert caught.value.hint == 'make images PYTHON=3.12, or deploy with python="3.11"'


def test_no_engine_is_an_answer(client: Any, start_builder: Any, request_of: Any) -> None:
    start_builder(DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert from_problem(client.build(request_of()).error).code == "engine_unreachable"


def test_a_build_asked_for_twice_is_made_once(client: Any, start_builder: Any, request_of: Any, base: str) -> None:
    request = request_of()
    client.ask(request)
    key = client.ask(request)
    builders = [start_builder(FNGW_RUNTIME_IMAGE=base) for _ in range(2)]
    assert client.result(key).artifact
    lines = client.log(key)
    assert len([line for line in lines if line.startswith("image ")]) == 1
    assert all(builder.process.poll() is None for builder in builders)


def test_a_tag_that_was_moved_is_not_taken_for_the_image(
    settings: BuilderSettings, request_of: Any, base: str, engine: docker.DockerClient, report: Any
) -> None:
    artifact = jobs.make(request_of(), settings, report).artifact
    engine.images.remove(artifact.image, force=True)
    engine.images.get(base.format(python="3.11")).tag(artifact.ref)
    anew = jobs.make(request_of(), settings, report)
    assert not anew.reused
    assert anew.artifact == artifact


def test_an_engine_that_takes_no_partial_archive(
    settings: BuilderSettings, request_of: Any, client: Any, base: str, engine: docker.DockerClient, report: Any
) -> None:
    """The layers that the archive leaves out are not there: then the engine refuses it as others always do."""
    bundle = client.layout.blob(request_of("print('committed')\n").bundle)
    with images.engine(settings.engine_timeout_s) as connected:
        found = connected.find(base.format(python="3.11"))
        assert found is not None
        layer = code_layer.write(bundle, "/srv/fngw/app", io.BytesIO())
        unknown = dataclasses.replace(found, layers=(*found.layers, "sha256:" + secrets.token_hex(32)))
        image = connected.add(unknown, [layer], plan.app(secrets.token_hex(16), "fngw/runtime", found.id), report)
    assert report.lines == ["the engine takes no partial archive; committing a container instead"]
    assert len(image.layers) == len(found.layers) + 1
    assert image.config["Entrypoint"] == found.config["Entrypoint"]
    assert image.config["User"] == found.config["User"]
    assert image.config.get("Cmd") == found.config.get("Cmd")
    assert image.labels["org.fngw.role"] == "app"
    command = {"entrypoint": ["/opt/fngw/env/bin/python", "main.py"], "network_mode": "none", "remove": True}
    assert engine.containers.run(image.id, **command) == b"committed\n"
    assert engine.containers.list(all=True, filters={"ancestor": found.id}) == []


def test_what_is_not_there_is_not_found(engine: docker.DockerClient) -> None:
    name = f"fngw/app:{secrets.token_hex(16)}"
    with images.engine(30) as connected:
        assert connected.find(name) is None
    with pytest.raises(ImageNotFound):
        engine.images.get(name)
