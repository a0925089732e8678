"""The frames of failed calls."""

from __future__ import annotations

import pickle
import threading

from fngw import protocol
from fngw.errors import RemoteError
from fngw_runtime.calls import encode_error


class Unpicklable(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


def decoded(error, version=4):
    frame = b"".join(encode_error("user_exception", error, version))
    assert protocol.frame_pickle_protocol(frame) == version
    return protocol.decode_frame(frame)


def test_the_original_travels():
    failure = decoded(ZeroDivisionError("by zero"))
    assert (failure["type"], failure["message"]) == ("ZeroDivisionError", "by zero")
    assert isinstance(pickle.loads(failure["cause"]), ZeroDivisionError)


def test_of_a_further_replica_the_innermost_travels():
    error = RemoteError("KeyError: 'x'")
    error.cause = KeyError("x")
    assert isinstance(pickle.loads(decoded(error)["cause"]), KeyError)
    assert decoded(RemoteError("lost"))["cause"] is None


def test_an_exception_of_a_local_class_travels_by_value():
    class Local(Exception):
        pass

    Local.__module__ = "__main__"
    assert str(pickle.loads(decoded(Local("here"))["cause"])) == "here"


def test_what_cannot_be_pickled_is_told_in_words():
    failure = decoded(Unpicklable("has a lock"))
    assert (failure["cause"], failure["message"]) == (None, "has a lock")
    assert "Unpicklable: has a lock" in failure["traceback"]


def test_the_pickle_protocol_of_rubbish_is_the_best():
    assert protocol.frame_pickle_protocol(b"") == protocol.BEST_PICKLE
    assert protocol.frame_pickle_protocol(b"FNGW1\x00\x00\x00\x01junk") == protocol.BEST_PICKLE
