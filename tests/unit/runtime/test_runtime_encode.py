"""What user code returns becomes bytes and a content type."""

from __future__ import annotations

import datetime
import math

import numpy
import pytest

from fngw.errors import FngwError
from fngw_runtime.encode import encode, is_response, is_stream

JSON = "application/json"


@pytest.mark.parametrize(
    ("result", "body", "content_type"),
    [
        (None, b"", ""),
        (b"\x00", b"\x00", "application/octet-stream"),
        (bytearray(b"ab"), b"ab", "application/octet-stream"),
        (memoryview(b"ab"), b"ab", "application/octet-stream"),
        ("grüezi", "grüezi".encode(), "text/plain; charset=utf-8"),
        ({"ä": [1, 2.5, None, True]}, '{"ä":[1,2.5,null,true]}'.encode(), JSON),
        (0, b"0", JSON),
        (False, b"false", JSON),
        (numpy.int64(3), b"3", JSON),
        (numpy.float64(0.5), b"0.5", JSON),
        (numpy.bool_(True), b"true", JSON),
        ([numpy.array([[1, 2], [3, 4]])], b"[[[1,2],[3,4]]]", JSON),
        (datetime.datetime(2024, 2, 29, 12, 30), b'"2024-02-29T12:30:00"', JSON),
    ],
)
def test_plain_results(result, body, content_type):
    assert encode(result) == (body, content_type)


@pytest.mark.parametrize("result", [{1, 2}, object(), {"a": math.nan}, numpy.array([math.inf]), {(1, 2): 3}])
def test_results_that_json_cannot_hold(result):
    with pytest.raises(FngwError, match=type(result).__name__) as caught:
        encode(result)
    assert caught.value.code == "unserialisable_result"
    assert caught.value.hint


def test_a_circular_result():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(FngwError, match="list"):
        encode(loop)


def test_kinds_of_results():
    from starlette.responses import Response

    async def numbers():
        yield 1

    assert is_response(Response()) and not is_response("text")
    assert is_stream(iter([1])) and is_stream(numbers()) and is_stream(x for x in "ab")
    assert not any(map(is_stream, ([1], "text", {"a": 1}, None, (1,))))
