"""What a caller wishes for a call: the ``Fngw-*`` headers and the idempotency key, read and checked. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fngw.errors import ValidationError
from fngw_state.call_records import MAX_RETRIES, PRIORITIES, Priority

__all__ = ["HEADERS", "Wishes", "read_wishes"]

LONGEST_DELAY_S = 366 * 86400
#: What of a request's headers is about the call, and not for the function.
HEADERS = frozenset({"fngw-retries", "fngw-delay", "fngw-priority", "fngw-callback-url", "idempotency-key"})
_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")


@dataclass(frozen=True)
class Wishes:
    """How to go about a call. ``retries``: after the first try. ``callback`` is a URL that is yet to be checked."""

    retries: int = 3
    delay_s: float = 0.0
    priority: Priority = "default"
    callback: str | None = None
    key: str | None = None


def read_wishes(headers: Mapping[str, str]) -> Wishes:
    """Return what a call's headers ask for.

    Args:
        headers: by their names in lower case.

    Raises:
        ValidationError: ``call_option_invalid``; it names the header.

    Example:
        >>> read_wishes({"fngw-retries": "5", "fngw-priority": "low"})
        Wishes(retries=5, delay_s=0.0, priority='low', callback=None, key=None)
    """
    given = {name: value.strip() for name, value in headers.items() if name in HEADERS}
    wanted = given.get("fngw-priority", "default").lower()
    priority = next((known for known in PRIORITIES if known == wanted), None)
    if priority is None:
        raise _invalid("Fngw-Priority", given["fngw-priority"], "high, default or low")
    key = given.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise _invalid("Idempotency-Key", key, "1 to 255 visible ASCII characters")
    return Wishes(
        retries=int(_number("Fngw-Retries", given, 3, r"\d{1,9}", MAX_RETRIES)),
        delay_s=_number("Fngw-Delay", given, 0, r"\d{1,9}(\.\d{1,9})?", LONGEST_DELAY_S),
        priority=priority,
        callback=given.get("fngw-callback-url"),
        key=key,
    )


def _number(name: str, given: Mapping[str, str], default: float, form: str, most: float) -> float:
    text = given.get(name.lower())
    if text is None:
        return default
    value = float(text) if re.fullmatch(form, text, re.ASCII) else math.nan
    if not 0 <= value <= most:
        raise _invalid(name, text, f"a number from 0 to {most}" + ("" if "." not in form else ", in seconds"))
    return value


def _invalid(name: str, value: str, expected: str) -> ValidationError:
    text = f"{name}: {value[:200]!r} makes no sense"
    return ValidationError(text, code="call_option_invalid", status=400, hint=f"it takes {expected}")
