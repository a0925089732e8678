"""What `fngw doctor` finds: one ``Check`` per thing that it looks at, made by the gateway or by the client.

Standard library only, Python >= 3.7.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OK", "PROBLEM", "WARNING", "Check"]

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Check:
    """How one thing is.

    Args:
        name: a word that stays the same, such as ``redis``.
        state: ``ok``, ``warning`` (it works, but) or ``problem`` (something does not).
        message: what was found.
        hint: what to do about it.
    """

    name: str
    state: str
    message: str
    hint: str = ""
