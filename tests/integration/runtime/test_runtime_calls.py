"""Calls by handle to a real replica."""

from __future__ import annotations

import pickle

import numpy
import pytest

from fngw import protocol

from .replica_process import cause_of

GREETER = {"target": "functions:Greeter", "is_class": True}


def test_methods_are_called_with_their_arguments(start):
    replica = start(**GREETER, init=(("hello",), {"loud": True}))
    assert replica.call("greet", "you", end="?") == "HELLO you?"
    assert replica.call("__call__", None) == {"message": "HELLO", "config": None}


def test_arrays_travel_in_place_and_are_writable(start):
    array = numpy.arange(100_000, dtype="float64")
    doubled = start(**GREETER).call("double", array)
    assert (doubled == array * 2).all()


def test_an_exception_comes_back_with_its_traceback(start):
    replica = start(**GREETER)
    failure = replica.call("crash")
    assert {k: failure[k] for k in ("type", "message", "code")} == {
        "type": "LookupError",
        "message": "nothing here",
        "code": "user_exception",
    }
    assert "in crash" in failure["traceback"] and "fngw_runtime" not in failure["traceback"]
    assert isinstance(cause_of(failure), LookupError)
    assert "call crash" in replica.text()


@pytest.mark.parametrize("name", ["nothing", "_secret", "__init__", "message"])
def test_an_unknown_method_is_told_with_those_that_are_known(start, name):
    failure = start(**GREETER).call(name)
    assert (failure["type"], failure["code"]) == ("AttributeError", "unknown_method")
    assert "__call__, crash, double, generate, greet" in failure["message"]
    assert "_secret" not in failure["message"].partition("available")[2]


def test_results_that_cannot_travel(start):
    replica = start(**GREETER)
    assert replica.call("thread")["code"] == "unserialisable_result"
    failure = replica.call("generate")
    assert (failure["code"], failure["type"]) == ("unserialisable_result", "TypeError")
    assert "return a list" in failure["message"]


def test_a_frame_that_cannot_be_read(start):
    replica = start(**GREETER)
    answer = replica.client.post("/-/call/greet", content=b"rubbish")
    assert answer.status_code == 500
    assert protocol.decode_frame(answer.content)["code"] == "undecodable_call"


def test_the_answer_is_pickled_as_the_call_was(start):
    replica = start(**GREETER)
    body = b"".join(protocol.encode_frame((("you",), {}), protocol=4))
    frame = replica.client.post("/-/call/greet", content=body).content
    assert protocol.frame_pickle_protocol(frame) == 4
    assert pickle.PROTO + b"\x04" in frame


def test_a_function_has_only_call(start):
    replica = start("functions:hello")
    assert replica.call("__call__") == "hello"
    assert replica.call("upper")["code"] == "unknown_method"
