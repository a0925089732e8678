"""Reads ``Prefer`` (RFC 7240): whether the answer may come later, and for how long to wait for it. Pure.

``respond-async`` and ``wait`` are for the gateway; all other preferences are the function's business and go on to
it. An unknown one is never an error (§2); a ``respond-async`` that cannot be meant is, as guessing would do either
the work of hours in a request, or of a request in hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fngw.errors import ValidationError

__all__ = ["LONGEST_WAIT_S", "Preference", "asks_later", "read_prefer"]

HINT = "for example `Prefer: respond-async` or `Prefer: respond-async, wait=10`"
#: Seconds; longer waits are cut to it, as connections that only wait are lost to something on the way.
LONGEST_WAIT_S = 60

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_WORD = rf'(?:{_TOKEN}|"(?:[^"\\]|\\.)*")'
#: A preference: a name, perhaps with a value, and its parameters.
_PREFERENCE = re.compile(rf"({_TOKEN})(?:\s*=\s*({_WORD})?)?((?:\s*;\s*(?:{_TOKEN}(?:\s*=\s*(?:{_WORD})?)?)?)*)\s*")


@dataclass(frozen=True)
class Preference:
    """What ``Prefer`` says. Without ``respond_async`` it is nothing to the gateway.

    Args:
        wait_s: seconds to wait for the result before the call's id is answered.
        others: what else it prefers, as the function is to see it.
    """

    respond_async: bool = False
    wait_s: int = 0
    others: str = ""


def read_prefer(values: Iterable[str]) -> Preference:
    """Return what the ``Prefer`` headers of a request say. Of a preference given twice the first counts (§2).

    Args:
        values: of each of the headers, in their order.

    Raises:
        ValidationError: ``prefer_invalid``.

    Example:
        >>> read_prefer(["respond-async, wait=10", "return=minimal"])
        Preference(respond_async=True, wait_s=10, others='return=minimal')
    """
    seen: dict[str, str] = {}
    others = []
    for name, value, text in _preferences(", ".join(values)):
        if name in ("respond-async", "wait"):
            seen.setdefault(name, value)
        else:
            others.append(text)
    if "respond-async" not in seen:
        return Preference()
    if seen["respond-async"]:
        raise _invalid("respond-async has no value")
    return Preference(True, _seconds(seen["wait"]) if "wait" in seen else 0, ", ".join(others))


def asks_later(value: bytes) -> bool:
    """Whether a request with this ``Prefer`` is to become a call, if only to be told that it makes no sense.

    Args:
        value: all its ``Prefer`` headers, joined by commas.
    """
    if b"respond-async" not in value.lower():
        return False
    try:
        return read_prefer([value.decode("latin-1")]).respond_async
    except ValidationError:
        return True


def _preferences(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and whole text of each preference."""
    position = 0
    while position < len(text):
        if text[position] in ", \t":  # empty elements of a list are allowed (RFC 9110 §5.6.1)
            position += 1
            continue
        match = _PREFERENCE.match(text, position)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            raise _invalid(f"{text[position : position + 80]!r} is not a preference")
        yield match[1].lower(), _unquoted(match[2] or ""), match[0].strip()
        position = match.end()


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _seconds(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise _invalid(f"wait={value!r} is not a number of whole seconds (RFC 7240 §4.3)")
    return min(int(value[:9]), LONGEST_WAIT_S)


def _invalid(why: str) -> ValidationError:
    return ValidationError(f"Prefer: {why}", code="prefer_invalid", status=400, hint=HINT)
