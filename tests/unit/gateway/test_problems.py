"""Every problem document says what happened, to what, and what to do next."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from fngw.errors import FngwError
from fngw_gateway.api import create_api
from fngw_gateway.proxy import problems
from fngw_gateway.settings import GatewaySettings

MADE = [
    function
    for name, function in inspect.getmembers(problems, inspect.isfunction)
    if function.__module__ == problems.__name__ and inspect.signature(function).return_annotation == "FngwError"
]
GIVEN = {"path": b"/x", "limit": 2**33, "queued": 3, "waited_s": 30.0, "seconds": 30.0, "method": "PUT"}


@pytest.mark.parametrize("make", MADE, ids=lambda f: f.__name__)
def test_of_the_proxy(make: Callable[..., FngwError]) -> None:
    error = make(**{name: GIVEN.get(name, f"<{name}>") for name in inspect.signature(make).parameters})
    assert 400 <= error.status <= 599
    assert error.code != "error"
    assert len(error.message) > 10 or error.message == "<message>"
    assert error.hint
    assert "8589934592" not in error.message, "sizes are told as people read them"


def test_a_size_in_its_largest_whole_unit() -> None:
    assert [problems.body_too_large(size).message.split("than ")[1] for size in (2**33, 1536, 2**20, 100)] == [
        "8 GiB",
        "1536 bytes",
        "1 MiB",
        "100 bytes",
    ]


class Store:
    """A state that fails as nobody thought it would."""

    async def all_desired(self) -> None:
        raise RuntimeError("unforeseen")


@pytest.fixture
async def http(tmp_path: Path) -> Any:
    store: Any = Store()
    api = create_api(store, GatewaySettings(data_dir=tmp_path, run_dir=tmp_path))
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway:8000/-") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "json", "status", "code", "says", "hint"),
    [
        ("GET", "/nothing", None, 404, "not_found", "has no page /-/nothing", "/-/docs"),
        ("PUT", "/api/v1/info", None, 405, "method_not_allowed", "/-/api/v1/info does not take PUT", "use GET"),
        ("PUT", "/api/v1/deployments/f", None, 422, "validation_error", "body", "/-/docs"),
        ("PUT", "/api/v1/deployments/f", {"spec": {}}, 422, "validation_error", "lacks 'code'", "DeploymentSpec"),
        ("PATCH", "/api/v1/deployments/f", {"pip": []}, 422, "validation_error", "pip:", "num_replicas"),
        ("GET", "/api/v1/deployments/f/logs?tail=-1", None, 422, "validation_error", "query.tail", "/-/docs"),
        ("GET", "/api/v1/deployments", None, 500, "internal_error", "GET /-/api/v1/deployments", "log"),
    ],
)
async def test_of_the_control_api(
    http: httpx.AsyncClient, method: str, path: str, json: Any, status: int, code: str, says: str, hint: str
) -> None:
    answer = await http.request(method, path, json=json)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code)
    assert says in problem["title"]
    assert hint in problem["hint"]
    assert ("allow" in answer.headers) == (status == 405)
