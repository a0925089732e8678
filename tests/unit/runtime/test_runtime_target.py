"""Which methods can be called, and how."""

from __future__ import annotations

import functools

import pytest

from fngw_runtime.target import Method, Target


class Service:
    attribute = 3

    def __call__(self, request):
        return request

    def public(self):
        return "public"

    async def awaited(self, x):
        return x

    @staticmethod
    def static():
        return 1

    @property
    def failing(self):
        raise AssertionError("a property that is only listed is not read")

    def _private(self):
        return "private"


class Plain:
    def only(self):
        return 1


def function(x):
    return x


async def coroutine(*, x=1):
    return x


def generator():
    yield 1


async def async_generator(x):
    yield x


@pytest.mark.parametrize(
    ("callable_", "is_coroutine", "is_lazy", "takes_argument"),
    [
        (function, False, False, True),
        (lambda: 1, False, False, False),
        (lambda *a: 1, False, False, True),
        (lambda **k: 1, False, False, False),
        (coroutine, True, False, False),
        (functools.partial(coroutine, x=2), True, False, False),
        (generator, False, True, False),
        (async_generator, False, True, True),
        (Service().__call__, False, False, True),
        (Service().awaited, True, False, True),
    ],
)
def test_how_a_callable_is_called(callable_, is_coroutine, is_lazy, takes_argument):
    method = Method(callable_)
    assert (method.is_coroutine, method.is_lazy, method.takes_argument) == (is_coroutine, is_lazy, takes_argument)


def test_methods_of_an_instance():
    target = Target(Service(), is_class=True)
    assert target.public_methods() == ["__call__", "awaited", "public", "static"]
    assert target.method("public").function() == "public"
    assert target.method("__call__").function(5) == 5
    assert target.method("static").function() == 1


@pytest.mark.parametrize("name", ["_private", "__init__", "attribute", "missing", ""])
def test_methods_that_cannot_be_called(name):
    with pytest.raises(AttributeError, match=r"Service has no public method .*; available: __call__, awaited"):
        Target(Service(), is_class=True).method(name)


def test_a_class_without_call():
    target = Target(Plain(), is_class=True)
    assert target.default is None
    assert target.not_over_http().code == "not_callable"
    with pytest.raises(AttributeError, match="available: only"):
        target.method("__call__")


def test_a_function():
    target = Target(function, is_class=False)
    assert target.method("__call__").function(2) == 2
    with pytest.raises(AttributeError, match="function has no public method '__name__'; available: __call__"):
        target.method("__name__")


def test_an_ingress_app_is_found_on_the_class():
    class Site:
        __fngw_ingress_app__ = object()

    assert Target(Site(), is_class=True).ingress_app is Site.__fngw_ingress_app__
    assert Target(Service(), is_class=True).ingress_app is None
