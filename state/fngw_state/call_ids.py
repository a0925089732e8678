"""Ids of calls: 26 characters that sort by age and cannot be guessed.

48 bits of Unix milliseconds and 80 random bits in Crockford's base 32, as ULIDs are. Whoever has the id of a call
may see its result, so the random bits come from the operating system.
"""

from __future__ import annotations

import re
import secrets
import time

__all__ = ["is_call_id", "new_call_id"]

DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: A callback's id is its call's, and after which attempt it was made.
_FORM = re.compile(f"[0-7][{DIGITS}]{{25}}(-cb[0-9]+)?", re.ASCII)


def new_call_id(at: float | None = None) -> str:
    """Return a new id.

    Args:
        at: Unix seconds that it sorts by; now by default.

    Example:
        >>> new_call_id()
        '01KAQ7V2M4ZJ0C3S9W8X5T6RNE'
    """
    number = round((time.time() if at is None else at) * 1000) << 80 | secrets.randbits(80)
    return "".join(DIGITS[number >> shift & 31] for shift in range(125, -1, -5))


def is_call_id(text: str) -> bool:
    """Whether ``text`` has the form of an id, of a call or of a callback."""
    return _FORM.fullmatch(text) is not None
