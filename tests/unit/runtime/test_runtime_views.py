"""Class-based views on a FastAPI app, called as a replica calls them."""

from __future__ import annotations

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI

from fngw_runtime.views import bind


def prefix() -> str:
    return "Hello"


def make():
    """An app with plain routes, routes of two classes, and routes of a base class."""
    app = FastAPI(title="views")

    @app.get("/plain")
    def plain():
        return "plain"

    class Base:
        @app.get("/base")
        def base(self):
            return f"base of {self.name}"

    class First(Base):
        def __init__(self, name):
            self.name = name

        @app.get("/greet/{whom}")
        async def greet(self, whom: str, times: int = 1, word: str = Depends(prefix)):
            return f"{word} {whom} from {self.name}" * times

        @app.post("/items", status_code=201, response_model=dict)
        def add(self, item: dict):
            return {**item, "by": self.name}

        @app.websocket("/ws")
        async def ws(self, socket):
            await socket.accept()
            await socket.send_text(self.name)
            await socket.close()

    class Second:
        @app.get("/second")
        def second(self):
            return "second"

    @app.get("/{rest:path}")
    def rest(rest: str):
        return f"rest {rest}"

    return app, First, Second


def calling(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
def client():
    app, first, _ = make()
    bind(app, first("Ada"))
    return calling(app)


async def test_methods_see_their_instance_with_parameters_and_dependencies(client):
    assert (await client.get("/greet/Bob?times=2")).json() == "Hello Bob from AdaHello Bob from Ada"
    assert (await client.get("/greet/Bob?times=x")).status_code == 422
    assert (await client.get("/base")).json() == "base of Ada"


async def test_bodies_and_route_options_are_kept(client):
    answer = await client.post("/items", json={"a": 1})
    assert (answer.status_code, answer.json()) == (201, {"a": 1, "by": "Ada"})


async def test_plain_routes_stay_and_the_order_of_all_too(client):
    assert (await client.get("/plain")).json() == "plain"
    assert (await client.get("/nothing/here")).json() == "rest nothing/here"


async def test_routes_of_another_class_are_left_out(client):
    assert (await client.get("/second")).json() == "rest second"


async def test_the_documentation_shows_no_self(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    names = [p["name"] for p in paths["/greet/{whom}"]["get"]["parameters"]]
    assert sorted(names) == ["times", "whom"]
    assert "/second" not in paths


async def test_each_class_gets_its_own_routes():
    app, _, second = make()
    bind(app, second())
    assert (await calling(app).get("/second")).json() == "second"


def test_what_is_no_fastapi_app_is_left_alone():
    bind(APIRouter(), object())
    bind(object(), object())


def test_an_app_without_methods_is_left_alone():
    app = FastAPI()
    app.get("/")(prefix)
    before = list(app.router.routes)
    bind(app, object())
    assert app.router.routes == before
