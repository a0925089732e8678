"""``Prefer`` (RFC 7240), and what a caller wishes for a call."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fngw.errors import ValidationError
from fngw_gateway.calls.prefer import Preference, read_prefer
from fngw_gateway.calls.wishes import Wishes, read_wishes


@pytest.mark.parametrize(
    ("values", "meant"),
    [
        (["respond-async"], Preference(True)),
        (["Respond-Async"], Preference(True)),
        (["respond-async, wait=10"], Preference(True, 10)),
        (["wait=10", "respond-async"], Preference(True, 10)),
        (["respond-async; wait=10"], Preference(True)),  # a parameter, not a preference
        (['respond-async, wait="7"'], Preference(True, 7)),
        (["respond-async,wait = 5"], Preference(True, 5)),
        (["respond-async, wait=0"], Preference(True, 0)),
        (["respond-async, wait=1, wait=2"], Preference(True, 1)),
        (["respond-async, wait=99999999999999999999"], Preference(True, 60)),
        (["respond-async="], Preference(True)),  # the same as without a value (§2)
        (['respond-async=""'], Preference(True)),
        ([", ,respond-async,"], Preference(True)),
        (["return=minimal, respond-async"], Preference(True, 0, "return=minimal")),
        (['respond-async, foo; bar="a, b"; baz'], Preference(True, 0, 'foo; bar="a, b"; baz')),
        (["return=representation"], Preference()),
        (["wait=10"], Preference()),
        (['note="respond-async"'], Preference()),
        ([""], Preference()),
    ],
)
def test_prefer(values: list[str], meant: Preference):
    assert read_prefer(values) == meant


@pytest.mark.parametrize(
    "value",
    [
        "respond-async=maybe",
        "respond-async, wait",
        "respond-async, wait=",
        "respond-async, wait=-1",
        "respond-async, wait=1.5",
        "respond-async, wait=soon",
        "respond-async, wait=١",
        "respond-async wait=10",
        'respond-async, foo="bar',
        "respond-async; ;=x",
        "respond-async, (x)",
    ],
)
def test_a_prefer_that_cannot_be_meant(value: str):
    with pytest.raises(ValidationError) as caught:
        read_prefer([value])
    assert (caught.value.code, caught.value.status) == ("prefer_invalid", 400)
    assert "respond-async" in caught.value.hint


@given(st.text(alphabet='respond-async,;= "\\wait0123\t(', max_size=60))
def test_whatever_is_sent_is_read_or_refused(value: str):
    try:
        meant = read_prefer([value])
    except ValidationError as error:
        assert error.code == "prefer_invalid"
    else:
        assert 0 <= meant.wait_s <= 60


def test_wishes():
    assert read_wishes({}) == Wishes()
    given = {
        "fngw-retries": "0",
        "fngw-delay": "1.5",
        "fngw-priority": "HIGH",
        "fngw-callback-url": " https://example.org/x ",
        "idempotency-key": '"a b"',
        "accept": "*/*",
    }
    assert read_wishes(given) == Wishes(0, 1.5, "high", "https://example.org/x", '"a b"')


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fngw-retries", "21"),
        ("fngw-retries", "-1"),
        ("fngw-retries", "1.5"),
        ("fngw-retries", ""),
        ("fngw-retries", "٣"),
        ("fngw-delay", "nan"),
        ("fngw-delay", "1e3"),
        ("fngw-delay", "99999999"),
        ("fngw-priority", "urgent"),
        ("idempotency-key", ""),
        ("idempotency-key", "x" * 256),
        ("idempotency-key", "ä"),
    ],
)
def test_wishes_that_cannot_be_meant(name: str, value: str):
    with pytest.raises(ValidationError, match=f"(?i){name}") as caught:
        read_wishes({name: value})
    assert (caught.value.code, caught.value.status) == ("call_option_invalid", 400)
