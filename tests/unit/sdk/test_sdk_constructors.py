"""Constructor arguments are held to the constructor's signature before anything is packed."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from fastapi import FastAPI

import fngw
from fngw.deploying import constructor_arguments

app = FastAPI()


class Greeter:
    def __init__(self, msg: str, *, loud: bool = False) -> None: ...


class Asynchronous:
    async def __init__(self, model: str) -> None: ...  # type: ignore[misc]


class Anything:
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


class Plain:
    def __call__(self) -> None: ...


@fngw.ingress(app)
class Api:
    def __init__(self, database: Any) -> None: ...

    @app.get("/")
    def root(self) -> None: ...


def injected(init: Any) -> Any:
    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, "a connection", *args, **kwargs)

    return wrapper


class Injected:
    @injected
    def __init__(self, connection: str, table: str) -> None: ...


class Meta(type):
    def __call__(cls, *args: Any) -> Any: ...


class OfMeta(metaclass=Meta):
    def __init__(self) -> None: ...


class Broken:
    __signature__ = "none"


class Native(dict[str, int]): ...


@pytest.mark.parametrize(
    ("cls", "args", "kwargs", "said"),
    [
        (Greeter, (), {}, "Greeter(msg, *, loud=False): missing a required argument: 'msg'"),
        (Greeter, ("a", "b"), {}, "Greeter(msg, *, loud=False): too many positional arguments"),
        (Greeter, ("a",), {"lod": 1}, "Greeter(msg, *, loud=False): got an unexpected keyword argument 'lod'"),
        (Greeter, ("a",), {"msg": 1}, "Greeter(msg, *, loud=False): multiple values for argument 'msg'"),
        (Asynchronous, (), {}, "Asynchronous(model): missing a required argument: 'model'"),
        (Plain, (1,), {}, "Plain(): too many positional arguments"),
        (Api, (), {}, "Api(database): missing a required argument: 'database'"),
    ],
)
def test_what_does_not_fit_is_refused(cls: Any, args: Any, kwargs: Any, said: str) -> None:
    with pytest.raises(TypeError) as refused:
        constructor_arguments(fngw.deployment(cls), args, kwargs)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("cls", "args", "kwargs"),
    [
        (Greeter, ("a",), {"loud": True}),
        (Greeter, (), {"msg": "a"}),
        (Asynchronous, ("m",), {}),
        (Anything, (1, 2), {"x": 3}),
        (Plain, (), {}),
        (Api, (object(),), {}),
    ],
)
def test_what_fits_is_taken(cls: Any, args: Any, kwargs: Any) -> None:
    assert constructor_arguments(fngw.deployment(cls), args, kwargs) == (args, kwargs)


@pytest.mark.parametrize(
    ("cls", "args"), [(Injected, ("t",)), (OfMeta, (1, 2)), (Broken, (1,)), (Native, ({"a": 1},))]
)
def test_what_cannot_be_told_before_it_is_tried_is_not_refused(cls: Any, args: Any) -> None:
    assert constructor_arguments(fngw.deployment(cls), args) == (args, {})


def test_the_options_own_arguments_count_where_none_are_given() -> None:
    deployment = fngw.deployment(init_args=("a",), init_kwargs={"loud": True})(Greeter)
    assert constructor_arguments(deployment) == (("a",), {"loud": True})
    assert constructor_arguments(deployment, ("b",)) == (("b",), {"loud": True})
    with pytest.raises(TypeError, match="'lod'"):
        constructor_arguments(deployment, (), {"lod": True})


def test_a_function_has_no_constructor() -> None:
    with pytest.raises(fngw.ValidationError, match="init_kwargs: a function takes no constructor arguments"):
        constructor_arguments(fngw.deployment(name="f")(lambda: None), (), {"x": 1})
