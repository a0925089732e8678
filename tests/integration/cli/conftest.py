"""The command line in this process, against a fake gateway over real sockets."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fngw import endpoint, transport
from fngw.cli import main

from ..sdk.fake_gateway import FakeGateway, serving


class StatusGateway(FakeGateway):
    """Answers with the whole status document of the contract, too."""

    def __init__(self) -> None:
        super().__init__()
        self.lock_of: dict[str, str] = {}
        self.health = "HEALTHY"

    def document(self, name: str) -> dict[str, Any]:
        spec = self.specs[name]
        route = spec["route_prefix"]
        replica = {"id": "r1", "state": "READY", "pid": 7, "gpus": [], "since": 1.0}
        return {
            "name": name,
            "version": spec["version"],
            "status": self.health,
            "message": "",
            "url": None if route is None else self.url + route,
            "route_prefix": route,
            "num_replicas": spec["num_replicas"],
            "image": "local:1",
            "lock": self.lock_of.get(name),
            "replicas": [replica],
            "options": {key: spec[key] for key in ("conda", "pip")},
        }

    async def list(self, request: Request) -> Response:
        return JSONResponse({"deployments": [self.document(name) for name in self.specs]})

    async def logs(self, request: Request) -> Response:
        self._known(request)
        return await super().logs(request)

    async def status(self, request: Request) -> Response:
        return JSONResponse(self.document(self._known(request)))


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StatusGateway]:
    gateway = StatusGateway()
    with serving(gateway, tmp_path):
        monkeypatch.setenv("FNGW_URL", gateway.url)
        yield gateway
        transport.close()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def run(*argv: str) -> Outcome:
        code = main(argv)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    yield run
    endpoint.choose(None)
    for name in [n for n in set(sys.modules) - before if n.startswith("cliapp")]:
        del sys.modules[name]


@pytest.fixture
def app(tmp_path: Path) -> str:
    """A file with a class and a function to deploy."""
    folder = tmp_path / "project"
    folder.mkdir()
    path = folder / "cliapp.py"
    path.write_text(
        "import fngw\n\n"
        "@fngw.deployment(version='1')\n"
        "class Greeter:\n"
        "    def __init__(self, msg, loud=False): ...\n"
        "    def reconfigure(self, config): ...\n"
        "    def __call__(self, request): ...\n\n"
        "@fngw.deployment(route_prefix=None)\n"
        "def hidden(x): ...\n"
    )
    return str(path)
