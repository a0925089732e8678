"""Image configurations and archives as data, and what the engine's errors become."""

from __future__ import annotations

import errno
import gc
import io
import json
import tarfile
from typing import Any

import pytest
from docker.errors import APIError, DockerException
from rq.timeouts import JobTimeoutException

from fngw.errors import BuildFailed
from fngw_builder import images, jobs
from fngw_builder.code_layer import Layer
from fngw_builder.image_archive import Image, archive, configuration, image_id

INSPECTED = {
    "Id": "sha256:base",
    "Architecture": "arm64",
    "Variant": "v8",
    "Os": "linux",
    "Created": "2020-01-01T00:00:00Z",
    "Container": "0123",
    "Config": {
        "Hostname": "build-host",
        "User": "65532:65532",
        "Env": ["PATH=/bin"],
        "Cmd": None,
        "Entrypoint": ["/opt/fngw/env/bin/python", "-m", "fngw_runtime"],
        "WorkingDir": "/srv/fngw/app",
        "Labels": {"org.fngw.role": "runtime", "org.fngw.python": "3.11"},
    },
    "RootFS": {"Type": "layers", "Layers": ["sha256:l1", "sha256:l2"]},
}
BASE = Image.from_inspect(INSPECTED)
LABELS = {"org.fngw.role": "app"}


def test_the_configuration_as_a_whole() -> None:
    assert json.loads(configuration(BASE, ["sha256:new"], LABELS)) == {
        "architecture": "arm64",
        "variant": "v8",
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": "65532:65532",
            "Env": ["PATH=/bin"],
            "Entrypoint": ["/opt/fngw/env/bin/python", "-m", "fngw_runtime"],
            "WorkingDir": "/srv/fngw/app",
            "Labels": {"org.fngw.role": "app", "org.fngw.python": "3.11"},
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:l1", "sha256:l2", "sha256:new"]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "fngw"}] * 3,
    }


@pytest.mark.parametrize("size", [0, 1, 512, 3_000_001])
def test_the_archive_names_all_layers_and_holds_one(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    layer = Layer(io.BytesIO(data[:size]), size, "sha256:new", 1)
    config = configuration(BASE, [layer.diff_id], LABELS)
    whole = b"".join(archive(config, [layer], below=2, tag="fngw/app:k"))
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        held = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    name = image_id(config).partition(":")[2] + ".json"
    assert held[name] == config
    assert held["new-0/layer.tar"] == data[:size]
    assert json.loads(held["manifest.json"]) == [
        {
            "Config": name,
            "RepoTags": ["fngw/app:k"],
            "Layers": ["absent-0/layer.tar", "absent-1/layer.tar", "new-0/layer.tar"],
        }
    ]
    assert set(held) == {name, "new-0/layer.tar", "manifest.json"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (APIError("500 Server Error", explanation="write /x: no space left on device"), "disk_full"),
        (APIError("500 Server Error", explanation="something broke"), "engine_error"),
        (DockerException("Error while fetching server API version"), "engine_unreachable"),
        (ConnectionResetError("reset"), "engine_unreachable"),
    ],
)
def test_what_the_engine_raises(error: Exception, code: str) -> None:
    with pytest.raises(BuildFailed) as caught, images.translated():
        raise error
    assert caught.value.code == code
    assert caught.value.hint
    assert str(getattr(error, "explanation", None) or error) in caught.value.detail


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # docker-py leaves its socket open
def test_no_engine(monkeypatch: Any) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    assert code_of_connecting() == "engine_unreachable"
    gc.collect()


def code_of_connecting() -> str:
    try:
        with images.engine(timeout_s=5):
            return "connected"
    except BuildFailed as error:
        return error.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BuildFailed("x", code="mine"), "mine"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (JobTimeoutException("Task exceeded"), "build_timeout"),
        (ZeroDivisionError("oops"), "build_crashed"),
    ],
)
def test_every_exception_becomes_an_error_with_a_code(error: Exception, code: str) -> None:
    assert jobs.as_failure(error).code == code


def test_a_crash_carries_its_traceback() -> None:
    try:
        raise KeyError("deep inside")
    except KeyError as error:
        failure = jobs.as_failure(error)
    assert "test_a_crash_carries_its_traceback" in failure.detail
    assert "KeyError: 'deep inside'" in failure.message
