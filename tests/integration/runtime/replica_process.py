"""A replica as the tests run it: a real process, on a real socket, from a real ``replica.json``."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import httpx

from fngw import protocol
from fngw.protocol import ReplicaConfig

ROOT = Path(__file__).resolve().parents[3]
APPS = Path(__file__).parent / "apps"
HERE = "%d.%d" % sys.version_info[:2]

DEFAULT = ReplicaConfig(
    replica_id="r1",
    deployment="tested",
    version=None,
    generation=1,
    app_dir=str(APPS),
    shared_dir="/run/fngw/shared",
    target="functions:hello",
    pickle=None,
    is_class=False,
    python=HERE,
    init=False,
    route_prefix="/tested",
    user_config=None,
    config_revision=7,
    max_concurrent_queries=10,
    graceful_shutdown_wait_loop_s=0.2,
    graceful_shutdown_timeout_s=60,
)


def eventually(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Poll until ``condition`` is truthy; return what it is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {what}")


def runtime_variables(directory: Path) -> dict[str, str]:
    """The environment that a replica process is started with."""
    paths = f"{ROOT / 'sdk'}:{ROOT / 'runtime-image'}"
    return {"PYTHONPATH": paths, protocol.REPLICA_DIR_VARIABLE: str(directory)}


class ReplicaProcess:
    """One replica process and a client on its socket.

    Args:
        directory: the replica's own.
        target: what it runs.
        init: the constructor's ``(args, kwargs)``, or their pickle.
        env: further variables.
        interpreter: the Python to run on.
        config: changes to ``DEFAULT``.
    """

    def __init__(
        self,
        directory: Path,
        target: str,
        init: Any = None,
        env: Any = None,
        interpreter: str = sys.executable,
        **config: Any,
    ) -> None:
        self.directory = directory
        self.socket = directory / protocol.SOCKET_FILE
        directory.mkdir(exist_ok=True)
        if init is not None:
            pickled = init if isinstance(init, bytes) else cloudpickle.dumps(init)
            (directory / protocol.INIT_FILE).write_bytes(pickled)
        changes = {"target": target, "init": init is not None, **config}
        values = dataclasses.replace(DEFAULT, **changes).to_dict()
        (directory / protocol.CONFIG_FILE).write_text(json.dumps(values))
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [interpreter, "-m", "fngw_runtime"],
                env={**os.environ, **(env or {}), **runtime_variables(directory)},
                cwd="/",
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://replica", timeout=60
        )

    def ready(self) -> httpx.Response:
        """Wait for the socket, then for the end of construction."""
        eventually(lambda: self.socket.exists() or self.process.poll() is not None, "the socket is bound")
        return self.client.get(protocol.READY_PATH)

    def get(self, path: str = "/tested", **options: Any) -> httpx.Response:
        """Ask as the gateway does for a user."""
        return self.request("GET", path, **options)

    def request(self, method: str, path: str, prefix: str = "/tested", **options: Any) -> httpx.Response:
        headers = {protocol.ROOT_PATH_HEADER: prefix, **options.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **options)

    def stream(self, path: str, **options: Any) -> Any:
        headers = {protocol.ROOT_PATH_HEADER: "/tested"}
        return self.client.stream("GET", path, headers=headers, **options)

    def call(self, method: str, *args: Any, pickle_protocol: int = protocol.BEST_PICKLE, **kwargs: Any) -> Any:
        """Call by handle; return the result, or the dict of an error frame."""
        body = b"".join(protocol.encode_frame((args, kwargs), protocol=pickle_protocol))
        answer = self.client.post(protocol.REPLICA_CALL_PREFIX + method, content=body)
        kind = answer.headers.get("content-type")
        assert (answer.status_code, kind) in ((200, protocol.RESULT_TYPE), (500, protocol.ERROR_TYPE)), answer.text
        return protocol.decode_frame(answer.content)

    def connect(self) -> socket.socket:
        """A bare connection, to leave it at will."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        connection.connect(str(self.socket))
        return connection

    def send(self, path: str, connection: socket.socket) -> None:
        head = f"GET {path} HTTP/1.1\r\nhost: replica\r\n{protocol.ROOT_PATH_HEADER}: /tested\r\n\r\n"
        connection.sendall(head.encode())

    def text(self) -> str:
        """What it logged."""
        return self.log.read_text()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float = 50) -> int:
        return self.process.wait(seconds)

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def cause_of(failure: dict[str, Any]) -> BaseException:
    """The exception in an error frame."""
    cause = pickle.loads(failure["cause"])
    assert isinstance(cause, BaseException)
    return cause
